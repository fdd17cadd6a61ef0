"""`eddy replay`: the same input under one model makes the same events, under a second prefix."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pipeline.config import load
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import decode_assignment, encode_vector
from pipeline.messages.dead_letters import REDRIVEN
from pipeline.messages.model import ModelFold, label_record
from pipeline.messages.records import Record
from pipeline.services.assigner.rebuild import Part, Rebuild, RebuildReports, survey
from pipeline.services.launch import new_assigner
from pipeline.streams.bounded import BoundedStream
from pipeline.streams.contract import GroupMember, Range, TopicSettings
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics
from tests.cli.console import NO_MS, TOPICS, Console, write_model

SECOND = TopicPolicy(prefix="second.")
N = TOPICS.partitions


def produce(broker, n, *, at_ms=NO_MS, seed=0, n_items=12):
    """Records of a few items, a tombstone and a bad one among them, each a millisecond later."""
    random = np.random.default_rng(seed)
    for i in range(n):
        item = int(random.integers(n_items))
        value = encode_vector(random.uniform(-1, 4, 3).astype(np.float32))
        value = None if i % 11 == 7 else value[:-1] if i % 13 == 5 else value
        broker.append(TOPICS.input, item % N, f"i{item}".encode(), value, (), at_ms + i)


def assign(console, prefix="eddy."):
    """The product's assigner, until nothing is left to do; leaves its group."""
    config = load(None, {}, ["embedding.dimensions=3", f"topics.prefix={prefix}"]).config
    reports = RebuildReports(
        get_logger(), Metrics("assigner"), Health("assigner", poll_timeout_s=0.1), kernel="cpu"
    )
    ticks = iter(range(10**9))
    assigner = new_assigner(
        config, console.broker, CpuKernels(), input_policy="compact", name="first",
        clock=lambda: float(next(ticks)), reports=reports,
    )  # fmt: skip
    parts = {
        p: Part(held.low, held.high, held.low, held.high)
        for p, held in console.broker.ranges(TOPICS.input).items()
    }
    turn(Rebuild(assigner, parts, threading.Event()))


def turn(service, limit_s=10.0):
    deadline = time.monotonic() + limit_s
    while not service.is_done:
        assert time.monotonic() < deadline
        service.step()
    service.close()


@pytest.fixture
def lived(eddy_with_topics: Console) -> Console:
    """An installation with a model of two clusters that has assigned 200 records."""
    console = eddy_with_topics
    console.flags += ("--set", "centroids.min_interval_s=0.1", "--set", "instance=first")
    write_model(console.broker, ["c1", "c2"], [10, 10], at=[0, 3])
    produce(console.broker, 200)
    assign(console)
    console.capture.readouterr()
    return console


def events(broker, topics, p):
    return [(r.key, r.value, r.headers) for r in broker.records(topics.changes, p)]


def assignments(broker, topics):
    found = {}
    for p in range(N):
        for record in broker.records(topics.assignments, p):
            found[p, record.key] = None
            if record.value is not None:
                found[p, record.key] = decode_assignment(record.value)[:3:2]
    return {key: cluster for key, cluster in found.items() if cluster is not None}


# --- what comes out -------------------------------------------------------------------------------


def test_the_same_input_under_one_model_makes_the_same_events(lived: Console):
    letters = lived.broker.ranges(TOPICS.dead_letters)

    assert lived("replay", "--into", "second.", "--json") == 0, lived.err

    (said,) = lived.lines
    first = [events(lived.broker, TOPICS, p) for p in range(N)]
    assert sum(map(len, first)) > 50
    assert [events(lived.broker, SECOND, p) for p in range(N)] == first
    assert assignments(lived.broker, SECOND) == assignments(lived.broker, TOPICS)
    assert (said["records"], said["events"]) == (200, sum(map(len, first)))
    assert said["items"] == len(assignments(lived.broker, TOPICS))
    assert said["model"] == "7.0"
    assert lived.broker.ranges(TOPICS.dead_letters) == letters, "no letter is written twice"
    assert said["dead"] == {
        "decode": sum(len(lived.broker.records(TOPICS.dead_letters, p)) for p in range(N))
    }


def test_another_model_is_another_history(lived: Console):
    write_model(lived.broker, ["c1", "c3"], [10, 10], at=[0, 1], epoch=8)

    assert lived("replay", "--into", "second.") == 0

    first = [events(lived.broker, TOPICS, p) for p in range(N)]
    assert [events(lived.broker, SECOND, p) for p in range(N)] != first


