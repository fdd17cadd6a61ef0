"""A small world on the in-memory broker: users who write, services that work, faults from a seed.

One thread and no clock but a counter, so a seed replays a history step by step.
"""

from __future__ import annotations

import json

import numpy as np

from benchmarks._inprocess import Inline
from pipeline.batching import BatchPolicy
from pipeline.clustering.centroids import CentroidPolicy
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.kmeans import ClusteringPolicy
from pipeline.clustering.schedule import ReclusterPolicy
from pipeline.engine.cluster_engine import ClusterEngine
from pipeline.engine.setting import EngineSettings
from pipeline.errors import FatalError, TransientError
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import encode_vector
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.services.assigner.pace import SlicePace
from pipeline.services.assigner.process import Assigner
from pipeline.services.assigner.reports import AssignerReports
from pipeline.services.reclusterer.process import Reclusterer, ReclustererSettings
from pipeline.services.reclusterer.reports import ReclustererReports
from pipeline.streams.contract import GroupMember
from pipeline.streams.memory import Fault, MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics, keeps_vectors
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

N_DIMS = 3
KERNELS = CpuKernels(threads=1)


CLOCK_JUMPS_S = (-86_400.0, -60.0, 0.0, 0.0, 60.0, 86_400.0)
TOMBSTONE_S = 10.0
"""What `delete.retention.ms` is here: a tombstone that a cleaning has met so long ago may go."""


class Crash(BaseException):
    """The process ends here and now."""


class Noting(AssignerReports):
    """Keeps what an assigner finds wrong in its own state."""

    def __init__(self, violations):
        super().__init__(
            get_logger(), Metrics("assigner"), Health("assigner", poll_timeout_s=1), kernel="cpu"
        )
        self.violations = violations

    def violated(self, violation, engine):
        self.violations.append(violation)


