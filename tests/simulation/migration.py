"""A world in which another embedding model takes over, and who then says which records count.

Where in a partition it took over is a matter of timing; the dead letters tell: from there on
records of the old model are some.
"""

from __future__ import annotations

import itertools
import json
import struct

import numpy as np

from pipeline.cli.verify import verify as verify_topics
from pipeline.messages.codec import encode_vector
from pipeline.messages.policy import EmbeddingPolicy, NextEmbedding
from tests.simulation import judge as judges
from tests.simulation.world import N_DIMS, World

OLD, NEW = "old", "new"
N_NEXT_DIMS = 2


class MigrationWorld(World):
    """What `World` does; users go over to vectors of another model, item by item."""

    def __init__(self, seed, *, n_next_dims=N_NEXT_DIMS, share=0.8, **settings):
        super().__init__(seed, **settings)
        metric = self.embedding.metric
        self.embedding = EmbeddingPolicy(
            dimensions=N_DIMS, metric=metric, model=OLD,
            next=NextEmbedding(NEW, n_next_dims, share), dtype=self.embedding.dtype,
        )  # fmt: skip
        self.n_next_dims = n_next_dims
        self.share_of_new = 0.0
        """Of the records that users write."""
        self.next_sequences = {}
        self.reference = live_items

    def write(self, n=1):
        for _ in range(n):
            if self.rng.random() < self.share_of_new:
                self._write_next(f"item-{self.rng.integers(25)}")
            else:
                super().write()

    def _write_next(self, item):
        kind = self.rng.choice(["write", "numbered", "stale", "bad"], p=[0.5, 0.3, 0.1, 0.1])
        vector = self.rng.integers(-3, 4, self.n_next_dims).astype(np.float32)
        vector[0] += 0.5
        vector *= self.unit
        sequence = 0
        if kind == "numbered":
            sequence = self.next_sequences[item] = self.next_sequences.get(item, 0) + 1
        elif kind == "stale":
            sequence = max(1, self.next_sequences.get(item, 0))
            self.next_sequences.setdefault(item, sequence)
        value = b"EDV1" if kind == "bad" else encode_vector(vector, sequence)
        metadata = json.dumps({"kind": f"next {kind}"}).encode()
        headers = (("embedding-model", NEW.encode()), ("eddy-metadata", metadata))
        partition = int(item.split("-")[1]) % self.topics.partitions
        self.now_s += 0.01
        self.broker.append(
            self.topics.input, partition, item.encode(), value, headers, self._time_ms()
        )

    def write_all_next(self):
        """A good vector of the new model for every item."""
        for n in range(25):
            vector = self.rng.integers(-3, 4, self.n_next_dims).astype(np.float32)
            vector[0] += 0.5
            vector *= self.unit
            self.next_sequences.pop(f"item-{n}", None)
            self.broker.append(
                self.topics.input, n % self.topics.partitions, b"item-%d" % n,
                encode_vector(vector), (("embedding-model", NEW.encode()),), self._time_ms(),
            )  # fmt: skip

    @property
    def manifest(self):
        return judges.newest_model(self)[2]

    @property
    def has_changed(self):
        return "embedding_since" in self.manifest

    def publish_change(self, n_turns=400):
        """The reclusterer works alone until the new model stands, crashes and all."""
        for _ in range(n_turns):
            self.now_s += 0.5
            self.turn_reclusterer()
            model = self.reclusterer.model
            if model is not None and model.manifest.embedding_since is not None:
                return
        raise AssertionError("the new model does not take over")

    def speak_new(self):
        """The configuration after the change, and every process started again with it."""
        self.embedding = EmbeddingPolicy(
            dimensions=self.n_next_dims,
            metric=self.embedding.metric,
            model=NEW,
            dtype=self.embedding.dtype,
        )
        for instance in sorted(self.assigners):
            self.start_assigner(instance)
        self.start_reclusterer()


# --- who is where ---------------------------------------------------------------------------------