def test_the_first_prefix_and_the_input_stay_as_they_were(lived: Console):
    before = {name: lived.broker.ranges(name) for name in TOPICS.names}
    offsets = lived.broker.committed("eddy.assigner", TOPICS.input)

    lived("replay", "--into", "second.")

    assert {name: lived.broker.ranges(name) for name in TOPICS.names} == before
    assert lived.broker.committed("eddy.assigner", TOPICS.input) == offsets


def test_the_second_prefix_is_a_whole_one(lived: Console):
    lived.broker.append(TOPICS.model, 0, *label_record("c1", "left", TOPICS.model)[2:4])
    lived("replay", "--into", "second.")

    fold = ModelFold()
    fold.fold(lived.broker.records(SECOND.model, 0))
    assert fold.newest is not None
    assert (fold.newest.version, fold.labels) == ("7.0", {"c1": "left"})
    committed = lived.broker.committed("second.assigner", TOPICS.input)
    assert committed == lived.broker.committed("eddy.assigner", TOPICS.input)
    produce(lived.broker, 40, seed=1)
    for prefix in ("eddy.", "second."):
        assign(lived, prefix)
    assert [events(lived.broker, SECOND, p) for p in range(N)] == [
        events(lived.broker, TOPICS, p) for p in range(N)
    ]
    lived.capture.readouterr()


# --- a part of it ---------------------------------------------------------------------------------


def test_a_replay_to_a_time_ends_before_the_first_record_of_it(lived: Console):
    assert lived("replay", "--into", "second.", "--at", str(NO_MS + 100), "--json") == 0

    (said,) = lived.lines
    assert said["records"] == 100
    for p in range(N):
        cut = next(r.offset for r in held(lived, p) if r.timestamp_ms >= NO_MS + 100)
        n = len(events(lived.broker, SECOND, p))
        assert events(lived.broker, SECOND, p) == events(lived.broker, TOPICS, p)[:n]
        assert lived.broker.committed("second.assigner", TOPICS.input)[p] <= cut
        assert said["offsets"][str(p)] == {"from": 0, "to": cut}


def held(console, p):
    return console.broker.records(TOPICS.input, p)


def test_a_replay_from_offsets_begins_there(lived: Console):
    assert lived("replay", "--into", "second.", "--from-offsets", "0:9,1:0", "--json") == 0

    (said,) = lived.lines
    assert said["records"] == 191
    assert said["offsets"]["0"]["from"] == 9
    assert "last written before the given offsets" in " ".join(said["remarks"])
    assert events(lived.broker, SECOND, 1) == events(lived.broker, TOPICS, 1)
    assert b'"offset":9' in lived.broker.records(SECOND.changes, 0)[0].value


def test_what_compaction_took_is_said_and_the_assignments_are_whole(lived: Console):
    for p in range(N):
        lived.broker.compact(TOPICS.input, p, keep_tombstones=False, before=len(held(lived, p)) - 1)

    assert lived("replay", "--into", "second.") == 0

    assert "offsets hold no record: compaction took it" in " ".join(lived.out.split())
    assert "is compacted: steps" in " ".join(lived.out.split())


# --- which model ----------------------------------------------------------------------------------


def test_the_model_is_the_newest_of_that_time_or_the_one_named(lived: Console):
    write_model(lived.broker, ["c1", "c3"], [10, 10], at=[0, 1], epoch=8, created_at_ms=NO_MS + 50)
    write_model(lived.broker, ["c4"], [10], at=[0], epoch=9, created_at_ms=NO_MS + 500)

    for prefix, options, version in (
        ("a.", ["--at", str(NO_MS + 60)], "8.0"),
        ("b.", ["--at", str(NO_MS + 49)], "7.0"),
        ("c.", ["--at", str(NO_MS + 49), "--epoch", "8"], "8.0"),
        ("d.", [], "9.0"),
    ):
        assert lived("replay", "--into", prefix, "--json", *options) == 0
        assert lived.lines[0]["model"] == version


def test_a_revision_that_still_stands_in_the_topic_counts(lived: Console):
    write_model(
        lived.broker, ["c1", "c2"], [10, 10], at=[0, 2], revision=1, created_at_ms=NO_MS + 9
    )

    for prefix, at_ms, version in (("a.", NO_MS + 8, "7.0"), ("b.", NO_MS + 9, "7.1")):
        assert lived("replay", "--into", prefix, "--json", "--at", str(at_ms)) == 0
        assert lived.lines[0]["model"] == version