class World:
    """Broker, topics, a group of assigners and a reclusterer; ``rng`` decides what happens."""

    def __init__(
        self,
        seed,
        *,
        compacted=True,
        n_partitions=3,
        n_clusters=4,
        assigner=Assigner,
        metric="euclidean",
        metadata=(),
        min_gain=0.0,
        compacts_unread=False,
        follows=True,
        half_life_s=None,
        recluster=None,
        drift=None,
        dtype="float32",
    ):
        self.rng = np.random.default_rng(seed)
        self.broker = MemoryBroker(
            batch_sizes=lambda: int(self.rng.integers(1, 12)), between=self._maybe_crash
        )
        self.crash_rate = 0.01
        self.topics = TopicPolicy(input="in", prefix="t.", partitions=n_partitions)
        self.embedding = EmbeddingPolicy(dimensions=N_DIMS, metric=metric, dtype=dtype)
        self.unit = np.float32(1 if dtype == "float32" else 1 / 3)
        """Of what users write: whole numbers would not show that they are rounded."""
        self.limits = LimitPolicy()
        self.events = EventPolicy(metadata=metadata)
        self.n_clusters, self.assigner = n_clusters, assigner
        self.follows = follows
        """Whether centroids follow their members between fits."""
        self.half_life_s = half_life_s
        self.recluster = {
            "bootstrap_items": 10,
            "bootstrap_max_wait_s": 5,
            "min_interval_s": 1,
            "max_updates": 10**9,
            "max_age_s": 1e9,
            "min_gain": min_gain,
            "keep_epochs": 2,
            "on_drift": False,
            "max_inertia_growth": None,
            "sample_items": 1000,
        } | (recluster or {})
        self.drift = drift or DriftPolicy(arl0=20, window=20)
        settings = expected_topics(self.topics, self.limits.max_record_bytes)
        if not compacted:
            head = settings[0]
            delete = {**head.config, "cleanup.policy": "delete"}
            settings = (type(head)(head.name, head.n_partitions, delete), *settings[1:])
        self.broker.create_topics(settings)
        self.is_compacted = keeps_vectors(settings[0])
        self.compacts_unread = compacts_unread
        self.now_s = 1_000_000.0
        self.ahead_s = 0.0
        """What a wall clock says too much."""
        self.assigners = {}
        self.streams = {}
        """Slot -> the streams of every process there was in it."""
        self.reclusterer = None
        self.n_commands = 0
        self.sequences = {}
        self.ends = []
        """What processes ended by."""
        self.violations = []
        """What assigners found wrong in their own state, at random; nothing is expected."""
        self.kernels = KERNELS
        self._cleanings = {}
        """When the cleaner ran -> the ends of the logs that it met."""
        self.reference = None
        """Who says which records count, where it takes more to know; None: the judge."""

    # --- processes ------------------------------------------------------------------

    def start_assigner(self, instance):
        """A process in this slot; one that was there before is fenced."""
        engine = ClusterEngine(
            EngineSettings(
                self.topics, self.embedding, self.limits, self.events, self.is_compacted
            ),
            self.kernels,
        )
        member = GroupMember(self.topics.input, "t.assigner", f"t.assigner.{instance}", instance)
        stream = self.broker.stream(member)
        self.streams.setdefault(instance, []).append(stream)
        self.assigners[instance] = self.assigner(
            self.broker,
            stream,
            engine,
            BatchPolicy(max_records=50),
            CentroidPolicy(min_interval_s=2.0, min_updates=5),
            lambda: self.now_s,
            Noting(self.violations),
            SlicePace(n_rows=2, min_rows=1, max_rows=3),
        )

    def start_reclusterer(self):
        """The reclusterer; one that was there before is fenced."""
        settings = ReclustererSettings(
            topics=self.topics,
            embedding=self.embedding,
            limits=self.limits,
            events=self.events,
            clustering=ClusteringPolicy(self.n_clusters, half_life_s=self.half_life_s),
            centroids=CentroidPolicy(enabled=self.follows, min_interval_s=1.0),
            recluster=ReclusterPolicy(**self.recluster),
            drift=self.drift,
            assigner_group="t.assigner",
            input_policy="compact" if self.is_compacted else "delete",
        )
        member = GroupMember(self.topics.commands, "t.reclusterer", "t.reclusterer", "reclusterer")
        reports = ReclustererReports(
            get_logger(), Metrics("reclusterer"), Health("reclusterer", poll_timeout_s=1)
        )
        self.reclusterer = Reclusterer(
            broker=self.broker,
            stream=self.broker.stream(member),
            settings=settings,
            kernels=KERNELS,
            executor=Inline(),
            clock=lambda: self.now_s + self.ahead_s,
            steady=lambda: self.now_s,
            reports=reports,
        )

    def turn(self, instance):
        """One step of an assigner; a process that ends by an error is started again."""
        try:
            self.assigners[instance].step()
        except TransientError:
            pass
        except (FatalError, Crash) as error:
            self.ends.append(error)
            self.start_assigner(instance)

    def turn_reclusterer(self):
        try:
            self.reclusterer.step()
        except TransientError:
            pass
        except (FatalError, Crash) as error:
            self.ends.append(error)
            self.start_reclusterer()

    # --- users ----------------------------------------------------------------------

    def write(self, n=1):
        """Writes, rewrites, tombstones of known and unknown items, stale and broken records."""
        for _ in range(n):
            item = f"item-{self.rng.integers(25)}"
            kinds = ["write", "numbered", "stale", "tombstone", "poison", "short"]
            kind = self.rng.choice(kinds, p=[0.45, 0.2, 0.05, 0.2, 0.05, 0.05])
            partition = int(item.split("-")[1]) % self.topics.partitions
            key, headers = item.encode(), ()
            if kind == "tombstone":
                value = None
                self.sequences.pop(item, None)
            elif kind == "short":
                value = b"EDV1"
            elif kind == "poison":
                value = encode_vector(np.array([np.nan, 0, 0], np.float32))
            else:
                vector = self.rng.integers(-3, 4, N_DIMS).astype(np.float32)  # ties on purpose
                vector[0] += 0.5  # never zero
                vector *= self.unit
                sequence = 0
                if kind == "numbered":
                    sequence = self.sequences[item] = self.sequences.get(item, 0) + 1
                elif kind == "stale":
                    sequence = max(1, self.sequences.get(item, 0))
                    self.sequences.setdefault(item, sequence)
                value = encode_vector(vector, sequence)
                headers = (("eddy-metadata", json.dumps({"kind": str(kind)}).encode()),)
            self.now_s += 0.01
            self.broker.append(self.topics.input, partition, key, value, headers, self._time_ms())

    def _time_ms(self):
        """Of a record; where time matters some are late, ahead of time or have none."""
        now_ms = int(self.now_s * 1000)
        if self.half_life_s is None:
            return now_ms
        off = self.rng.choice([0.0, 0.0, -1.0, -20.0, 5.0, np.nan])
        return (
            -1 if np.isnan(off) else now_ms + int(off * self.half_life_s * self.rng.random() * 1e3)
        )

    def command(self, type="recluster", **fields):
        self.n_commands += 1
        value = json.dumps({"type": type, **fields}).encode()
        self.broker.append(self.topics.commands, 0, b"command-%d" % self.n_commands, value, (), 1)

    def any_command(self):
        """One of all kinds, about clusters and epochs that there are, were or never will be."""
        cluster, other = (f"c{n}" for n in self.rng.choice(12, 2, replace=False) + 1)
        match self.rng.integers(6):
            case 0:
                self.command("split", cluster=cluster)
            case 1:
                self.command("merge", clusters=[cluster, other])
            case 2:
                self.command("rollback", epoch=int(self.rng.integers(1, 6)))
            case 3:
                self.command("label", cluster=cluster, label=f"the {other}")
            case _:
                self.command(force=bool(self.rng.integers(2)), cold=bool(self.rng.integers(2)))

    # --- fate -----------------------------------------------------------------------

    def _maybe_crash(self, _stage, stream):
        """A kill in the middle of a commit: nothing is cleaned up behind it."""
        if self.rng.random() < self.crash_rate:
            self.broker.crash(stream)
            raise Crash

    def live(self, n_steps):
        """Random steps of everybody, with faults."""
        for _ in range(n_steps):
            self.now_s += float(self.rng.random())
            if self.rng.random() < 0.01:
                self.ahead_s = float(self.rng.choice(CLOCK_JUMPS_S))
            self._something()

    def _something(self):
        fate = self.rng.random()
        slots = sorted(self.assigners)
        if fate < 0.25:
            self.write(int(self.rng.integers(1, 8)))
        elif fate < 0.75:
            self.turn(str(self.rng.choice(slots)))
        elif fate < 0.88:
            self.turn_reclusterer()
        elif fate < 0.90:
            self.any_command()
        elif fate < 0.93:
            at = self.broker.n_commits + int(self.rng.integers(3))
            self.broker.faults[at] = self.rng.choice(list(Fault))
        elif fate < 0.95:
            self.start_assigner(str(self.rng.choice(slots)))  # killed, and started again
        elif fate < 0.96:
            self.start_reclusterer()
        elif fate < 0.98:
            self._join_or_leave(slots)
        else:
            self._compact()

    def _join_or_leave(self, slots):
        if len(slots) < 3:
            self.start_assigner(f"a{max(int(s[1:]) for s in slots) + 1}")
        else:
            slot = str(self.rng.choice(slots))
            self.assigners.pop(slot).close()
            for stream in self.streams.pop(slot):  # a static member says no goodbye
                self.broker.expire_session(stream)
            self.broker.expire_transaction(f"t.assigner.{slot}")

    def _compact(self):
        """The cleaner runs. Tombstones outlive a restore, also one of many turns: in days."""
        is_restoring = any(a._restoring is not None for a in self.assigners.values())
        names = (self.topics.assignments, self.topics.statistics, self.topics.vectors)
        old = max((at for at in self._cleanings if at <= self.now_s - TOMBSTONE_S), default=None)
        met = self._cleanings.get(old, {})
        for name in names:
            for partition in range(self.topics.partitions):
                keep = is_restoring or bool(self.rng.integers(2))
                young_from = met.get((name, partition), 0)
                self.broker.compact(name, partition, keep_tombstones=keep, young_from=young_from)
        self._cleanings[self.now_s] = {
            (name, p): log.high for name in names for p, log in self.broker.ranges(name).items()
        }
        self.broker.compact(self.topics.model, 0, keep_tombstones=True)
        if self.is_compacted and self.compacts_unread:
            self._compact_unread()
        elif self.is_compacted:
            self._compact_read()

    def _compact_read(self):
        """Of the input, what every assigner is through with."""
        try:
            committed = self.broker.committed("t.assigner", self.topics.input)
        except TransientError:
            return  # somebody's transaction is open
        for partition, offset in committed.items():
            if offset is not None:
                self.broker.compact(
                    self.topics.input, partition, keep_tombstones=True, before=offset
                )

    def _compact_unread(self):
        """Everybody was down for so long that tombstones went unread: ghosts."""
        for partition in range(self.topics.partitions):
            self.broker.compact(self.topics.input, partition, keep_tombstones=False)
        for instance in sorted(self.assigners):
            self.start_assigner(instance)

    def settle(self, n_rounds=400, *, ahead_s=0.0):
        """Everybody works without faults until there is nothing left to do."""
        self.broker.faults.clear()
        self.crash_rate, self.ahead_s = 0.0, ahead_s
        self.broker.batch_sizes = None
        quiet = 0
        for _ in range(n_rounds):
            self.now_s += 1.0
            before = self.broker.n_commits
            self.turn_reclusterer()
            for instance in sorted(self.assigners):
                self.turn(instance)
            # a slice of a sweep in which nothing moves commits nothing
            is_busy = any(assigner._sweeps() for assigner in self.assigners.values())
            quiet = 0 if is_busy or self.broker.n_commits > before else quiet + 1
            if quiet > 20:
                assert self.violations == []
                return
        raise AssertionError(f"the world does not come to rest: {self.ends[-3:]}")

    # --- what was written -----------------------------------------------------------

    def committed(self, topic):
        """All records of a topic at read_committed, partition by partition."""
        n = self.broker.topics([topic])[topic].n_partitions
        return [self.broker.records(topic, p, committed=True) for p in range(n)]
