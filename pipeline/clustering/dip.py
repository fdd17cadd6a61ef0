"""How far a sample is from every distribution with one mode: Hartigan's dip."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def dip(sample: ArrayLike) -> float:
    """The largest distance between the empirical distribution and the nearest unimodal one.

    Between ``1 / 2n`` and 1/4; unimodal is convex up to the mode and concave from there.
    "The dip test of unimodality", 1985: the algorithm of section 3.

    Parameters
    ----------
    sample : (n,) float, n >= 1
        In any order; finite. Equal values are one step of their height, anywhere but at the mode
        as hard to explain as a mode of its own.
    """
    values, counts = np.unique(np.asarray(sample, np.float64), return_counts=True)
    heights = np.concatenate([[0], np.cumsum(counts)])
    # lists: the loops read single numbers, which an array hands out at several times the price
    return settled_dip(values.tolist(), heights.tolist())


def settled_dip(x: Sequence[float], heights: Sequence[int]) -> float:
    """`dip` of ascending, different ``x``; F jumps from ``heights[i]`` to ``heights[i + 1]`` at i.

    Plain loops, so that a compiler may take them as they are. Left of the modal interval the
    unimodal function follows the greatest convex minorant of the lower ends of the jumps, right
    of it the least concave majorant of the upper ends; both half of what is returned off F.
    """
    n_values, n = len(x), heights[len(x)]
    left, right, widest = 0, n_values - 1, 1.0
    minorant, majorant = [0] * n_values, [0] * n_values
    while left < right:
        # the hulls over what may still hold the mode: their corners, ascending
        n_below, n_above = 0, 0
        for i in range(left, right + 1):
            while n_below > 1:
                a, b = minorant[n_below - 2], minorant[n_below - 1]
                rise, next_rise = heights[b] - heights[a], heights[i] - heights[b]
                if rise * (x[i] - x[b]) < next_rise * (x[b] - x[a]):
                    break
                n_below -= 1
            minorant[n_below] = i
            n_below += 1
            while n_above > 1:
                a, b = majorant[n_above - 2], majorant[n_above - 1]
                rise, next_rise = heights[b + 1] - heights[a + 1], heights[i + 1] - heights[b + 1]
                if rise * (x[i] - x[b]) > next_rise * (x[b] - x[a]):
                    break
                n_above -= 1
            majorant[n_above] = i
            n_above += 1
        # where they are farthest apart, which is at a corner of one of them
        gap, new_left, new_right = 0.0, left, right
        j = 1
        for p in range(n_below):
            i = minorant[p]
            while majorant[j] < i:
                j += 1
            a, b = majorant[j - 1], majorant[j]
            share = (x[i] - x[a]) / (x[b] - x[a])
            above = heights[a + 1] + share * (heights[b + 1] - heights[a + 1])
            if above - heights[i] > gap:
                gap, new_left, new_right = above - heights[i], i, a if a == i else b
        j = 1
        for p in range(n_above):
            i = majorant[p]
            while minorant[j] < i:
                j += 1
            a, b = minorant[j - 1], minorant[j]
            share = (x[i] - x[a]) / (x[b] - x[a])
            below = heights[a] + share * (heights[b] - heights[a])
            if heights[i + 1] - below > gap:
                gap, new_left, new_right = heights[i + 1] - below, b if b == i else a, i
        if gap <= widest:
            break
        # what the parts cost that the mode has now left
        for p in range(1, n_below):
            a, b = minorant[p - 1], minorant[p]
            if b > new_left:
                break
            slope = (heights[b] - heights[a]) / (x[b] - x[a])
            for i in range(a, b + (b < new_left)):  # a jump at the mode itself costs nothing
                widest = max(widest, heights[i + 1] - heights[a] - slope * (x[i] - x[a]))
        for p in range(1, n_above):
            a, b = majorant[p - 1], majorant[p]
            if a < new_right:
                continue
            slope = (heights[b + 1] - heights[a + 1]) / (x[b] - x[a])
            for i in range(a + (a == new_right), b + 1):
                widest = max(widest, heights[a + 1] + slope * (x[i] - x[a]) - heights[i])
        left, right = new_left, new_right
    return 0.5 * widest / n


# The dip times √n of samples from the uniform distribution, which of all with one mode is the one
# farthest off asymptotically: quantiles by `benchmarks/auto_k.py --table`, a million samples each
# (200 000 of 1 024, 40 000 of 4 096).
TABLE_SIZES = (8, 12, 16, 24, 32, 64, 128, 256, 1024, 4096)
TABLE_LEVELS = (0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4, 1e-5)
TABLE = np.array(
    [
        (0.232, 0.314, 0.355, 0.401, 0.436, 0.470, 0.489, 0.549, 0.606, 0.642),  # 8
        (0.251, 0.315, 0.381, 0.416, 0.450, 0.490, 0.515, 0.586, 0.638, 0.683),  # 12
        (0.247, 0.325, 0.389, 0.428, 0.462, 0.502, 0.530, 0.606, 0.665, 0.709),  # 16
        (0.258, 0.333, 0.400, 0.441, 0.477, 0.518, 0.547, 0.629, 0.698, 0.746),  # 24
        (0.261, 0.338, 0.407, 0.449, 0.485, 0.529, 0.559, 0.645, 0.721, 0.786),  # 32
        (0.270, 0.349, 0.420, 0.464, 0.502, 0.548, 0.580, 0.672, 0.748, 0.805),  # 64
        (0.276, 0.357, 0.431, 0.475, 0.515, 0.562, 0.596, 0.692, 0.774, 0.844),  # 128
        (0.281, 0.364, 0.438, 0.483, 0.524, 0.573, 0.606, 0.707, 0.794, 0.880),  # 256
        (0.288, 0.372, 0.447, 0.494, 0.535, 0.585, 0.620, 0.724, 0.800, 0.864),  # 1024
        (0.291, 0.376, 0.452, 0.498, 0.542, 0.591, 0.624, 0.722, 0.790, 0.894),  # 4096
    ]
)
_LOG_SIZES = np.log(TABLE_SIZES)
_LOG_LEVELS = np.log(TABLE_LEVELS)


def dip_p_value(sample: ArrayLike) -> float:
    """How likely a dip as large or larger is, were the sample one of the uniform distribution.

    For samples of other distributions with one mode the figure errs upwards. Between the rows and
    columns of the table it is interpolated; beyond the smallest level its logarithm goes on
    linearly in the square of the dip, as the tail of a Brownian bridge's supremum does. A sample
    of fewer than `TABLE_SIZES[0]` proves nothing: 1.
    """
    values = np.asarray(sample, np.float64)
    if len(values) < TABLE_SIZES[0]:
        return 1.0
    scaled = dip(values) * math.sqrt(len(values))
    size = np.clip(math.log(len(values)), _LOG_SIZES[0], _LOG_SIZES[-1])
    above = int(np.clip(np.searchsorted(_LOG_SIZES, size), 1, len(_LOG_SIZES) - 1))
    share = (size - _LOG_SIZES[above - 1]) / (_LOG_SIZES[above] - _LOG_SIZES[above - 1])
    quantiles = (1.0 - share) * TABLE[above - 1] + share * TABLE[above]
    if scaled <= quantiles[0]:
        return 1.0
    log_p: float = np.interp(scaled, quantiles, _LOG_LEVELS)
    if scaled > quantiles[-1]:
        slope = (_LOG_LEVELS[-1] - _LOG_LEVELS[-3]) / (quantiles[-1] ** 2 - quantiles[-3] ** 2)
        log_p += slope * (scaled**2 - quantiles[-1] ** 2)
    return math.exp(log_p)