def letters(world, p):
    """Offset -> reason, of the dead letters."""
    found = {}
    for record in world.committed(world.topics.dead_letters)[p]:
        headers = dict(record.headers)
        offset = int(headers["eddy.errors.offset"])
        assert offset not in found, f"two dead letters of {offset}"
        found[offset] = headers["eddy.errors.exception.class.name"].decode()
    return found


def is_next(record):
    return dict(record.headers).get("embedding-model") == NEW.encode()


def changed_at(world, records, p):
    """The first offset at which records of the old model are refused; None: none was."""
    told = letters(world, p)
    refused = [
        r.offset
        for r in records
        if r.value is not None and not is_next(r) and told.get(r.offset) == "embedding_model"
    ]
    return min(refused, default=None)


def played(world, records, p, until=None):
    """(items by the old model, by the new one), each item -> (offset, vector, sequence).

    And the offsets that have to be dead letters.
    """
    n_next_dims = world.n_next_dims
    end = changed_at(world, records, p)
    old, new, bad = {}, {}, []
    for record in records:
        if until is not None and record.offset >= until:
            break
        key = record.key.decode()
        if record.value is None:
            old.pop(key, None)
            new.pop(key, None)
            continue
        theirs = is_next(record)
        if not theirs and end is not None and record.offset >= end:
            bad.append(record.offset)
            continue
        found = judges.vector_of(record, n_next_dims if theirs else N_DIMS)
        if found is None:
            bad.append(record.offset)
            continue
        vector, sequence = found
        mine = new if theirs else old
        if key in mine and 0 < sequence <= mine[key][2]:
            continue
        mine[key] = (record.offset, judges.stored(vector, world.embedding), sequence)
        if not theirs:
            new.pop(key, None)
    return old, new, bad


def live_items(world, records, p):
    """Item -> (offset, vector) of the record that counts."""
    old, new, _ = played(world, records, p)
    return {k: v[:2] for k, v in (new if world.has_changed else old).items()}


# --- the verdict ----------------------------------------------------------------------------------


def check_dead_letters(world, inputs):
    for p in range(world.topics.partitions):
        _, _, bad = played(world, inputs[p], p)
        assert sorted(letters(world, p)) == bad, f"partition {p}: dead letters"


def check_no_gap(world, inputs):
    """Nobody who had a vector of the new model when it took over was removed by it."""
    for p, records in enumerate(world.committed(world.topics.changes)):
        end = changed_at(world, inputs[p], p)
        told = letters(world, p)
        applied = [
            r.offset
            for r in inputs[p]
            if r.value is not None and not is_next(r) and r.offset not in told
            and (end is None or r.offset < end)
        ]  # fmt: skip
        # it took over after the last record of the old model that was none
        _, early, _ = played(world, inputs[p], p, until=max(applied, default=-1) + 1)
        _, late, _ = played(world, inputs[p], p, until=end)
        safe = {k for k in early if late.get(k) is not None}
        for record in records:
            event = json.loads(record.value)
            if event["cause"] == "model" and event["to"] is None:
                gone = any(r.value is None and r.key.decode() == event["item"] for r in inputs[p])
                assert event["item"] not in safe or gone, f"{event['id']}: it had a vector"


def check_vectors(world, inputs):
    """`item-vectors` holds nothing that is not true, and all that compaction will take."""
    for p, records in enumerate(world.committed(world.topics.vectors)):
        newest = {r.key: r for r in records}
        rows = {key: r for key, r in newest.items() if r.value is not None}
        old, new, _ = played(world, inputs[p], p)
        standing = new if world.has_changed else old
        for key, record in rows.items():
            is_waiting = key.startswith(b"\xff")
            item = key.removeprefix(b"\xff").decode()
            known = new if is_waiting else standing
            assert not (is_waiting and world.has_changed), f"{item} has arrived"
            assert item in known, f"{item} is gone, but its vector is still kept"
            offset, vector, sequence = known[item]
            n_dims = len(vector)
            assert np.frombuffer(record.value, "<f4", n_dims, 20).tobytes() == vector.tobytes()
            assert struct.unpack_from("<Q", record.value, 12)[0] == sequence
            headers = dict(record.headers)
            if is_waiting:
                assert headers["eddy-offset"] == b"%d" % offset
            named = headers.get("embedding-model")
            assert named == (NEW.encode() if is_waiting or world.has_changed else None)
        last = {r.key.decode(): r.offset for r in inputs[p]}
        for item, (offset, _, _) in standing.items():
            if last[item] != offset:
                assert item.encode() in rows, f"{item}: compaction will take its vector"
        if not world.has_changed:
            for item, (offset, _, _) in new.items():
                if last[item] != offset:
                    assert b"\xff" + item.encode() in rows, f"{item}: and that of the next model"


