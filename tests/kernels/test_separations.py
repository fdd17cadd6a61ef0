"""Every twin measures the same separations: held against float64, one difference at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.contract import Separation
from pipeline.kernels.cpu.separations import blocks_of
from pipeline.kernels.cpu.twin import CpuKernels
from tests.kernels.cases import SIMULATED, normal

MANY = 1 if SIMULATED else 20  # the simulator is slow, so cases are smaller there
RELATIVE = 2.0**-20


def points_of(sizes, d=19, scale=1.0, offset=0.0):
    """Points sorted by cluster, and where each begins."""
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    points = normal(int(starts[-1]), d) + np.repeat(normal(len(sizes), d, 1), sizes, axis=0)
    return (points * scale + offset).astype(np.float32), starts


def expected(points, starts, rows):
    """In float64, scaled so that no square leaves its range."""
    largest = float(np.abs(points).max(initial=0.0)) or 1.0
    exact = points.astype(np.float64) / largest
    own, others = [], []
    for row in rows:
        gaps = np.sqrt(np.square(exact - exact[row]).sum(axis=1)) * largest
        sums = np.add.reduceat(gaps, starts[:-1])
        home = np.searchsorted(starts, row, side="right") - 1
        own.append(sums[home])
        others.append(min(np.delete(sums / np.diff(starts), home), default=np.inf))
    return np.array(own), np.array(others)


def wrong(found, points, starts, rows):
    """What breaks the contract; each distance may be off by a little, so their sums may."""
    broken = set()
    for name, there, right in zip(
        Separation._fields, found, expected(points, starts, rows), strict=True
    ):
        if there.shape != (len(rows),) or there.dtype != np.float64:
            broken.add("types")
        elif not all(
            a == b or abs(a - b) <= RELATIVE * b
            for a, b in zip(there.tolist(), right.tolist(), strict=True)
        ):
            broken.add(name)
    return broken


def duplicates_far_out():
    points, starts = points_of([9, 4, 8], offset=1e4)
    points[3], points[11], points[15:18] = points[0], points[0], points[14]
    return points, starts


def nearly_the_same_far_out():
    points, starts = points_of([6, 7], scale=0.0, offset=1e4)
    points[np.arange(13), np.arange(13)] = np.nextafter(np.float32(1e4), np.float32(np.inf))
    return points, starts


def scales_apart():
    """A cluster of differences whose squares float32 does not have, beside ones that fill it."""
    points, starts = points_of([3, 6, 4])
    points[:, 0] *= np.float32(1e30)
    points[3:9] = np.float32(1e-25) * normal(6, 19, 2)
    points[8] = points[7]
    return points, starts


CASES = {
    "plain": lambda: points_of([3 * MANY, 5 * MANY, 2 * MANY]),
    "one dimension": lambda: points_of([MANY, 3 * MANY], d=1),
    "one run of dimensions": lambda: points_of([7, 9, 4], d=20),
    "one more dimension": lambda: points_of([7, 9, 4], d=21),
    "some parts of dimensions": lambda: points_of([7, 9], d=13 if SIMULATED else 500),
    "larger than a block": lambda: points_of([5, 34 * MANY, 3, 17 * MANY, 16 * MANY], d=3),
    "two large ones": lambda: points_of([20 * MANY, 20 * MANY], d=3),
    "all alone": lambda: points_of([1] * 11 * MANY, d=3),
    "one cluster": lambda: points_of([5]),
    "one point": lambda: points_of([1]),
    "the same": lambda: (np.ones((9, 4), np.float32), np.array([0, 4, 9])),
    "zeros": lambda: (np.zeros((5, 4), np.float32), np.array([0, 2, 5])),
    "duplicates at 1e4": duplicates_far_out,
    "a last bit apart at 1e4": nearly_the_same_far_out,
    "scaled by 1e-42": lambda: points_of([8, 4], scale=1e-42),
    "scaled by 1e-20": lambda: points_of([8, 4], scale=1e-20),
    "scaled by 1e20": lambda: points_of([8, 4], scale=1e20),
    "scaled by 1e37": lambda: points_of([8, 4], scale=1e37),
    "scales apart": scales_apart,
}


@pytest.mark.parametrize("case", CASES)
def test_separations_are_those_of_float64(twin, case):
    points, starts = CASES[case]()
    n = len(points)
    rng = np.random.default_rng(0)
    for rows in (np.arange(n), rng.permutation(n), rng.permutation(n)[: n // 3], np.array([n - 1])):
        found = twin.separations(points, starts, rows)

        assert wrong(found, points, starts, rows) == set()


@settings(max_examples=5 if SIMULATED else 40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    d=st.integers(1, 40),
    exponent=st.integers(-40, 35),
    offset=st.sampled_from([0.0, 10.0, 1e4]),
    steps=st.sampled_from([0, 2, 1000]),  # so many values a component can take: duplicates
    data=st.data(),
)
def test_separations_of_anything_are_those_of_float64(
    twin, sizes, d, exponent, offset, steps, data
):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = sum(sizes)
    values = rng.integers(0, steps, (n, d)) if steps else rng.standard_normal((n, d))
    points = ((values + offset) * 10.0**exponent / max(offset, 1.0)).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = rng.integers(0, n, data.draw(st.integers(0, n)))

    found = twin.separations(points, starts, rows)

    assert wrong(found, points, starts, rows) == set()


def test_a_point_is_no_distance_from_its_duplicates(twin):
    points = np.repeat(normal(3, 33) + np.float32(1e4), [4, 2, 4], axis=0)

    found = twin.separations(points, np.array([0, 4, 6, 10]), np.arange(10))

    assert not found.own.any()
    assert found.others.all()


def test_no_rows_are_no_work(twin):
    found = twin.separations(*points_of([2, 2]), np.empty(0, np.int64))

    assert found.own.shape == found.others.shape == (0,)


def test_a_single_cluster_has_no_other(twin):
    found = twin.separations(*points_of([4]), np.arange(4))

    assert np.isposinf(found.others).all()


def test_arguments_may_be_read_only(twin):
    points, starts = points_of([6, 7, 3])
    rows = np.arange(16)
    for array in (points, starts, rows):
        array.flags.writeable = False

    found = twin.separations(points, starts, rows)

    assert wrong(found, points, starts, rows) == set()


def test_norms_and_products_would_not_do():
    points, starts = duplicates_far_out()
    norms = np.square(points).sum(axis=1)
    squares = np.maximum(norms[:, None] + norms - 2.0 * points @ points.T, 0.0)
    sums = np.add.reduceat(np.sqrt(squares), starts[:-1], axis=1)
    homes = np.repeat(np.arange(3), np.diff(starts))
    here = np.arange(len(points)), homes
    own = sums[here].astype(np.float64)
    means = (sums / np.diff(starts)).astype(np.float64)
    means[here] = np.inf

    found = Separation(own, means.min(axis=1))

    assert wrong(found, points, starts, np.arange(21)) == {"own", "others"}


# Of the CPU twin


def test_threads_change_no_bit():
    points, starts = points_of([700, 40, 1, 90, 400, 300], d=24)
    rows = np.arange(len(points))

    alone, three = (CpuKernels(threads).separations(points, starts, rows) for threads in (1, 3))

    assert alone.own.tobytes() == three.own.tobytes()
    assert alone.others.tobytes() == three.others.tobytes()


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=20))
def test_blocks_have_whole_clusters_or_a_part_of_one(sizes):
    starts = np.concatenate([[0], np.cumsum(sizes)])

    blocks = blocks_of(starts)

    assert blocks[0, 0] == 0
    assert blocks[-1, 1] == starts[-1]
    assert (blocks[1:, 0] == blocks[:-1, 1]).all()
    for first, last, cluster, end in blocks.tolist():
        assert 0 < last - first <= 320
        if end - cluster > 1 or sizes[cluster] <= 320:
            assert (first, last) == (starts[cluster], starts[end])
        else:
            assert starts[cluster] <= first < last <= starts[end]
