"""The judge passes what is right, and objects to each promise that is broken, by its name."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from pipeline.cli.audit.events import audit_events
from pipeline.cli.verify import verify
from pipeline.errors import TopicError
from pipeline.messages.policy import LimitPolicy
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import GroupMember
from tests.cli.history import (
    FADING,
    GROUP,
    N_DIMS,
    History,
    broken,
    edv1,
    events,
    judge,
    told,
    vectors,
)


@pytest.mark.parametrize("policy", ["compact", "delete", "compact,delete"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_correct_history_passes(policy, metric):
    report = judge(told(policy=policy, metric=metric))

    assert report.ok, [tally.examples for tally in report.checks]
    assert (report.model, report.n_items) == ("2.1", 29)
    checked = {tally.name: tally.n_checked for tally in report.checks}
    assert min(checked.values()) > 0, checked
    assert checked["dead_letters"] == 2
    assert checked["nearest"] == 29


def test_report_says_it_all_in_json():
    value = json.loads(json.dumps(judge(told()).as_json()))

    assert value["ok"] is True
    assert {"name", "promise", "checked", "unchecked", "broken", "examples", "note"} == set(
        value["checks"][0]
    )


# When it does not judge


def test_without_a_model_it_says_so():
    report = judge(History())

    assert not report.ok
    assert "no model" in (report.problem or "")


def test_missing_topic_is_an_error_that_says_what_to_do():
    history = told()
    history.broker.delete_topic(history.topics.vectors)

    with pytest.raises(TopicError, match="eddy topics create"):
        judge(history)


def still(history):
    report = judge(history)
    assert "no quiet moment" in (report.problem or "")
    assert not report.ok
    return " ".join(report.reasons)


def test_waits_for_records_that_are_not_applied():
    history = told()
    history.produce("late", vectors(1)[0])

    assert "partition 0: applied up to" in still(history)


def test_waits_for_the_sweep():
    history = told()
    history.head(1, model={"epoch": 2, "revision": 0})

    assert "partition 1: swept to model 2.0" in still(history)


def test_waits_for_the_head_to_reach_what_was_applied():
    history = told()
    history.produce("late", vectors(1)[0])
    history.apply()

    assert "its head stands at" in still(history)


def test_waits_for_an_assigner_to_begin():
    history = told()
    history.broker.forget_offsets(GROUP, history.topics.input)

    assert "no assigner has begun" in still(history)


def test_control_records_behind_the_committed_offset_are_no_lag():
    history = told()
    user = history.broker.stream(GroupMember(history.topics.commands, "user", "user"))
    for partition in user.poll(0, timeout_s=0).assigned:
        user.start(partition, 0)
    changed = edv1(vectors(1, 9)[0])

    user.commit([Outgoing(history.topics.input, 0, b"item-8", changed)], {0: 0})
    history.apply()
    history.publish()

    assert history.broker.ranges(history.topics.input)[0].high > history.next_offsets[0]
    assert judge(history).ok


def test_reads_again_what_moved_meanwhile():
    history = told()
    n_looks = itertools.count()

    def disturb(what):
        if "checking distances" in what and next(n_looks) == 0:
            history.produce("late", vectors(1, 9)[0])
            history.apply()
            history.publish()

    report = judge(history, progress=disturb)

    assert report.ok
    assert next(n_looks) == 2, "read twice"
    assert report.n_items == 30


N_MOMENTS = 12


def verified_while(history, disturb, *, moment):
    """`verify`, with something done at the n-th of the moments at which it looks at the clock
    or tells its progress. The assigners publish what they make of it as soon as it waits."""
    moments = itertools.count()

    def pass_time(what=None):
        here = next(moments)
        if here == moment:
            disturb()
        elif here > moment and "waiting" in str(what):
            history.publish()
        return here / 1000

    report = verify(
        history.broker,
        history.topics,
        history.embedding,
        history.limits,
        group_id=GROUP,
        timeout_s=1.0,
        clock=pass_time,
        sleep=pass_time,
        progress=pass_time,
    )
    assert next(moments) > N_MOMENTS, "there are as many moments"
    return report


@pytest.mark.parametrize("moment", range(N_MOMENTS))
def test_a_revision_at_any_moment_is_no_fault(moment):
    history = told()
    revised = {name: np.roll(c, 1) for name, c in history.centroids.items()}

    report = verified_while(history, lambda: history.install(2, 2, revised), moment=moment)

    assert report.ok, (report.problem, report.reasons, [t.examples for t in report.checks])
    assert report.model == "2.2"


def test_a_revision_that_nobody_sweeps_to_is_waited_for():
    history = told()
    history.install(2, 2, {name: c * 0.99 for name, c in history.centroids.items()})

    assert "swept to model 2.1, the newest is 2.2" in still(history)


# What is no fault


def test_compacted_topics_pass():
    history = told()
    for topic in (history.topics.input, history.topics.assignments, history.topics.vectors):
        for partition in range(2):
            history.broker.compact(topic, partition, keep_tombstones=False)
    for topic in (history.topics.statistics, history.topics.model):
        history.broker.compact(topic, 0, keep_tombstones=False)

    report = judge(history)

    assert report.ok, [tally.examples for tally in report.checks]
    assert report.n_items == 29


def test_events_that_retention_has_cut_are_said_to_be_unchecked():
    history = told()
    for partition in range(2):
        last = history.broker.ranges(history.topics.changes)[partition].high
        history.broker.truncate(history.topics.changes, partition, last - 1)

    report = judge(history)

    assert report.ok, [tally.examples for tally in report.checks]
    chain = next(tally for tally in report.checks if tally.name == "event_chain")
    assert chain.n_unchecked > 20
    assert "retention" in (chain.note or "")


def test_input_that_retention_has_cut_passes_by_the_copies():
    history = told(policy="delete")
    history.broker.truncate(history.topics.input, 0, 12)

    assert judge(history).ok


def test_statistics_that_are_not_published_yet_are_said_to_be_unchecked():
    history = told()
    for partition in range(2):
        for cluster in history.centroids:
            history.append(history.topics.statistics, partition, f"{partition}/{cluster}", None)

    report = judge(history)

    assert report.ok
    statistics = next(tally for tally in report.checks if tally.name == "statistics")
    assert (statistics.n_checked, statistics.n_unchecked > 0) == (0, True)


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_members_that_fade_are_checked_with_their_weights(policy):
    history = told(policy=policy, forgetting=FADING)

    report = judge(history)

    assert report.ok, [tally.examples for tally in report.checks]
    statistics = next(t for t in report.checks if t.name == "statistics")
    assert (statistics.n_checked, statistics.n_unchecked) == (10, 0)
    weights = {history.weight(item) for items in history.items.values() for item in items.values()}
    assert len(weights) > 10


def test_members_that_fade_are_checked_by_the_copies_where_retention_has_cut_the_input():
    history = told(policy="delete", forgetting=FADING)
    history.broker.truncate(history.topics.input, 0, 12)

    assert judge(history).ok


def test_either_of_two_equal_centroids_is_the_nearest():
    history = told()
    twins = {"c50": np.ones(N_DIMS), "c51": np.ones(N_DIMS)}
    history.install(3, 0, twins)
    for partition, items in history.items.items():
        for n, (name, item) in enumerate(items.items()):
            if n % 2:
                history.event(partition, name, item.cluster, "c51", "record", item.offset)
                item.cluster = "c51"
                history.assignment(partition, name, item)
    history.publish()

    assert broken(history) <= {"event_ids"}  # those steps had no record of their own


def test_items_above_the_limit_are_dead_letters():
    history = History(limits=LimitPolicy(max_items_per_partition=1), policy="delete")
    history.install(1, 0, {"c1": np.zeros(N_DIMS)})
    for item in "ab":
        history.produce(item, vectors(1)[0])
    history.apply(bad={(0, 1): "limit"})
    history.publish()

    assert judge(history).ok


def test_events_alone_can_be_audited():
    history = told()
    stream = [r for p in range(2) for r in events(history, p)]
    assigned = {
        p: {name: (item.cluster, item.offset) for name, item in items.items()}
        for p, items in history.items.items()
    }

    assert audit_events(stream, assigned, input_topic=history.topics.input) == []

    twice = [*stream, stream[-1]]
    assert len(audit_events(twice, assigned, input_topic=history.topics.input)) >= 1
    assert len(audit_events(stream[1:], assigned, input_topic=history.topics.input)) >= 1