def check_change(world):
    """The change is an epoch, told once, and nothing of the old model is left."""
    (records,) = world.committed(world.topics.lifecycle)
    told = [json.loads(r.value) for r in records]
    changes = [e for e in told if e["type"] == "installed" and e["reason"] == "embedding"]
    since = world.manifest["embedding_since"]
    assert [e["model"]["epoch"] for e in changes] == [since]
    assert world.manifest["embedding_model"] == NEW
    assert world.manifest["dimensions"] == world.n_next_dims
    for p in range(world.topics.partitions):
        for key, row in judges.assigned(world, p).items():
            assert row["model"]["epoch"] >= since, f"{key} stands by the old model"


def verify(world):
    """What `eddy verify` says, with the configuration that the processes have."""
    moments = itertools.count()
    report = verify_topics(
        world.broker, world.topics, world.embedding, world.limits, group_id="t.assigner",
        timeout_s=1.0, clock=lambda: next(moments) / 100, sleep=lambda _: None,
    )  # fmt: skip
    assert report.ok, [
        report.problem, report.reasons, [(t.name, t.examples) for t in report.checks if t.n_broken]
    ]  # fmt: skip


def assigned_items(world, records, p):
    """`live_items` where the cleaner may have taken good rows unread: as the assignments say.

    But what stands last and is surely good counts, and what was removed last is gone.
    """
    at, last = {r.offset: r for r in records}, {r.key.decode(): r for r in records}
    found = {}
    for item, row in judges.assigned(world, p).items():
        record = at[row["source"]["offset"]]
        assert is_next(record), f"{item} stands by the old model"
        vector, _ = judges.vector_of(record, world.n_next_dims)
        found[item] = (record.offset, judges.stored(vector, world.embedding))
    for item, record in last.items():
        vector = None
        if record.value is not None and is_next(record):
            vector = judges.vector_of(record, world.n_next_dims)
        if record.value is None:
            assert item not in found, f"{item} was removed"
        elif vector is not None and vector[1] == 0:
            assert found[item][0] == record.offset, f"{item} has a newer vector"
    return found


def judge_unread(world, inputs):
    """What can be said after the change, where good rows were taken unread."""
    world.reference = assigned_items
    world.embedding = EmbeddingPolicy(
        dimensions=world.n_next_dims, metric=world.embedding.metric, model=NEW,
        dtype=world.embedding.dtype,
    )  # fmt: skip
    check_change(world)
    judges.check_schemas(world)
    judges.check_assignments(world, inputs)
    judges.check_events(world, inputs)
    judges.check_statistics(world, inputs)
    judges.check_lineage(world)
    for p, records in enumerate(world.committed(world.topics.vectors)):
        values = {r.key: r.value for r in records}
        left = {key.decode("latin-1") for key, value in values.items() if value is not None}
        assert left <= judges.assigned(world, p).keys(), "a vector of nobody"


def judge(world, inputs):
    """All of it, before the change or after it."""
    verify(world)
    configured = world.embedding
    if world.has_changed:
        world.embedding = EmbeddingPolicy(
            dimensions=world.n_next_dims, metric=configured.metric, model=NEW,
            dtype=configured.dtype,
        )  # fmt: skip
        check_change(world)
    judges.check_schemas(world)
    judges.check_assignments(world, inputs)
    judges.check_events(world, inputs)
    check_dead_letters(world, inputs)
    check_vectors(world, inputs)
    if world.has_changed:
        check_no_gap(world, inputs)
    judges.check_statistics(world, inputs)
    if world.follows:
        judges.check_centroids(world, inputs)
    judges.check_lineage(world)
    world.embedding = configured
