"""More than comes on a good day: nothing is lost, and memory is bounded.

That a lag is to be seen is one test's matter. What else needs a backlog looks at positions, since a
gauge may rest for longer than a backlog lasts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest
from confluent_kafka import Consumer, TopicPartition

from pipeline.messages.records import Outgoing
from tests.kafka import fussy
from tests.kafka.audit import audit_records
from tests.kafka.site import LIMIT_S, QUICK_GROUPS, site_at, until

pytestmark = [pytest.mark.kafka, pytest.mark.pressure]

LAG = re.compile(r"^eddy_consumer_lag_records\{[^}]*\} (\S+)$", re.MULTILINE)
MEGABYTE = 1_000_000
GROWTH_MB = 64.0
"""What an assigner may take for records of a few bytes, however many wait for it."""
LARGE_GROWTH_MB = 450.0
"""And for large ones: a batch and the output made of it, of `batching.max_bytes` (67 MB) each, the
client's queues of as much, and what the allocator keeps."""
BACKLOG = 4_000
"""Records; a fraction of a second's work."""
MAX_REFILLS = 20
SMALL_BATCHES = ("--set", "batching.max_records=50")
"""So that a backlog lasts for longer than the gauges rest."""
JSON = (("content-type", b"application/json"),)


class Watched:
    """An assigner, and the most that was seen of its memory and of its lag."""

    def __init__(self, site, *words, via=None):
        self.site = site
        self.process = site.start(*words, "assigner", via=via)
        self.process.says("restore_finished")
        (started,) = self.process.events("service_started")
        self.page = f"http://127.0.0.1:{started['metrics_port']}/metrics"
        self.base_mb, self.peak_mb, self.peak_lag = self.resident_mb, 0.0, 0.0

    @property
    def resident_mb(self):
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024 / MEGABYTE

    @property
    def lag(self):
        with urlopen(self.page, timeout=LIMIT_S) as answer:
            return sum(map(float, LAG.findall(answer.read().decode())))

    def look(self):
        self.peak_mb = max(self.peak_mb, self.resident_mb)
        self.peak_lag = max(self.peak_lag, self.lag)

    def finish(self):
        """As `calm`, and the topics are right: the number of events."""
        self.calm()
        return audit_records(self.site)

    def calm(self, *, growth_mb=GROWTH_MB):
        """All is applied, the gauge says so, the memory held."""
        self.site.wait_until_applied(tending=self.look)
        until(lambda: self.lag == 0.0, "no lag")
        assert not self.process.has_ended, self.process.said
        grown_mb = self.peak_mb - self.base_mb
        assert grown_mb < growth_mb


@pytest.fixture
def site(kafka_cluster, tmp_path):
    """Topics and a model of two clusters, at 1 and -1 of the first axis."""
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, QUICK_GROUPS) as site:
        site.create_topics()
        site.publish_model()
        yield site