def test_a_time_without_a_model_is_said_with_those_that_are_kept(lived: Console):
    assert lived("replay", "--into", "a.", "--at", str(NO_MS - 1)) == 1
    assert "no model that is kept was there at 2026-03-01T12:00:00.122Z" in lived.err
    assert lived.err.rstrip().endswith("7.0")

    assert lived("replay", "--into", "a.", "--epoch", "3") == 2
    assert "the kept models are 7.0" in lived.err


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--into", "eddy."], 2, "the configured prefix"),
        (["--into", "se cond"], 3, "no name of a topic"),
        (["--into", "a.", "--from-offsets", "0:9999"], 1, "holds the offsets 0 to"),
        (["--into", "a.", "--from-offsets", "77:1"], 1, "has no partition 77"),
        (["--into", "a.", "--from-offsets", "0:1,0:2"], 2, "names partition 0 twice"),
        (["--into", "a.", "--at", "then"], 2, "must be a time"),
        (["--into", "a.", "--set", "kafka.group.id=a.assigner"], 2, "the configured group"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_made(
    lived: Console, options, code, sentence
):
    topics = len(lived.broker.topics(TopicPolicy(prefix="a.").names))

    assert lived("replay", *options) == code

    assert sentence in lived.err
    assert len(lived.broker.topics(TopicPolicy(prefix="a.").names)) == topics


def test_a_prefix_that_was_used_is_refused(lived: Console):
    lived("replay", "--into", "second.")

    assert lived("replay", "--into", "second.") == 1
    assert "second.cluster-changes" in lived.err

    for name in SECOND.names[1:-1]:
        lived.broker.delete_topic(name)
    assert lived("replay", "--into", "second.") == 1
    assert "the group second.assigner has committed offsets" in lived.err


def test_without_a_model_or_an_input_there_is_nothing_to_replay(eddy: Console):
    assert eddy("replay", "--into", "a.") == 3
    assert "embedding-changes does not exist" in eddy.err
    eddy("topics", "create")
    assert eddy("replay", "--into", "a.") == 1
    assert "there is no model yet" in eddy.err


# --- the parts by themselves ----------------------------------------------------------------------


def test_a_bounded_stream_hands_out_nothing_beyond_and_brings_back_what_was_not_committed():
    broker = MemoryBroker()
    broker.create_topics([TopicSettings("in", 1, {"cleanup.policy": "delete"})])
    for i in range(10):
        broker.append("in", 0, b"k", str(i).encode())
    stream = BoundedStream(broker.stream(GroupMember("in", "g", "g.1")), {0: 3}, {0: 6})
    stream.poll(0, timeout_s=0)
    stream.start(0, 0)

    assert [r.offset for r in stream.poll(100, timeout_s=0).records] == [3, 4, 5]
    assert stream.passed == {0}
    stream.rewind()
    assert stream.passed == set()
    assert [r.offset for r in stream.poll(2, timeout_s=0).records] == [3, 4]
    assert stream.passed == set()
    stream.commit([], {0: 5})
    stream.rewind()
    assert [r.offset for r in stream.poll(100, timeout_s=0).records] == [5]
    stream.close()


def test_partitions_that_go_to_another_member_are_noticed():
    broker = MemoryBroker()
    broker.create_topics([TopicSettings("in", 2, {"cleanup.policy": "delete"})])
    stream = BoundedStream(broker.stream(GroupMember("in", "g", "g.1")), {}, {0: 9, 1: 9})
    for p in stream.poll(0, timeout_s=0).assigned:
        stream.start(p, 0)

    broker.stream(GroupMember("in", "g", "g.2")).poll(0, timeout_s=0)
    stream.poll(0, timeout_s=0)

    assert len(stream.revoked) == 1
    assert stream.started == {0, 1} - stream.revoked


def test_the_survey_knows_gaps_times_and_where_the_log_grew():
    times = [5, None, 7, 6, 3]
    records = [Record(0, 2 * i, b"k", b"v", at) for i, at in enumerate(times)]

    *_, parts = survey(iter([records]), {0: Range(0, 9)}, {0: 0}, until_ms=7)
    assert parts[0] == Part(0, 4, 0, 3, n_records=2, is_cut=True)
    assert parts[0].n_missing == 2
    *_, parts = survey(iter([records]), {0: Range(0, 7)}, {0: 0}, until_ms=None)
    assert (parts[0].target, parts[0].n_records, parts[0].is_cut) == (7, 4, False)
    *_, parts = survey(iter([]), {0: Range(4, 4)}, {0: 4}, until_ms=1)
    assert (parts[0].target, parts[0].n_missing) == (4, 0)


def test_a_redriven_record_is_replayed_like_any_other(lived: Console):
    assert lived("dlq", "redrive", "--even-if-newer") == 0
    assert any(r.headers and r.headers[-1][0] == REDRIVEN for r in held(lived, 0))

    assert lived("replay", "--into", "second.") == 0
