"""Statistics of weighted rows, on every twin; the naive version says what they are, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.contract import MAX_WEIGHT, Sums
from pipeline.kernels.cpu.twin import CpuKernels
from tests import naive
from tests.kernels.cases import normal
from tests.kernels.test_contract import IN_PROCESS, MAX_COMPONENT, empty, inserted, totals


def weighted_totals(sums):
    return (*totals(sums), sums.weights.tolist())


def empty_weighted(n_clusters, n_dims):
    return Sums.zeros(n_clusters, n_dims, max_component=MAX_COMPONENT, is_weighted=True)


def weighed(twin, points, labels, weights, n_clusters):
    sums = empty_weighted(n_clusters, points.shape[1])
    none = np.full(len(points), -1, np.int32)
    twin.accumulate(sums, points, none, points, labels, old_weights=weights, new_weights=weights)
    return sums


def some_weights(n, seed=0):
    """From the heaviest down to those that round to nothing; no power of two among most."""
    weights = np.exp2(np.random.default_rng(seed).uniform(-40.0, 8.0, n))
    weights[:4] = [MAX_WEIGHT, 1.0, 0.0, 2.0**-32][:n]
    return weights


def weights_are_kept(twin, n, d, seed=0):
    """Whether the weighted sums of n rows are those that the naive version finds."""
    points = np.clip(normal(n, d, seed), -MAX_COMPONENT, MAX_COMPONENT)
    points[:1, :1] = -MAX_COMPONENT
    labels = (np.arange(n) % 4 - 1).astype(np.int32)
    labels[:1] = 1
    weights = some_weights(n, seed)

    found = weighted_totals(weighed(twin, points, labels, weights, 3))

    return found == naive.weighted_statistics(
        points, labels, weights, 3, max_component=MAX_COMPONENT
    )


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 1), (33, 33), (20, 64)])
def test_weighted_statistics_are_those_of_integers(twin, n, d):
    assert weights_are_kept(twin, n, d)


@IN_PROCESS
@given(
    weights=st.lists(st.floats(0.0, MAX_WEIGHT, allow_subnormal=False), min_size=1, max_size=9),
    d=st.integers(1, 40),
    scale=st.sampled_from([2.0**-30, 1e-3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_weighted_statistics_are_those_of_integers_for_anything(twin, weights, d, scale, seed):
    weights = np.where(np.array(weights) < 2.0**-500, 0.0, weights)  # the contract's least
    points = np.clip(normal(len(weights), d, seed) * np.float32(scale), -8, 8)
    labels = np.random.default_rng(seed).integers(-1, 3, len(weights)).astype(np.int32)

    found = weighted_totals(weighed(twin, points, labels, weights, 3))

    assert found == naive.weighted_statistics(
        points, labels, weights, 3, max_component=MAX_COMPONENT
    )


def test_rows_of_the_greatest_weight_give_the_sums_without_weights(twin):
    points, labels = normal(30, 17), (np.arange(30) % 4).astype(np.int32)

    sums = weighed(twin, points, labels, np.full(30, MAX_WEIGHT), 4)

    assert totals(sums) == totals(inserted(twin, points, labels, 4))
    assert sums.weights.tolist() == [n * 2**39 for n in sums.counts.tolist()]


def test_nothing_overflows_at_the_greatest_weight_and_component(twin):
    points, labels = np.full((1, 64), -MAX_COMPONENT, np.float32), np.zeros(1, np.int32)

    sums = weighed(twin, points, labels, np.full(1, MAX_WEIGHT), 1)

    most = 2**23 - 1  # rows that an accumulator takes
    assert sums.sums.tolist() == [[-(2**40)] * 64]
    assert 2**40 * most < 2**63
    assert naive.square_totals(sums.squares) == [64 * 2**48]
    assert 2**14 * 2**48 == 2**62  # 16,384 dimensions; its high word is 2**30
    assert max(2**30, 2**32 - 1) * most < 2**63
    assert sums.weights.tolist() == [2**39]
    assert 2**39 * most < 2**63


def test_another_weight_is_a_move(twin):
    before, after = normal(30, 17, 1), normal(30, 17, 2)
    after[:10] = before[:10]  # the same vector, another weight
    old_labels = np.random.default_rng(3).integers(-1, 4, 30).astype(np.int32)
    new_labels = np.random.default_rng(4).integers(-1, 4, 30).astype(np.int32)
    new_labels[:5] = old_labels[:5]
    old_weights, new_weights = some_weights(30, 5), some_weights(30, 6)
    sums = weighed(twin, before, old_labels, old_weights, 4)

    twin.accumulate(
        sums, before, old_labels, after, new_labels,
        old_weights=old_weights, new_weights=new_weights,
    )  # fmt: skip

    expected = weighed(twin, after, new_labels, new_weights, 4)
    assert weighted_totals(sums) == weighted_totals(expected)


def test_deleting_everything_weighted_leaves_zeros(twin):
    points, weights = normal(30, 17), some_weights(30)
    labels = (np.arange(30) % 4).astype(np.int32)
    sums = weighed(twin, points, labels, weights, 4)
    order = np.random.default_rng(0).permutation(30)

    for part in np.array_split(order, 7):
        gone = np.full(len(part), -1, np.int32)
        rows, theirs = np.ascontiguousarray(points[part]), weights[part]
        twin.accumulate(
            sums, rows, labels[part], rows, gone, old_weights=theirs, new_weights=theirs
        )

    for array in (sums.counts, sums.sums, sums.squares, sums.weights):
        assert not array.any()


@pytest.mark.parametrize("seed", [1, 2])
def test_weighted_rows_may_come_in_any_order(twin, seed):
    points, weights = normal(30, 17), some_weights(30)
    labels = (np.arange(30) % 4 - 1).astype(np.int32)
    whole = weighed(twin, points, labels, weights, 3)
    order = np.random.default_rng(seed).permutation(30)
    sums, none = empty_weighted(3, 17), np.full(30, -1, np.int32)

    for part in np.array_split(order, 3):
        rows, theirs = np.ascontiguousarray(points[part]), weights[part]
        twin.accumulate(
            sums, rows, none[part], rows, labels[part], old_weights=theirs, new_weights=theirs
        )

    assert weighted_totals(sums) == weighted_totals(whole)


def test_the_weight_of_a_missing_side_is_not_used(twin):
    points, unread = normal(6, 5), np.full((6, 5), np.nan, np.float32)
    labels, none = np.zeros(6, np.int32), np.full(6, -1, np.int32)
    weights, unknown = some_weights(6), np.full(6, np.nan)
    sums = empty_weighted(1, 5)

    for old, was, new, now in ((unread, none, points, labels), (points, labels, unread, none)):
        twin.accumulate(
            sums, old, was, new, now,
            old_weights=unknown if old is unread else weights,
            new_weights=unknown if new is unread else weights,
        )  # fmt: skip

    assert weighted_totals(sums) == weighted_totals(empty_weighted(1, 5))


@pytest.mark.parametrize(
    ("is_weighted", "old", "new"),
    [(False, 1, 1), (False, None, 1), (True, None, None), (True, None, 1), (True, 1, None)],
)
def test_weights_without_weighted_sums_are_a_bug_and_the_reverse(twin, is_weighted, old, new):
    points, labels = normal(2, 3), np.zeros(2, np.int32)
    sums = empty_weighted(1, 3) if is_weighted else empty(1, 3)

    with pytest.raises(AssertionError, match="weights belong to weighted sums"):
        twin.accumulate(
            sums, points, labels, points, labels,
            old_weights=None if old is None else np.ones(2),
            new_weights=None if new is None else np.ones(2),
        )  # fmt: skip


# A control: a suite that accepts it accepts anything


class WeighsInFloat32(CpuKernels):
    """Multiplies a vector with its weight before the kernel sees it: rounded to float32."""

    def accumulate(self, sums, old, old_labels, new, new_labels, *, old_weights, new_weights):
        factor = new_weights[:, None].astype(np.float32)
        ones, weights = np.ones(len(new)), sums.weights.copy()
        super().accumulate(
            sums, old, old_labels, new * factor, new_labels, old_weights=ones, new_weights=ones
        )
        sums.weights[:] = weights
        sums.weigh(old_labels, old_weights, new_labels, new_weights)


def test_the_control_of_weights_is_caught():
    assert weights_are_kept(CpuKernels(), 33, 33)
    assert not weights_are_kept(WeighsInFloat32(), 33, 33)
