"""Ids go where most members went, as a whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clustering.alignment import align


def labels(*values):
    return np.array(values, np.int32)


def test_the_same_clusters_under_other_labels_are_recognised():
    old = labels(0, 0, 1, 1, 2)

    found = align(old, labels(2, 2, 0, 0, 1), 3, 3)

    assert found.heirs.tolist() == [1, 2, 0]
    assert found.similarity.tolist() == [1.0, 1.0, 1.0]
    assert found.moved == 0.0
    assert found.parents == {}
    assert found.successors == {}


def test_the_whole_counts_more_than_the_largest_pair():
    # greedy: 0 -> 0 by 3, and 1 gets nothing; together 0 -> 1 and 1 -> 0 keep 4
    old = labels(0, 0, 0, 0, 0, 1, 1)
    new = labels(0, 0, 0, 1, 1, 0, 0)

    found = align(old, new, 2, 2)

    assert found.heirs.tolist() == [1, 0]
    assert found.moved == pytest.approx(3 / 7)
    assert found.similarity.tolist() == [2 / 5, 2 / 5]


def test_a_split_names_the_parent():
    old = labels(0, 0, 0, 0, 0)

    found = align(old, labels(0, 0, 0, 1, 1), 1, 2)

    assert found.heirs.tolist() == [0, -1]
    assert found.parents == {1: (0,)}
    assert found.similarity[0] == 3 / 5
    assert np.isnan(found.similarity[1])
    assert found.moved == 2 / 5


def test_a_merge_names_the_successor():
    found = align(labels(0, 0, 0, 1, 1), labels(0, 0, 0, 0, 0), 2, 1)

    assert found.heirs.tolist() == [0]
    assert found.successors == {1: (0,)}


def test_relations_are_told_with_most_members_first_then_by_label():
    old = labels(0, 1, 1, 2, 2, 2, 2, 2, 2, 2)
    new = labels(0, 0, 0, 1, 1, 2, 2, 3, 3, 3)

    found = align(old, new, 3, 4)

    assert found.heirs.tolist() == [1, -1, -1, 2]
    assert found.parents == {1: (2,), 2: (2,)}
    assert found.successors == {0: (0,)}


def test_clusters_that_share_nothing_are_not_matched():
    found = align(labels(0, 0), labels(1, 1), 2, 2)

    assert found.heirs.tolist() == [-1, 0]
    assert found.parents == {0: ()}
    assert found.successors == {1: ()}


@pytest.mark.parametrize("n_old", [0, 2])
def test_nothing_before_means_that_all_are_born(n_old):
    found = align(labels(-1, -1, -1), labels(0, 1, 1), n_old, 2)

    assert found.heirs.tolist() == [-1, -1]
    assert found.overlap.shape == (n_old, 2)
    assert found.parents == {0: (), 1: ()}
    assert found.moved == 0.0


@st.composite
def partitions(draw):
    n_old, n_new, n = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(0, 20))
    old = draw(st.lists(st.integers(-1, n_old - 1), min_size=n, max_size=n))
    new = draw(st.lists(st.integers(0, n_new - 1), min_size=n, max_size=n))
    return labels(*old), labels(*new), n_old, n_new


@given(partitions())
def test_no_matching_keeps_more_items(given_labels):
    old, new, n_old, n_new = given_labels

    found = align(old, new, n_old, n_new)

    both = [(o, n) for o, n in zip(old.tolist(), new.tolist(), strict=True) if o >= 0]
    taken = [h for h in found.heirs.tolist() if h >= 0]
    assert len(taken) == len(set(taken))
    kept = sum(found.heirs[n] == o for o, n in both)
    ids = [*range(n_old), *[-1] * n_new]
    best = max(
        sum(heirs[n] == o for o, n in both) for heirs in set(itertools.permutations(ids, n_new))
    )
    assert kept == best
    assert found.moved == pytest.approx(1 - kept / len(both) if both else 0.0)


@given(partitions(), st.randoms(use_true_random=False))
def test_another_order_of_the_new_labels_changes_their_names_only(given_labels, random):
    old, new, n_old, n_new = given_labels
    found = align(old, new, n_old, n_new)
    order = list(range(n_new))
    random.shuffle(order)

    turned = found.reordered(np.array(order, np.intp))

    place = np.argsort(order)
    assert turned.heirs[place].tolist() == found.heirs.tolist()
    assert turned.overlap[:, place].tolist() == found.overlap.tolist()
    assert {order[k]: v for k, v in turned.parents.items()} == found.parents
    assert {k: tuple(order[i] for i in v) for k, v in turned.successors.items()} == dict(
        found.successors
    )
    assert turned.moved == found.moved