def flips(site, numbers, *, n_items):
    """Records of so many items, every one in the other cluster than the one before."""
    return [site.upsert(i % n_items, [1.0 - 2.0 * (i // n_items % 2), 0, 0, 0]) for i in numbers]


def test_a_burst_of_a_hundredfold_is_a_lag_for_a_while(site):
    watched = Watched(site, "--set", "batching.max_records=50")
    for n in range(5):
        site.write(flips(site, range(40 * n, 40 * n + 40), n_items=200))

    site.write(flips(site, range(200, 5_200), n_items=200))

    assert watched.finish() == 5_200
    assert watched.peak_lag > 1000


def test_a_partition_a_thousand_times_hotter_does_not_hold_up_the_other(site):
    """A record waits for no more than what lay there before it, at the pace of this machine."""
    n_cold = 15
    watched = Watched(site)
    cold, hot = site.broker.producer(), Hot(site)
    with closing(follower(site, partition=1)) as rows, site.lagging() as behind:
        idle_s = statistics.median(seconds_to_row(site, cold, rows, n) for n in range(5))
        hot.write(1000 * n_cold)
        began, busy_s, waiting = time.monotonic(), [], []
        for n in range(n_cold):
            watched.look()
            waiting.append(hot.keep_behind(behind))
            busy_s.append(seconds_to_row(site, cold, rows, n))
        until(lambda: (left := behind()) is not None and not left[0], "the hot ones are through")
        per_second = hot.n_written / (time.monotonic() - began)

    watched.calm()
    verified = site.run("verify")
    assert verified.returncode == 0, verified.stdout
    spare_s = [s - idle_s - n / per_second for s, n in zip(busy_s, waiting, strict=True)]
    assert statistics.median(spare_s) < 0.5
    assert max(spare_s) < 2.0


class Hot:
    """Writes to partition 0, so much that the assigner does not come to its end."""

    def __init__(self, site):
        self.site, self.producer, self.n_written = site, site.broker.producer(), 0

    def write(self, n):
        numbers = range(2 * self.n_written, 2 * (self.n_written + n), 2)
        for record in flips(self.site, numbers, n_items=2000):
            self.producer.write(record)
        self.producer.flush()
        self.n_written += n

    def keep_behind(self, behind):
        """How many wait when this returns, seen by the positions: half of `BACKLOG` at least."""
        for _ in range(MAX_REFILLS):
            left = behind()
            if left is not None and left[0] >= BACKLOG // 2:
                return left[0]
            self.write(BACKLOG)
        raise AssertionError("the assigner is faster than who writes")


def follower(site, partition):
    """Who reads the assignments of one partition as they come."""
    settings = {
        "bootstrap.servers": site.bootstrap,
        "group.id": "follower",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 10,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(site.topics.assignments, partition, 0)])
    return consumer


def seconds_to_row(site, producer, rows, n):
    began = time.monotonic()
    producer.write(site.upsert(1, [1.0, 0, 0, n]))
    producer.flush()
    while time.monotonic() - began < LIMIT_S:
        message = rows.poll(0.1)
        if message is not None and message.error() is None:
            return time.monotonic() - began
    raise AssertionError("no assignment of a record")


def test_an_item_that_changes_ten_thousand_times_has_ten_thousand_events_in_a_chain(site):
    watched = Watched(site, *SMALL_BATCHES)

    site.write(flips(site, range(10_000), n_items=1))

    assert watched.finish() == 10_000
    chain = [event["to"] for event in site.values(site.topics.changes)]
    assert chain == ["c1", "c2"] * 5000


LARGE = {"limits.max_record_bytes": 900_000, **QUICK_GROUPS}


def test_values_of_a_megabyte_stay_within_a_bound_in_bytes(kafka_cluster, tmp_path):
    text = json.dumps({"vector": [1.0, 0.0, 0.0, 0.0]}).encode()
    values = {
        "good": text[:-1] + b" " * (800_000 - len(text)) + b"}",
        "torn": text[:-1] + b" " * (800_000 - len(text)) + b"]",  # a dead letter, as it stands
        "vast": text[:-1] + b" " * (MEGABYTE - len(text)) + b"}",  # one without its value
    }
    n_each = 80
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, LARGE) as site:
        site.create_topics()
        site.publish_model()
        watched = Watched(site)
        watched.process.process.send_signal(signal.SIGSTOP)
        for name, value in values.items():
            site.write(
                [
                    Outgoing(site.topics.input, n % 2, f"{name}-{n}".encode(), value, JSON)
                    for n in range(n_each)
                ]
            )
        watched.process.process.send_signal(signal.SIGCONT)

        watched.calm(growth_mb=LARGE_GROWTH_MB)

        verified = site.run("verify")
        assert verified.returncode == 0, verified.stdout
        assert len(site.values(site.topics.changes)) == n_each
        letters = [r for records in site.committed(site.topics.dead_letters) for r in records]
        assert len(letters) == 2 * n_each
        assert sum(letter.value is None for letter in letters) == n_each


def test_nothing_but_dead_letters_goes_on_like_anything_else(site):
    n_bad = 10_000
    watched = Watched(site, *SMALL_BATCHES)

    site.write([Outgoing(site.topics.input, n % 2, b"a", b"%d" % n) for n in range(n_bad)])

    assert watched.finish() == 0
    assert sum(map(len, site.committed(site.topics.dead_letters))) == n_bad
    assert len(watched.process.events("record_dead")) < 20, "a line for each would fill a disk"
    site.write([site.upsert(0, [1.0, 0, 0, 0])])
    assert watched.finish() == 1


def test_an_output_that_stands_still_for_seconds_holds_everything_and_loses_nothing(
    own_broker, tmp_path
):
    with site_at(own_broker.bootstrap_servers, tmp_path, QUICK_GROUPS) as site:
        site.create_topics()
        site.publish_model()
        watched = Watched(site, "--set", "batching.max_records=50")
        site.write(flips(site, range(6000), n_items=500))
        until(lambda: site.committed(site.topics.changes)[0], "the first events")

        os.kill(own_broker.pid, signal.SIGSTOP)
        still_until = time.monotonic() + 5.0  # beyond the session of the group
        until(lambda: watched.look() or time.monotonic() > still_until, "it stood still")
        os.kill(own_broker.pid, signal.SIGCONT)

        assert watched.finish() == 6000


def test_a_full_queue_of_the_producer_makes_the_batch_wait(site):
    watched = Watched(
        site, *SMALL_BATCHES, "--set", "kafka.producer.queue.buffering.max.messages=20"
    )

    site.write(flips(site, range(4000), n_items=100))

    assert watched.finish() == 4000


def test_a_poison_record_at_the_end_of_a_full_batch_costs_a_few_calls(site):
    site.write(flips(site, range(0, 8000, 2), n_items=4000))
    site.write([site.upsert(0, [fussy.UNLUCKY, 0, 0, 0], item="poison")])
    site.write(flips(site, range(0, 200, 2), n_items=4000))

    watched = Watched(site, via=[sys.executable, fussy.__file__])
    site.wait_until_applied()

    verified = site.run("verify")
    assert verified.returncode == 0, verified.stdout
    (letter,) = [r for records in site.committed(site.topics.dead_letters) for r in records]
    assert letter.key == b"poison"
    # at most 4000 records in a batch: halved twelve times
    assert 1 <= watched.process.said.count(fussy.SIGH) <= 13
