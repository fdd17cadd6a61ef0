"""Compiled: from lower bounds to a label. Whatever proposed them, float64 decides.

A row holds for every centroid a float32 L_k with ``L_k + shift <= D(x, c_k)``, where
``shift <= |z|²`` (`pipeline.kernels.bounds`). The canonical distance of the most promising one
excludes all whose bound is above it; what is left is compared canonically, the best first.
"""
# mypy: ignore-errors
# (numba types these functions by their arguments)

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from pipeline.kernels import basics
from pipeline.kernels.basics import canonical, collect, compiler, least, place_of

MAX_BOUND = np.finfo(np.float32).max  # every L of a centroid that is not compared is below it
TINIEST = np.float32(2.0**-120)  # two centroids that are one have no distance to divide by
INFINITE = np.float32(np.inf)
FEW = 64  # candidates up to which picking the best one each time costs less than it excludes

compiled = compiler(basics)


@compiled()
def relative_error(n_dims):
    """Of a canonical sum: (n_dims / 32 + 8) * 2**-53, four times over."""
    return 4.0 * (n_dims / 32.0 + 8.0) * 2.0**-53


@compiled()
def limit_of(distance, shift, relative):
    """The L above which a centroid is proven to be further away than a canonical distance."""
    return distance * (1.0 + relative) - shift + (distance + shift) * 2.0**-50


@compiled()
def round_down(value):
    """A float32 bound that is not above ``value``, nor below zero, where gaps begin."""
    return max(np.float32(0.0), np.nextafter(np.float32(value), np.float32(-np.inf)))


@compiled()
def round_lower(distance, shift, relative):
    """A float32 L of a centroid that is compared."""
    value = distance * (1.0 - relative) - shift - (distance + shift) * 2.0**-50
    return np.nextafter(np.float32(value), np.float32(-np.inf))


@compiled()
def round_up(value):
    """A float32 that is not below ``value``."""
    return np.nextafter(np.float32(value), np.float32(np.inf))


def sharpened(closer, row, found, n, limit):
    """Have a closer look at the n centroids in ``found``; how many are still not above the limit.

    ``closer`` is what the look takes; None: there is none. Bounds in the row grow, and whoever is
    left stands first in ``found``.
    """
    raise NotImplementedError("exists only compiled")


@overload(sharpened, inline="always")
def _sharpened(closer, row, found, n, limit):
    if isinstance(closer, types.NoneType):
        return lambda closer, row, found, n, limit: n
    return None


@compiled()
def _bring_best(
    row,  #    IN     (n_padded,)  float32: L
    found,  #  INOUT  (n_padded,)  int32: the one of the least L comes to place ``first``
    first,
    n,
):
    best = first
    for j in range(first + 1, n):
        if row[found[j]] < row[found[best]]:
            best = j
    found[first], found[best] = found[best], found[first]


@compiled(fastmath={"nnan", "nsz"})
def _margin(
    row,  #      INOUT (n_padded,)  float32: L, +inf at the label; its values are lost
    label,
    shift,
    relative,
    distance,
    reaches,  #  IN  (n_padded,)  float32
    borders,  #  IN  Borders
):
    """How far the border of the cell is at least.

    Let r_k be the squared distances in real numbers, and e the relative error of a canonical one
    (``relative`` is 4e). If x moves by less than

        t = N / (2 |c_k - c_a|),    N = D_k (1 - 16e) - D_a (1 + 16e) > 0,

    then ``r_k' - r_a' > r_k - r_a - N >= 14e (r_k + r_a)``. As t is at most half the sum of both
    distances, ``r_k' + r_a' <= 4 (r_k + r_a)``, and so ``r_k' (1 - e) > r_a' (1 + e)``: canonical
    distances are ordered in the same way, strictly, and no tie is left to be broken. N grows with
    D_k, so a lower bound of D_k may stand for it. An equal centroid is no border, as ties stay
    with the lower label wherever x goes.

    With E = D_k - D_a, N is ``E (1 - 16e) - 32e D_a``: the second part is taken off first, and what
    the first takes is, with three or four roundings of float32, far below a 2**-20 of a margin.
    """
    firsts, inverses = borders
    start = distance * (1.0 + 12.0 * relative) - shift + (distance + shift) * 2.0**-50
    own = min(round_up(start), MAX_BOUND)
    if inverses.size:
        steep = inverses[label]  # a slice: an index that might be negative is not vectorised
        for k in range(firsts.size):
            margin = (row[k] - own) * steep[k]
            row[k] = INFINITE if firsts[k] == label else margin
    else:
        reach = reaches[label] + TINIEST
        for k in range(firsts.size):
            margin = np.float32(0.5) * (row[k] - own) / (reaches[k] + reach)
            row[k] = INFINITE if firsts[k] == label else margin
    return np.float64(least(row)) * (1.0 - 2.0**-20)


