"""Bad input, a broker that is away, and processes that end: as an operator meets them."""

from __future__ import annotations

import signal
import socket
import sys
import time

import numpy as np
import pytest

from pipeline.errors import Reason
from pipeline.messages.records import Outgoing
from pipeline.streams.broker import start_broker
from pipeline.streams.contract import TopicSettings
from pipeline.streams.topics import expected_topics
from tests.conftest import FAST_GROUPS
from tests.kafka import fussy, impatient
from tests.kafka.audit import audit_records
from tests.kafka.site import QUICK_GROUPS, site_at, until

pytestmark = pytest.mark.kafka

SERVICES = ("assigner", "reclusterer")
SESSION_S = 3.0
"""Of `QUICK_GROUPS`."""


@pytest.fixture
def site(kafka_cluster, tmp_path):
    """Topics and a model of two clusters, at 1 and -1 of the first axis."""
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, QUICK_GROUPS) as site:
        site.create_topics()
        site.publish_model()
        yield site


@pytest.fixture(scope="module")
def mortal_broker(tmp_path_factory):
    """A broker that may be killed; it runs at the beginning of each test."""
    with start_broker(tmp_path_factory.mktemp("mortal"), extra=FAST_GROUPS) as broker:
        yield broker
        broker.kill()


@pytest.fixture
def mortal(mortal_broker, tmp_path):
    """A site on the broker that may be killed, with a model and some records."""
    mortal_broker.start()
    with site_at(mortal_broker.bootstrap_servers, tmp_path, QUICK_GROUPS) as site:
        site.create_topics()
        site.publish_model()
        site.write([site.upsert(n, [1.0, 0, 0, 0]) for n in range(20)])
        yield site


def others(site, n=20):
    """The same items, all in the other cluster."""
    return [site.upsert(i, [-1.0, 0, 0, 0]) for i in range(n)]


# --- the broker is away ---------------------------------------------------------------------------


def test_without_a_broker_a_service_waits_says_so_and_ends_with_4(tmp_path):
    with socket.socket() as bound:  # listens to nobody
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with site_at(address, tmp_path) as site:
            via = [sys.executable, impatient.__file__]
            for process in [site.start(service, via=via) for service in SERVICES]:
                process.says("kafka_error")
                assert process.ends() == 4
                *_, last = process.said.splitlines()
                assert address in last
                assert last.startswith("eddy: ")


def test_a_service_begins_when_its_broker_comes(mortal, mortal_broker):
    mortal_broker.kill()
    assigner = mortal.start("assigner")
    assigner.says("kafka_error")

    mortal_broker.start()

    mortal.wait_until_applied()
    assert not assigner.has_ended
    assert audit_records(mortal) == 20


def test_a_service_goes_on_when_its_broker_was_away_for_longer_than_its_session(
    mortal, mortal_broker
):
    assigner = mortal.start("assigner")
    mortal.wait_until_applied()

    mortal_broker.kill()
    away_until = time.monotonic() + 2 * SESSION_S
    until(lambda: time.monotonic() > away_until, "the outage was long")
    mortal_broker.start()

    mortal.write(others(mortal))
    mortal.wait_until_applied()
    assert not assigner.has_ended, assigner.said
    assert audit_records(mortal) == 40


# --- who may run ----------------------------------------------------------------------------------


def test_of_two_with_one_instance_the_older_ends_and_says_why(site):
    older = site.start("--set", "instance=one", "assigner")
    older.says("restore_finished")

    newer = site.start("--set", "instance=one", "assigner")

    assert older.ends() == 1
    assert "another process runs under the same instance name" in older.said.splitlines()[-1]
    newer.says("restore_finished")
    site.write(others(site))
    site.wait_until_applied()
    assert not newer.has_ended
    assert audit_records(site) == 20


def test_a_service_refuses_topics_that_break_a_promise_and_names_them(kafka_cluster, tmp_path):
    with site_at(kafka_cluster.bootstrap_servers, tmp_path) as site:
        topics = {t.name: t for t in expected_topics(site.topics, 1_048_576)}
        more = TopicSettings(site.topics.input, 3, {"cleanup.policy": "compact"})
        forgets = TopicSettings(site.topics.assignments, 2, {"cleanup.policy": "delete"})
        del topics[site.topics.commands]
        site.broker.create_topics((topics | {more.name: more, forgets.name: forgets}).values())

        for process in [site.start(service) for service in SERVICES]:
            assert process.ends() == 3
            *_, last = process.said.splitlines()
            assert f"{site.topics.input} has 3 partitions" in last
            assert f"{site.topics.assignments} has cleanup.policy=delete" in last
            assert f"{site.topics.commands} does not exist" in last


def test_verify_says_that_there_is_no_model_yet(kafka_cluster, tmp_path):
    with site_at(kafka_cluster.bootstrap_servers, tmp_path) as site:
        site.create_topics()

        ended = site.run("verify")

        assert ended.returncode == 1
        assert "no model yet" in ended.stdout


# --- an end and a new beginning -------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_process_leaves_the_next_one_goes_on_with(site, end):
    n_records, n_items = 6000, 500
    vectors = np.random.default_rng(1).standard_normal((n_records, 4)).astype(np.float32)
    site.write([site.upsert(i % n_items, v) for i, v in enumerate(vectors)])
    first = site.start("--set", "batching.max_records=20", "--set", "instance=one", "assigner")
    until(lambda: site.committed(site.topics.changes)[0], "the first events")

    first.process.send_signal(end)

    assert first.ends() == (-signal.SIGKILL if end is signal.SIGKILL else 0)
    n_left = n_records - sum(map(len, site.committed(site.topics.assignments)))
    assert 0 < n_left < n_records, "it was too fast for this test"
    second = site.start("--set", "instance=one", "assigner")
    site.wait_until_applied()
    assert sum(int(told["records"]) for told in second.events("restore_finished")) > 0
    audit_records(site)
    verified = site.run("verify")
    assert verified.returncode == 0, verified.stdout


