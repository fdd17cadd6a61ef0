"""Ids last, and every change of the set of clusters is told once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clustering.alignment import align, aligned
from pipeline.clustering.profile import profiles
from pipeline.clustering.recluster import Candidate
from pipeline.engine.epoch import (
    Occasion,
    epoch_events,
    forgotten_labels,
    inherited_labels,
    label_event,
    next_model,
    rejection,
    revised,
)
from pipeline.messages.codec import encode_lifecycle
from pipeline.messages.events import LifecycleType
from pipeline.messages.model import digest
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy
from tests.schemas import validate

EMBEDDING = EmbeddingPolicy(dimensions=2)
BORN, SPLIT, MERGED = LifecycleType.BORN, LifecycleType.SPLIT, LifecycleType.MERGED
RETIRED, RESTORED = LifecycleType.RETIRED, LifecycleType.RESTORED


def occasion(reason="age", command_id=None, n_items=0, **forgetting):
    return Occasion(
        reason, command_id, created_at_ms=1000, offsets={1: 5, 0: 7}, n_items=n_items,
        input_policy="compact", **forgetting,
    )  # fmt: skip


def labels(*values):
    return np.array(values, np.int32)


def candidate(old, new, n_old, n_new, heirs=None):
    """What a fit found, from the labels of the same items before and after."""
    if heirs is None:
        alignment = align(old, new, n_old, n_new)
    else:
        alignment = aligned(old, new, n_old, np.array(heirs, np.int32))
    rng = np.random.default_rng(n_new)
    return Candidate(
        centroids=rng.standard_normal((n_new, 2)).astype(np.float32),
        profiles=profiles(new, np.full(len(new), 0.25), n_new),
        alignment=alignment,
        inertia_before=2.0 if n_old else None,
        inertia_after=1.5,
        gain=0.25,
        n_iterations=1,
        is_comparable=n_old == n_new,
    )


def first(new, n_new):
    return next_model(
        candidate(np.full(len(new), -1, np.int32), new, 0, n_new), None, occasion(), EMBEDDING
    )


def told(events):
    """Id -> the event, without the model as a whole; each id once."""
    found = {(str(e.type), e.cluster): e for e in events if e.cluster}
    assert len({event.id for event in events}) == len(events) == len(found) + 1
    assert [event.type for event in events].count(LifecycleType.INSTALLED) == 1
    for event in events:
        value, headers = encode_lifecycle(event, EventPolicy())
        validate("cluster-lifecycle", event.key, value, headers)
    return found


def test_the_first_model_numbers_its_clusters_and_tells_that_they_are_born():
    new = labels(0, 0, 1)
    found = candidate(np.full(3, -1, np.int32), new, 0, 2)

    model = next_model(found, None, occasion("command", "x", 3), EMBEDDING)
    events = epoch_events(model, None, found, occasion("command", "x", 3))

    assert model.manifest.clusters == ("c1", "c2")
    assert model.manifest.next_cluster_number == 3
    assert model.manifest.fitted_offsets == (7, 5)
    assert model.counts.tolist() == [2, 1]
    assert model.quantiles.tolist() == [[0.5] * 9] * 2
    assert model.mean_distances.tolist() == [0.5, 0.5]
    assert model.fitted.tobytes() == model.centroids.tobytes()
    assert [event.id for event in events] == ["1/model/installed", "1/c1/born", "1/c2/born"]
    assert events[0].moved is None
    assert {event.command for event in events} == {"x"}
    assert [event.size for event in events] == [3, 2, 1]


def test_a_fit_that_changes_nothing_tells_that_it_is_installed_and_no_more():
    new = labels(0, 0, 1, 2)
    incumbent = first(new, 3)
    found = candidate(new, new, 3, 3)

    model = next_model(found, incumbent, occasion(), EMBEDDING)
    (installed,) = epoch_events(model, incumbent, found, occasion(n_items=4))

    assert model.manifest.clusters == incumbent.manifest.clusters
    assert model.manifest.next_cluster_number == incumbent.manifest.next_cluster_number
    assert (installed.id, installed.reason, installed.moved) == ("2/model/installed", "age", 0.0)


def test_a_split_keeps_the_id_in_the_heir_and_numbers_the_new_part():
    old, new = labels(0, 0, 0, 0, 0, 1), labels(0, 0, 0, 2, 2, 1)
    incumbent, found = first(old, 2), candidate(old, new, 2, 3)

    model = next_model(found, incumbent, occasion(), EMBEDDING)
    events = told(epoch_events(model, incumbent, found, occasion()))

    assert model.manifest.clusters == ("c1", "c2", "c3")
    assert events.keys() == {("born", "c3"), ("split", "c1")}
    assert events[BORN, "c3"].parents == ("c1",)
    assert events[BORN, "c3"].similarity is None
    split = events[SPLIT, "c1"]
    assert (split.children, split.size, split.similarity) == (("c1", "c3"), 3, 3 / 5)


def test_a_merger_keeps_the_id_of_the_larger_and_the_other_retires():
    old, new = labels(0, 0, 1, 1, 1, 2), labels(0, 0, 0, 0, 0, 1)
    incumbent, found = first(old, 3), candidate(old, new, 3, 2)

    model = next_model(found, incumbent, occasion(), EMBEDDING)
    events = told(epoch_events(model, incumbent, found, occasion()))

    assert model.manifest.clusters == ("c2", "c3")
    assert model.manifest.next_cluster_number == 4, "c1 is never used again"
    assert events.keys() == {("merged", "c2"), ("retired", "c1")}
    merged, retired = events[MERGED, "c2"], events[RETIRED, "c1"]
    assert (merged.parents, merged.size, merged.similarity) == (("c2", "c1"), 5, 3 / 5)
    assert (retired.children, retired.size) == (("c2",), 2)


def test_who_retires_names_who_took_its_members_the_largest_share_first():
    old = labels(*[0] * 5, *[1] * 10, *[2] * 10)
    new = labels(1, 1, 1, 0, 0, *[0] * 10, *[1] * 10)
    incumbent, found = first(old, 3), candidate(old, new, 3, 2)

    model = next_model(found, incumbent, occasion(), EMBEDDING)
    events = told(epoch_events(model, incumbent, found, occasion()))

    assert events[RETIRED, "c1"].children == ("c3", "c2")
    assert events[MERGED, "c3"].parents == ("c3", "c1")


def test_control_members_that_move_between_clusters_that_stay_are_neither():
    old, new = labels(*[0] * 10, 1), labels(*[0] * 8, *[1] * 3)
    incumbent, found = first(old, 2), candidate(old, new, 2, 2)
    assert found.alignment.splits == {0: (0, 1)}, "two thirds of the second came from the first"

    model = next_model(found, incumbent, occasion(), EMBEDDING)

    assert told(epoch_events(model, incumbent, found, occasion())) == {}


def test_a_rollback_restores_what_comes_back_and_retires_what_goes():
    before, after = labels(0, 0, 1, 1, 1), labels(0, 0, 1, 1, 2)
    fifth = first(before, 2)
    sixth = next_model(candidate(before, after, 2, 3), fifth, occasion(), EMBEDDING)
    assert sixth.manifest.clusters == ("c1", "c2", "c3")
    merged = candidate(after, labels(1, 1, 0, 0, 0), 3, 2)  # c1 stays, c2 and c3 are one
    seventh = next_model(merged, sixth, occasion(), EMBEDDING)
    assert seventh.manifest.clusters == ("c2", "c1")
    ids = sixth.manifest.clusters
    back = candidate(labels(1, 1, 0, 0, 0), after, 2, 3, heirs=[1, 0, -1])

    model = next_model(back, seventh, occasion(), EMBEDDING, cluster_ids=ids)
    events = epoch_events(
        model, seventh, back, occasion("rollback to epoch 2", "r"), born_before=ids
    )

    assert model.manifest.epoch == seventh.manifest.epoch + 1
    assert model.manifest.clusters == ids
    assert model.manifest.next_cluster_number == 4
    assert events[0].reason == "rollback to epoch 2"
    assert told(events).keys() == {("restored", "c3")}
    assert told(events)[RESTORED, "c3"].size == 1

    forth = candidate(after, labels(1, 1, 0, 0, 0), 3, 2, heirs=[1, 0])
    ids = seventh.manifest.clusters
    again = next_model(forth, model, occasion(), EMBEDDING, cluster_ids=ids)
    events = told(epoch_events(again, model, forth, occasion(), born_before=ids))
    assert events.keys() == {("retired", "c3")}
    assert events[RETIRED, "c3"].children == ("c2",)
    assert again.manifest.next_cluster_number == 4


@pytest.mark.parametrize(
    ("ids", "heirs"), [(("c1", "c9"), [0, -1]), (("c2", "c1"), [0, 1]), (("c1", "c2"), [0, -1])]
)
def test_control_a_rollback_to_ids_that_never_were_or_are_others_is_refused(ids, heirs):
    old = labels(0, 1)
    found = candidate(old, old, 2, 2, heirs=heirs)

    with pytest.raises(AssertionError):
        next_model(found, first(old, 2), occasion(), EMBEDDING, cluster_ids=ids)


def test_control_an_id_that_comes_back_without_a_rollback_is_refused():
    old = labels(0, 1)
    incumbent, found = first(old, 2), candidate(old, old, 2, 2, heirs=[0, -1])
    model = next_model(found, incumbent, occasion(), EMBEDDING)
    manifest = dataclasses.replace(model.manifest, clusters=("c1", "c2"))

    with pytest.raises(AssertionError, match="comes back"):
        epoch_events(dataclasses.replace(model, manifest=manifest), incumbent, found, occasion())


def test_what_fades_stands_in_the_manifest():
    new = labels(0, 1)
    found = candidate(np.full(2, -1, np.int32), new, 0, 2)

    model = next_model(found, None, occasion(half_life_s=60.0, landmark_ms=5), EMBEDDING)

    assert (model.manifest.half_life_s, model.manifest.landmark_ms) == (60.0, 5)
    assert first(new, 2).manifest.half_life_s is None


@st.composite
def fits(draw):
    n = draw(st.integers(1, 25))
    rounds = []
    for _ in range(draw(st.integers(1, 5))):
        k = draw(st.integers(1, 4))
        rounds.append((labels(*draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))), k))
    return n, rounds


@settings(deadline=None)
@given(fits())
def test_no_id_is_used_twice_and_every_change_of_the_set_is_told_once(given_fits):
    n, rounds = given_fits
    incumbent, old, n_old, ever, ids = None, np.full(n, -1, np.int32), 0, set(), set()
    for new, n_new in rounds:
        found = candidate(old, new, n_old, n_new)
        model = next_model(found, incumbent, occasion(), EMBEDDING)
        events = epoch_events(model, incumbent, found, occasion(n_items=n))
        by_cluster = told(events)
        before = set() if incumbent is None else set(incumbent.manifest.clusters)
        after = set(model.manifest.clusters)

        def of(kind, by_cluster=by_cluster):
            return {cluster for told_kind, cluster in by_cluster if told_kind == kind}

        assert of(BORN) == after - before
        assert of(RETIRED) == before - after
        assert not of(BORN) & ever, "numbers count up for ever"
        assert of(SPLIT) <= before & after
        assert of(MERGED) <= before & after
        for (kind, cluster), event in by_cluster.items():
            assert set(event.parents) <= before
            assert set(event.children) <= after
            if kind == SPLIT:
                assert cluster not in event.children[1:]
                assert set(event.children) - {cluster} <= of(BORN)
            if kind == MERGED:
                assert set(event.parents) - {cluster} <= of(RETIRED)
        assert not ids & {event.id for event in events}
        ids |= {event.id for event in events}
        ever |= after
        incumbent, old, n_old = model, new, n_new


# --- revisions --------------------------------------------------------------------------------


def test_a_revision_moves_centroids_and_nothing_else():
    model = first(labels(0, 1, 2), 3)

    moved = revised(model, {1: np.array([7, 8], np.float32)}, 2000)
    again = revised(moved, {0: np.array([5, 6], np.float32)}, 3000)

    assert moved.version == "1.1"
    assert moved.centroids[1].tolist() == [7, 8]
    assert moved.centroids[[0, 2]].tolist() == model.centroids[[0, 2]].tolist()
    assert moved.manifest == dataclasses.replace(
        model.manifest, revision=1, digest=digest(moved.centroids), created_at_ms=2000
    )
    assert again.version == "1.2"
    assert again.centroids.tolist()[:2] == [[5, 6], [7, 8]]
    for one in (moved, again):
        assert one.fitted is model.fitted
        assert one.counts is model.counts
        assert one.quantiles is model.quantiles
    assert model.manifest.digest == digest(model.centroids), "the model at hand is as it was"


# --- labels -----------------------------------------------------------------------------------


def events_of(old, new, n_old, n_new):
    incumbent, found = first(old, n_old), candidate(old, new, n_old, n_new)
    model = next_model(found, incumbent, occasion(), EMBEDDING)
    return epoch_events(model, incumbent, found, occasion())


def test_a_label_follows_the_largest_heir_that_has_none():
    old = labels(*[0] * 6, *[1] * 10, *[2] * 10)
    new = labels(1, 1, 1, 1, 0, 0, *[0] * 10, *[1] * 10)
    events = events_of(old, new, 3, 2)  # c1 retires: most of it went to c3, the rest to c2

    assert inherited_labels({"c1": "A"}, events) == {"c3": "A"}
    assert inherited_labels({"c1": "A", "c3": "C"}, events) == {"c2": "A"}
    assert inherited_labels({"c1": "A", "c2": "B", "c3": "C"}, events) == {}
    assert inherited_labels({"c2": "B"}, events) == {}
    assert inherited_labels({}, events) == {}


def test_two_labels_never_go_to_one_cluster():
    events = events_of(labels(0, 0, 1, 1, 2, 2, 2), labels(0, 0, 0, 0, 0, 0, 0), 3, 1)

    assert inherited_labels({"c1": "A", "c2": "B"}, events) == {"c3": "A"}


def test_control_a_label_stays_where_its_cluster_stays():
    events = events_of(labels(0, 0, 0, 0, 0), labels(0, 0, 0, 1, 1), 1, 2)  # a split

    assert inherited_labels({"c1": "A"}, events) == {}


def test_a_label_is_forgotten_with_the_last_epoch_that_has_its_cluster():
    one, two = first(labels(0, 1), 2).manifest, first(labels(0, 1, 2), 3).manifest

    assert forgotten_labels(["c3", "c1", "c9"], [one, two]) == ["c9"]
    assert forgotten_labels(["c3", "c1", "c9"], [one]) == ["c3", "c9"]
    assert forgotten_labels([], [one]) == []


def test_the_event_of_a_label_is_named_by_its_cause():
    def event(**fields):
        made = label_event("c3", "A", epoch=7, revision=2, occurred_at_ms=9, **fields)
        value, headers = encode_lifecycle(made, EventPolicy())
        validate("cluster-lifecycle", made.key, value, headers)
        assert (made.cluster, made.label, made.command) == ("c3", "A", fields["command_id"])
        return made.id

    assert event(command_id="x") == "command/x/labelled"
    assert event(command_id=None) == "7/c3/labelled"
    assert event(command_id="x", is_inherited=True) == "7/c3/labelled"


def test_a_rejection_without_a_model_names_epoch_0():
    event = rejection(None, reason="no such cluster", command_id="x", occurred_at_ms=3)

    assert (event.id, event.epoch, event.revision) == ("command/x/rejected", 0, 0)
    value, headers = encode_lifecycle(event, EventPolicy())
    validate("cluster-lifecycle", event.key, value, headers)
