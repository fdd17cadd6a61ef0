"""An Eddy of real processes on a real broker, and what an outsider reads from its topics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.config import load
from pipeline.messages.codec import encode_vector
from pipeline.messages.model import N_QUANTILES, Manifest, Model, digest, model_records
from pipeline.messages.records import Outgoing, Record
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.topics import expected_topics

LIMIT_S = 60.0
"""For what takes a second on a machine that has nothing else to do."""

QUICK_GROUPS = {
    "kafka.consumer.session.timeout.ms": "3000",
    "kafka.consumer.heartbeat.interval.ms": "300",
}
"""A member that is gone is missed soon."""


def environment() -> dict[str, str]:
    """This one's, without what is set for other tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EDDY_")}


def until(is_so: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.05)


class Process:
    """A command of ``eddy`` that runs beside the test; its output lies in a file."""

    def __init__(self, command: list[str], output: Path) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment())

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, object]]:
        """Its log lines of one kind."""
        lines = [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def says(self, name: str, limit_s: float = LIMIT_S) -> None:
        """Wait for a log line; the process has to live until then."""
        until(lambda: self.events(name) or self.has_ended, f"{name} from {self.said}", limit_s)
        assert self.events(name), self.said

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def ends(self, limit_s: float = LIMIT_S) -> int:
        """Wait for its end; the exit code."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.said}") from None

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ends()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Site:
    """Names of its own on a broker; implements what `tests.simulation.judge` asks of a world."""

    compacts_unread = False
    n_commands = 0
    reference = None

    def __init__(self, bootstrap: str, folder: Path, settings: Mapping[str, object]) -> None:
        run = uuid.uuid4().hex[:8]
        self.bootstrap, self.folder = bootstrap, folder
        given = {
            "kafka.bootstrap.servers": bootstrap,
            "topics.input": f"in-{run}",
            "topics.prefix": f"t{run}.",
            "topics.partitions": 2,
            "embedding.dimensions": 4,
            "clustering.clusters": 2,
            "device.kind": "cpu",
            "device.threads": 1,
            "telemetry.metrics_port": 0,
            "telemetry.log_format": "json",
            **settings,
        }
        self.file = folder / f"eddy-{run}.yaml"
        # JSON is YAML, and a key with points in it is a path
        tree: dict[str, dict[str, object]] = {}
        for key, value in given.items():
            section, _, name = key.partition(".")
            tree.setdefault(section, {})[name] = value
        self.file.write_text(json.dumps(tree))
        self.config = load(self.file, {}).config
        self.topics, self.embedding = self.config.topics, self.config.embedding
        self.broker = KafkaBroker({"bootstrap.servers": bootstrap})
        self._running: list[Process] = []

    # --- what runs ------------------------------------------------------------------

    @property
    def flags(self) -> list[str]:
        # over the environment, which children of `Services` inherit
        bootstrap = f"kafka.bootstrap.servers={self.bootstrap}"
        return ["--config", str(self.file), "--set", bootstrap]

    def start(self, *words: str, via: list[str] | None = None) -> Process:
        """A command that goes on; it ends with the test."""
        command = [*(via or [sys.executable, "-m", "pipeline.cli.main"]), *self.flags, *words]
        output = self.folder / f"{len(self._running)}-{words[-1]}.log"
        self._running.append(Process(command, output))
        return self._running[-1]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        command = [sys.executable, "-m", "pipeline.cli.main", *self.flags, *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment(), timeout=180, check=False
        )

    def close(self) -> None:
        for process in self._running:
            process.kill()

    # --- what others write ----------------------------------------------------------

    def create_topics(self) -> None:
        self.broker.create_topics(
            expected_topics(self.topics, self.config.limits.max_record_bytes),
            replication_factor=self.topics.replication_factor,
        )

    def write(self, records: list[Outgoing]) -> None:
        producer = self.broker.producer()
        for record in records:
            producer.write(record)
        producer.flush()

    def upsert(self, n: int, vector: list[float], *, item: str | None = None) -> Outgoing:
        """A good record for an item; its partition is that of its number."""
        key = (item or f"item-{n}").encode()
        value = encode_vector(np.array(vector, np.float32))
        return Outgoing(self.topics.input, n % self.topics.partitions, key, value)

    def publish_model(self) -> None:
        """Two clusters, at 1 and -1 of the first axis: nobody has to wait for a reclusterer."""
        centroids = np.zeros((2, self.embedding.dimensions), np.float32)
        centroids[:, 0] = [1.0, -1.0]
        manifest = Manifest(
            epoch=1, revision=0, metric=self.embedding.metric,
            dimensions=self.embedding.dimensions, embedding_model=self.embedding.model,
            clusters=("c1", "c2"),
            max_component=self.embedding.largest_component, input_policy="compact",
            digest=digest(centroids), next_cluster_number=3, fitted_items=2, fitted_inertia=1.0,
            fitted_offsets=(0,) * self.topics.partitions, created_at_ms=1_772_366_400_000,
        )  # fmt: skip
        ones, quantiles = np.ones(2), np.ones((2, N_QUANTILES), np.float32)
        model = Model(manifest, centroids, np.ones(2, np.int64), ones, ones, quantiles, centroids)
        self.write(list(model_records(model, self.topics.model, previous=None, drop=[])))

    # --- what an outsider reads -----------------------------------------------------

    def committed(self, topic: str) -> list[list[Record]]:
        """All records of a topic at read_committed, partition by partition."""
        settings = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "audit",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,  # the end of an empty partition is told after so long
        }
        with closing(Consumer(settings)) as consumer:
            n = len(consumer.list_topics(topic, timeout=LIMIT_S).topics[topic].partitions)
            found: list[list[Record]] = [[] for _ in range(n)]
            consumer.assign([TopicPartition(topic, p, 0) for p in range(n)])
            left, deadline = set(range(n)), time.monotonic() + LIMIT_S
            while left:
                assert time.monotonic() < deadline, f"{topic} does not come to an end"
                for message in consumer.consume(1000, 0.1):
                    p = message.partition()
                    if message.error() is None:
                        found[p].append(
                            Record(p, message.offset(), message.key(), message.value(),
                                   message.timestamp()[1], tuple(message.headers() or ()))
                        )  # fmt: skip
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        left.discard(p)
        return found

    def values(self, topic: str) -> list[dict[str, object]]:
        """The JSON values of a topic."""
        return [
            json.loads(r.value) for records in self.committed(topic) for r in records if r.value
        ]

    @contextmanager
    def lagging(
        self, isolation: str = "read_uncommitted"
    ) -> Iterator[Callable[[], list[int] | None]]:
        """What tells, per partition, how many records of the input the group has yet to apply.

        By positions, not by a gauge, which may rest for longer than a backlog lasts. At
        `read_committed` it waits for open transactions. None: the broker does not answer in time.
        """
        settings = {
            "bootstrap.servers": self.bootstrap,
            "group.id": f"{self.topics.prefix}assigner",
            "isolation.level": isolation,
        }
        places = [TopicPartition(self.topics.input, p) for p in range(self.topics.partitions)]
        with closing(Consumer(settings)) as nobody:

            def behind() -> list[int] | None:
                try:
                    found = nobody.committed(places, timeout=2.0)
                    ends = [nobody.get_watermark_offsets(p, timeout=2.0)[1] for p in places]
                except KafkaException:
                    return None
                return [end - max(p.offset, 0) for p, end in zip(found, ends, strict=True)]

            yield behind

    def wait_until_applied(
        self, limit_s: float = LIMIT_S, *, tending: Callable[[], None] = lambda: None
    ) -> None:
        """Until the group has committed the end of the input."""
        with self.lagging("read_committed") as behind:

            def is_applied() -> bool:
                tending()
                left = behind()
                return left is not None and not any(left)

            until(is_applied, "all of the input is applied", limit_s)


@contextmanager
def site_at(
    bootstrap: str, folder: Path, settings: Mapping[str, object] | None = None
) -> Iterator[Site]:
    """A site whose processes end with the test; no topics yet."""
    site = Site(bootstrap, folder, settings or {})
    try:
        yield site
    finally:
        site.close()
