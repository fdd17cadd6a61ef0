"""Ids go where most members went, as a whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clustering.alignment import MIN_OVERLAP, MIN_PART, align, aligned


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


def naive(old, new, n_old, n_new):
    """Members as sets of places, thresholds as the sentences say them."""
    olds = [set(np.flatnonzero(old == o).tolist()) for o in range(n_old)]
    news = [set(np.flatnonzero(new == n).tolist()) for n in range(n_new)]
    shared = {(o, n): len(olds[o] & news[n]) for o in range(n_old) for n in range(n_new)}
    may_inherit = {
        (o, n)
        for (o, n), s in shared.items()
        if s and max(s / len(olds[o]), s / len(news[n])) >= MIN_OVERLAP
    }
    splits = {
        o: {n for n in range(n_new) if shared[o, n] and shared[o, n] / len(news[n]) >= MIN_PART}
        for o in range(n_old)
    }
    merges = {
        n: {o for o in range(n_old) if shared[o, n] and shared[o, n] / len(olds[o]) >= MIN_PART}
        for n in range(n_new)
    }
    return olds, news, shared, may_inherit, splits, merges


@given(partitions())
def test_no_matching_keeps_more_items(given_labels):
    old, new, n_old, n_new = given_labels
    _, _, shared, may_inherit, _, _ = naive(*given_labels)

    found = align(old, new, n_old, n_new)

    pairs = [(h, n) for n, h in enumerate(found.heirs.tolist()) if h >= 0]
    assert set(pairs) <= may_inherit
    assert len({h for h, _ in pairs}) == len(pairs)
    ids = [*range(n_old), *[-1] * n_new]
    best = max(
        sum(shared[h, n] for n, h in enumerate(heirs) if (h, n) in may_inherit)
        for heirs in set(itertools.permutations(ids, n_new))
    )
    assert sum(shared[pair] for pair in pairs) == best
    n_both = sum(shared.values())
    assert found.moved == pytest.approx(1 - best / n_both if n_both else 0.0)


@given(partitions())
def test_relations_are_those_of_the_members_as_sets(given_labels):
    old, new, n_old, n_new = given_labels
    olds, news, shared, _, splits, merges = naive(*given_labels)

    found = align(old, new, n_old, n_new)

    heirs = found.heirs.tolist()
    assert {o: set(parts) for o, parts in found.splits.items()} == {
        o: parts for o, parts in splits.items() if len(parts) > 1
    }
    assert {n: set(parts) for n, parts in found.merges.items()} == {
        n: parts for n, parts in merges.items() if len(parts) > 1
    }
    for o, parts in found.splits.items():
        assert list(parts) == sorted(parts, key=lambda n: (heirs[n] != o, -shared[o, n], n))
    for n, parts in found.merges.items():
        assert list(parts) == sorted(parts, key=lambda o: (heirs[n] != o, -shared[o, n], o))
    for n, heir in enumerate(heirs):
        if heir >= 0:
            jaccard = shared[heir, n] / len(olds[heir] | news[n])
            assert found.similarity[n] == pytest.approx(jaccard)
        else:
            assert np.isnan(found.similarity[n])
    assert found.parents.keys() == {n for n, heir in enumerate(heirs) if heir < 0}
    assert found.successors.keys() == set(range(n_old)) - set(heirs)


@given(partitions())
def test_the_same_clusters_once_more_are_the_same_and_nothing_else(given_labels):
    labels_given, _, n_old, _ = given_labels
    present = np.bincount(labels_given[labels_given >= 0], minlength=n_old) > 0

    found = align(labels_given, labels_given, n_old, n_old)

    assert found.heirs[present].tolist() == np.flatnonzero(present).tolist()
    assert found.similarity[present].tolist() == [1.0] * int(present.sum())
    assert found.moved == 0.0
    assert found.splits == {}
    assert found.merges == {}
    assert all(not parents for parents in found.parents.values())
    assert all(not children for children in found.successors.values())


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
    assert {k: tuple(order[i] for i in v) for k, v in turned.splits.items()} == dict(found.splits)
    assert {order[k]: v for k, v in turned.merges.items()} == found.merges


@pytest.mark.parametrize(("n_shared", "is_heir"), [(25, True), (24, False)])
def test_an_heir_shares_a_quarter_of_one_of_the_two(n_shared, is_heir):
    # cluster 0 loses all but n_shared of 100 to cluster 1's heir; its rest meets 75 newcomers
    old = labels(*[0] * 100, *[1] * 300, *[-1] * (100 - n_shared))
    new = labels(*[0] * n_shared, *[1] * (400 - n_shared), *[0] * (100 - n_shared))

    found = align(old, new, 2, 2)

    assert found.heirs.tolist() == [0 if is_heir else -1, 1]
    assert found.moved == pytest.approx(1 - (300 + n_shared * is_heir) / 400)
    assert found.parents == ({} if is_heir else {0: (0,)})
    assert found.successors == ({} if is_heir else {0: (1, 0)})


def test_what_may_not_inherit_takes_no_id_from_what_may():
    # as a whole 0 -> 1 and 1 -> 0 share most, but 0 -> 1 is too little of both
    old = labels(*[0] * 100, *[1] * 8, *[2] * 100)
    new = labels(*[0] * 8, *[1] * 22, *[2] * 70, *[0] * 8, *[1] * 100)

    found = align(old, new, 3, 3)

    assert found.heirs.tolist() == [1, 2, 0]


def test_a_split_lists_the_heir_first_and_a_merger_what_it_takes_over():
    # three parts of equal size: the tie decides who inherits, and the heir leads
    apart = align(labels(0, 0, 0), labels(2, 1, 0), 1, 3)
    heir = apart.heirs.tolist().index(0)
    assert apart.splits == {0: (heir, *sorted({0, 1, 2} - {heir}))}
    assert apart.merges == {}

    together = align(labels(2, 1, 0), labels(0, 0, 0), 3, 1)
    taken = int(together.heirs[0])
    assert together.merges == {0: (taken, *sorted({0, 1, 2} - {taken}))}
    assert together.splits == {}


def test_control_members_that_move_between_clusters_are_no_split_and_no_merger():
    old = labels(*[0] * 10, *[1] * 10)
    new = labels(*[0] * 6, *[1] * 14)

    found = align(old, new, 2, 2)

    assert found.heirs.tolist() == [0, 1]
    assert found.splits == {}
    assert found.merges == {}
    assert found.moved == pytest.approx(0.2)


def test_heirs_that_are_given_stand_whatever_the_members_say():
    old, new = labels(0, 0, 1, 1, 1), labels(0, 0, 0, 0, 1)

    found = aligned(old, new, 2, np.array([1, -1, 0], np.int32))

    assert found.heirs.tolist() == [1, -1, 0]
    assert found.similarity[0] == 2 / 5
    assert np.isnan(found.similarity[1])
    assert found.similarity[2] == 0.0
    assert found.parents == {1: (1,)}
    assert found.successors == {}
    assert found.moved == pytest.approx(1 - 2 / 5)