# --- bad records ----------------------------------------------------------------------------------


def native(*vector: float) -> bytes:
    header = b"EDV1" + np.array([0, len(vector)], "<u4").tobytes() + bytes(8)
    return header + np.array(vector, "<f4").tobytes()


GOOD = native(1, 0, 0, 0)
TRACE = ("traceparent", b"00-1-2-03")
BAD = {
    # name -> (key, value, headers, reason)
    "empty key": (b"", GOOD, (), Reason.KEY),
    "key of 513 bytes": (b"k" * 513, GOOD, (), Reason.KEY),
    "key of no text": (b"\xff", GOOD, (), Reason.KEY),
    "form": (b"a", GOOD, (("content-type", b"text/html"),), Reason.CONTENT_TYPE),
    "magic": (b"a", b"XXXX" + GOOD[4:], (), Reason.DECODE),
    "length": (b"a", GOOD[:-1], (TRACE,), Reason.DECODE),
    "json": (b"a", b"{", (("content-type", b"application/json"),), Reason.DECODE),
    "dimension": (b"a", native(1, 0, 0), (), Reason.DIMENSION),
    "nan": (b"a", native(1, 0, 0, np.nan), (), Reason.NOT_FINITE),
    "infinity": (b"a", native(1, 0, 0, np.inf), (), Reason.NOT_FINITE),
    "range": (b"a", native(257, 0, 0, 0), (), Reason.OUT_OF_RANGE),
    "model": (b"a", GOOD, (("embedding-model", b"other"),), Reason.EMBEDDING_MODEL),
    "large": (b"a", bytes(5000), (TRACE,), Reason.TOO_LARGE),
    "one more": (b"d", GOOD, (TRACE,), Reason.LIMIT),
    "poison": (b"a", native(fussy.UNLUCKY, 0, 0, 0), (), Reason.POISON),
}
STRICT = {
    "topics.partitions": 1,
    "embedding.model": "ours",
    "limits.max_record_bytes": 4500,
    "limits.max_items_per_partition": 3,
    **QUICK_GROUPS,
}


def assigned_after(site, records):
    """Every item's source offset, once all of it is applied in one batch by a fussy assigner."""
    site.create_topics()
    site.publish_model()
    site.write([Outgoing(site.topics.input, 0, key, value, h) for key, value, h in records])
    assigner = site.start("assigner", via=[sys.executable, fussy.__file__])
    site.wait_until_applied()
    assert not assigner.has_ended
    rows = site.values(site.topics.assignments)
    (letters,) = site.committed(site.topics.dead_letters)
    return [row["source"]["offset"] for row in rows], letters


def test_every_kind_of_bad_record_is_a_dead_letter_and_its_neighbours_are_applied(
    kafka_cluster, tmp_path
):
    good = [(key, GOOD, ()) for key in (b"a", b"b", b"c")]
    bad = [(key, value, headers) for key, value, headers, _ in BAD.values()]
    between = [(b"b", native(-1, 0, 0, 0), ()), *bad[7:], (b"c", native(-1, 0, 0, 0), ())]

    with site_at(kafka_cluster.bootstrap_servers, tmp_path, STRICT) as site:
        offsets, letters = assigned_after(site, [*good, *bad[:7], *between])

        assert offsets == [0, 1, 2, 10, 11 + len(bad[7:])]
        at = [*range(3, 10), *range(11, 11 + len(bad[7:]))]
        for letter, offset, (name, (key, value, headers, reason)) in zip(
            letters, at, BAD.items(), strict=True
        ):
            told = dict(letter.headers)
            errors = {
                n.removeprefix("eddy.errors."): v.decode() for n, v in told.items() if "eddy." in n
            }
            assert errors["exception.class.name"] == reason, name
            assert errors["exception.message"], name
            assert errors["topic"] == site.topics.input
            assert (errors["partition"], errors["offset"]) == ("0", str(offset)), name
            assert errors["stage"] == ("assign" if reason is Reason.LIMIT else "decode"), name
            assert int(errors["timestamp"]) > 0
            assert letter.headers[: len(headers)] == headers, f"{name}: its own headers"
            assert errors.get("value.bytes") == ("5000" if name == "large" else None)
            assert errors.get("key.bytes") == ("513" if len(key) > 512 else None)
            assert letter.value == (None if name == "large" else value), name
            assert letter.key == (None if len(key) > 512 else key), name
        verified = site.run("verify")
        assert verified.returncode == 0, verified.stdout


def test_a_zero_vector_is_a_dead_letter_under_cosine_only(kafka_cluster, tmp_path):
    cosine = {"embedding.metric": "cosine", "topics.partitions": 1, **QUICK_GROUPS}
    zero = (b"b", native(0, 0, 0, 0), ())
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, cosine) as site:
        offsets, letters = assigned_after(site, [(b"a", GOOD, ()), zero, (b"c", GOOD, ())])

        assert offsets == [0, 2]
        (letter,) = letters
        assert dict(letter.headers)["eddy.errors.exception.class.name"] == b"zero_vector"


def test_every_reason_is_shown():
    shown = {reason for *_, reason in BAD.values()} | {Reason.ZERO_VECTOR}

    assert shown == set(Reason)