@compiled()
def decide(
    x,
    c,
    n_dims,
    label,
    shift,
    row,  #      INOUT  (n_padded,)  float32: L, +inf beyond n_clusters
    found,  #    scratch (n_padded,) int32
    lowers,  #   scratch (n_padded,) float32
    closer,  #   IN      `sharpened`
    with_second,
    with_margin,
):
    """Label the record at address x; there are two centroids at least, at address c.

    ``label`` is the most promising. Returns label, distance, gap, second label, second distance
    and how many were compared. The row, if it is needed for a margin, has better bounds then.
    """
    stride = 4 * n_dims
    relative = relative_error(n_dims)
    proposed, other = label, -1
    proposed_distance = other_distance = best = canonical(x, c + label * stride, n_dims)
    second, second_label = np.inf, -1
    row[proposed] = np.inf
    rest = least(row)  # the least L of the centroids that are not compared
    n_compared, n_found = 1, 0
    if with_second:  # any other one bounds the runner-up; the next by L does it well
        other = place_of(row, rest)
        other_distance = second = canonical(x, c + other * stride, n_dims)
        second_label = other
        row[other] = np.inf
        rest = least(row)
        n_compared = 2
        if second < best or (second == best and second_label < label):
            best, second = second, best
            label, second_label = second_label, label
    limit = limit_of(second if with_second else best, shift, relative)
    if rest <= limit:
        top = min(round_up(limit), MAX_BOUND)
        n_found = sharpened(closer, row, found, collect(row, top, found), top)
        for j in range(n_found):
            if n_found <= FEW:
                _bring_best(row, found, j, n_found)
            k = found[j]
            lowers[j] = row[k]
            if row[k] > limit:
                continue
            distance = canonical(x, c + k * stride, n_dims)
            n_compared += 1
            lowers[j] = round_lower(distance, shift, relative)
            row[k] = np.inf
            if distance < best or (distance == best and k < label):
                second, second_label = best, label
                best, label = distance, k
            elif distance < second or (distance == second and k < second_label):
                second, second_label = distance, k
            limit = limit_of(second if with_second else best, shift, relative)
        rest = least(row)
    uncompared = (rest + shift) * (1.0 - relative) - shift * 2.0**-50
    gap = round_down(min(second * (1.0 - relative), uncompared) - best * (1.0 + relative))
    if with_margin:
        for j in range(n_found):
            row[found[j]] = lowers[j]
        row[proposed] = round_lower(proposed_distance, shift, relative)
        if other >= 0:
            row[other] = round_lower(other_distance, shift, relative)
    return label, best, gap, second_label, second, n_compared


@compiled()
def write(
    i,
    decided,
    shift,
    n_dims,
    row,  #      INOUT  (n_padded,)  float32: L
    reaches,  #  IN     (n_padded,)  float32
    borders,  #  IN     Borders
    results,  #  OUT    Results
):
    """What was decided about record i; and its margin, if that is asked for."""
    label, distance, gap, second_label, second, n_compared = decided
    results.labels[i] = label
    results.distances[i] = distance
    results.gaps[i] = gap
    if results.second_labels.size:
        results.second_labels[i] = second_label
        results.second_distances[i] = second
    if results.margins.size:
        row[label] = np.inf
        relative = relative_error(n_dims)
        margin = _margin(row, label, shift, relative, distance, reaches, borders)
        results.margins[i] = round_down(margin)
    return n_compared


@compiled()
def write_alone(i, x, c, n_dims, results):
    """The only centroid is the nearest; seeds are drawn by such calls, thousands in a row."""
    results.labels[i] = 0
    results.distances[i] = canonical(x, c, n_dims)
    results.gaps[i] = np.inf
    if results.second_labels.size:
        results.second_labels[i] = -1
        results.second_distances[i] = np.inf
    if results.margins.size:
        results.margins[i] = np.inf
