"""How long a chart without a change runs until it alarms, and the level that makes it so long.

All charts here have the same memory: exponential weights over windows. Standardised by its exact
variance, what such a chart remembers is a first-order autoregression with a marginal that never
changes, and whose steps are correlated by φ_t, which rises from 0 to 1 - MEMORY while the memory
fills. So a chart is a Markov chain, and its run length needs no simulation: the state is held on
Gauss-Legendre nodes below the level, moved by the density of a step, and what crosses the level
is counted, in the first windows too, which alarm more often, as they are less alike.

"Exponentially weighted moving average control schemes: properties and enhancements", 1990;
"Markov chain analysis for the MEWMA control chart", 1996; the nodes as in "Optimum multivariate
exponentially weighted moving average control charts", 1995.

A level is told as the share of windows in which it is exceeded, so that each statistic can look
it up in its own distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, gamma, ncx2, norm

MEMORY = 0.1
"""The weight of the newest window: a tenth, which makes the memory of about 19 windows."""

N_NODES = 56
N_RISING = 20
"""Steps after which φ counts as risen: it then lacks less than 0.002."""
MAX_STEPS = 400
MAX_DEGREES = 4_000.0
"""More make no difference to a tail."""
MIN_SKEWNESS = 0.01

Floats = NDArray[np.float64]


class _Chain(NamedTuple):
    """A standardised autoregression below a level, on nodes."""

    start: Callable[[Floats], Floats]
    """Density of the marginal at the nodes."""
    step: Callable[[Floats, Floats, float], Floats]
    """Densities of a step from the first to the second, (n, m), under a correlation."""
    exit: Callable[[Floats, float, float], Floats]
    """Probability of a step beyond the level."""
    lowest: float


@lru_cache(maxsize=256)
def radius_tail(arl0: float, degrees: float) -> float:
    """The level for ‖u‖², u of ``degrees`` normal components, as its chi-square tail.

    Parameters
    ----------
    arl0
        Mean number of windows to the first alarm.
    degrees
        Need not be whole: a chart whose statistic only resembles a chi-square fits a number.
    """
    chain = _Chain(
        start=lambda r: 2.0 * r * chi2.pdf(r * r, degrees),
        step=lambda r, s, phi: _radius_step(r, s, phi, degrees),
        exit=lambda r, level, phi: ncx2.sf(
            level * level / (1 - phi * phi), degrees, phi * phi * r * r / (1 - phi * phi)
        ),
        lowest=math.sqrt(float(chi2.ppf(1e-13, degrees))),
    )
    return _tail(
        chain, lambda tail: math.sqrt(float(chi2.isf(tail, degrees))), arl0, _correlations(0.0)
    )


def _radius_step(r: Floats, s: Floats, phi: float, degrees: float) -> Floats:
    rest = 1.0 - phi * phi
    density = ncx2.pdf(s[None, :] ** 2 / rest, degrees, (phi * r[:, None]) ** 2 / rest)
    moved: Floats = 2.0 * s[None, :] * density / rest
    return moved


@lru_cache(maxsize=256)
def normal_tail(arl0: float, n_charts: int = 1, squared: float = 0.0) -> float:
    """The one-sided level of each of ``n_charts`` normal charts, as its upper tail.

    Parameters
    ----------
    arl0
        Mean number of windows to the first alarm of any of them; they are independent.
    squared
        The share of the variance whose correlation is φ², not φ: that of a quadratic part.
    """
    chain = _Chain(
        start=lambda x: np.asarray(norm.pdf(x)),
        step=lambda x, y, phi: np.asarray(
            norm.pdf(y[None, :], phi * x[:, None], math.sqrt(1 - phi * phi))
        ),
        exit=lambda x, level, phi: np.asarray(
            norm.sf((level - phi * x) / math.sqrt(1 - phi * phi))
        ),
        lowest=-8.0,
    )
    return _tail(chain, lambda tail: float(norm.isf(tail)), arl0, _correlations(squared), n_charts)


def _correlations(squared: float) -> tuple[float, ...]:
    """Of each window with the one before, from the second on; the last one holds for ever."""
    keep = (1.0 - MEMORY) ** 2
    ages = range(2, N_RISING + 2)
    phis = [math.sqrt(keep * (1 - keep ** (t - 1)) / (1 - keep**t)) for t in ages]
    return tuple((1 - squared) * phi + squared * phi * phi for phi in [*phis, 1.0 - MEMORY])


def _tail(
    chain: _Chain,
    level: Callable[[float], float],
    arl0: float,
    correlations: tuple[float, ...],
    n_charts: int = 1,
) -> float:
    """The tail whose level gives the mean run length asked for."""

    def excess(log_tail: float) -> float:
        run = _mean_run(chain, level(math.exp(log_tail)), correlations, n_charts)
        return math.log(run / arl0)

    # no run is shorter than independent windows make it, none longer than 60 at once per alarm
    least, most = math.log(0.5 / (n_charts * arl0)), math.log(min(60.0 / (n_charts * arl0), 0.999))
    return math.exp(float(brentq(excess, least, most, xtol=1e-4)))


def _mean_run(chain: _Chain, level: float, correlations: tuple[float, ...], n_charts: int) -> float:
    """Mean number of windows until the first of ``n_charts`` chains is above the level.

    It is Σ P(all are below after t windows) over t = 0, 1, …; once the hazard stands still, the
    rest of the sum is a geometric series.
    """
    places, weights = np.polynomial.legendre.leggauss(N_NODES)
    nodes = chain.lowest + (places + 1.0) * (level - chain.lowest) / 2.0
    weights = weights * (level - chain.lowest) / 2.0
    mass = chain.start(nodes) * weights
    below = math.log(min(float(mass.sum()), 1.0))
    run = 1.0 + math.exp(n_charts * below)
    hazard = math.inf
    for t in range(MAX_STEPS):
        phi = correlations[min(t, len(correlations) - 1)]
        if t < len(correlations):
            leaving = chain.exit(nodes, level, phi)
            moving = chain.step(nodes, nodes, phi) * weights[None, :]
        before, hazard = hazard, float(mass @ leaving) / float(mass.sum())
        below += math.log1p(-min(hazard, 1.0 - 1e-12))
        mass = mass @ moving
        mass /= mass.sum()  # what was lost is in `below`, where no quadrature blurs it
        if t > len(correlations) and abs(hazard - before) <= 1e-7 * hazard:
            break
        run += math.exp(n_charts * below)
    rate = -math.expm1(n_charts * math.log1p(-min(hazard, 1.0 - 1e-12)))
    return run + math.exp(n_charts * below) / rate


# --- levels of statistics that are nearly what the chains assume --------------------------------


def shaped_level(tail: float, mean: float, variance: float, third: float) -> float:
    """The level that a statistic with these cumulants exceeds with probability ``tail``."""
    if variance <= 0.0:
        return mean
    spread = math.sqrt(variance)
    return mean + spread * float(shaped_levels(tail, np.array([third / (variance * spread)]))[0])


def shaped_levels(tail: float, skews: Floats) -> Floats:
    """The same of standardised statistics with these skewnesses, (n,).

    By the gamma distribution with the same cumulants (Pearson's type III); what is not
    skewed upwards counts as normal, which makes a run longer, never shorter.
    """
    levels = np.full(len(skews), float(norm.isf(tail)))
    skewed = skews > MIN_SKEWNESS
    shapes = 4.0 / skews[skewed] ** 2
    levels[skewed] = (gamma.isf(tail, shapes) - shapes) / np.sqrt(shapes)
    return levels


def evidence_level(tail: float) -> float:
    """The level of a chi-square of one degree of freedom."""
    return float(chi2.isf(tail, 1))


def degrees_of(variance: float, third: float) -> float:
    """Degrees of freedom of the chi-square that is as skewed."""
    if third <= 0.0:
        return MAX_DEGREES
    return min(max(8.0 * variance**3 / (third * third), 0.25), MAX_DEGREES)
