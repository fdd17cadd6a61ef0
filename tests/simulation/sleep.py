"""A world in which processes sleep inside their commits, and markers are late.

Both are what the two barriers of a restore are for: a commit that ends after its partitions were
given away, and one that is decided in one topic before it is in another.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pipeline.messages.codec import encode_vector
from pipeline.streams.memory import Stage
from tests.simulation.world import N_DIMS, World

N_ITEMS = 25
A_BATCH = 1000
"""More records than any transaction has: all of them leave the producer after the offsets."""


class SleepyWorld(World):
    """What `World` does, and the two faults that only a restore can suffer from."""

    def __init__(self, seed, **settings):
        super().__init__(seed, **settings)
        self.slept = Counter()
        """How often, by the stage of the commit."""

    def _something(self):
        fate = self.rng.random()
        if fate < 0.08:
            self.sleep_in_commit(
                str(self.rng.choice(sorted(self.assigners))),
                Stage(self.rng.choice([Stage.WRITTEN, Stage.OFFSETS_SENT, Stage.ENDED])),
                n_queued=int(self.rng.choice([0, 1, 3, A_BATCH])),
            )
        elif fate < 0.16:
            self.delay_markers(str(self.rng.choice(sorted(self.assigners))))
        else:
            super()._something()

    # --- one that sleeps ------------------------------------------------------------

    def sleep_in_commit(self, instance, stage, *, n_queued=0, n_turns=8):
        """A turn in which the next commit lasts longer than the session: others take over."""
        self.write(int(self.rng.integers(1, 8)))
        sleeper = self.streams[instance][-1]

        def between(reached, stream):
            if reached is stage and stream is sleeper:
                self.broker.between = None  # the others' commits are quick
                self.slept[stage] += 1
                self.broker.expire_session(sleeper)
                self.turn_others(instance, n_turns)

        self.broker.between, self.broker.n_queued = between, n_queued
        self.turn(instance)
        self.broker.between, self.broker.n_queued = None, 0

    def turn_others(self, instance, n_turns):
        """The others' turns; the clock goes on."""
        others = [other for other in sorted(self.assigners) if other != instance]
        for _ in range(n_turns):
            for other in others:
                self.now_s += 0.1
                self.turn(other)

    # --- markers that are late ------------------------------------------------------

    def delay_markers(self, instance, *, n_turns=12):
        """One commits and dies; the offsets show it before the changelogs do."""
        self.write(int(self.rng.integers(1, 8)))
        changelogs = (self.topics.assignments, self.topics.vectors, self.topics.statistics)
        for topic in changelogs:
            for partition in range(self.topics.partitions):
                self.broker.hold_markers(topic, partition)
        self.turn(instance)
        self.broker.crash(self.streams[instance][-1])
        self.broker.expire_session(self.streams[instance][-1])
        self.turn_others(instance, n_turns)
        for topic in changelogs:
            self.broker.release_markers(topic)
        self.turn_others(instance, 1)
        self.start_assigner(instance)

    # --- the end --------------------------------------------------------------------

    def touch_every_item(self):
        """One more record for each: wrong memory shows in what happens to an item next."""
        for n in range(N_ITEMS):
            vector = self.rng.integers(-3, 4, N_DIMS).astype(np.float32)
            self.sequences.pop(f"item-{n}", None)
            self.broker.append(
                self.topics.input, n % self.topics.partitions, b"item-%d" % n,
                encode_vector(vector), (), int(self.now_s * 1000),
            )  # fmt: skip


class EarlyReader:
    """What was read before, as if it were read now."""

    def __init__(self, records, rest):
        self._records, self._rest = records, rest

    def read(self, max_records, *, timeout_s):
        if self._records:
            records, self._records = self._records, []
            return records
        return self._rest.read(max_records, timeout_s=timeout_s) if self._rest else []

    @property
    def at_end(self):
        return not self._records and (self._rest is None or self._rest.at_end)

    @property
    def positions(self):
        return self._rest.positions if self._rest else {}

    def close(self):
        if self._rest:
            self._rest.close()


class ReadsChangelogsFirst:
    """Control, broker and stream of one process: barrier 2 before barrier 1.

    A partition's changelogs are read, to the end that they have, as soon as the partition is ours;
    its committed offset is asked for after that.
    """

    def __init__(self, broker, stream, topics):
        self._broker, self._stream = broker, stream
        self._changelogs = (topics.assignments, topics.vectors, topics.statistics)
        self._read = {}

    def __getattr__(self, name):
        return getattr(self._stream if hasattr(self._stream, name) else self._broker, name)

    def poll(self, max_records, *, timeout_s, max_bytes=None):
        polled = self._stream.poll(max_records, timeout_s=timeout_s, max_bytes=max_bytes)
        owned, told = self._stream.member.owned, self._stream.member.told
        self._read = {place: read for place, read in self._read.items() if place[1] in owned}
        for partition in owned - told:
            if (self._changelogs[0], partition) not in self._read:
                self._read_now(partition)
        return polled

    def _read_now(self, partition):
        """All changelogs of a partition, unless something of them is undecided."""
        found = {}
        for topic in self._changelogs:
            reader = self._broker.reader(topic, {partition: 0})
            records = []
            while batch := reader.read(1000, timeout_s=0.0):
                records += batch
            if not reader.at_end:
                return  # it waits for the end that it saw, as it should
            found[topic, partition] = records
        self._read |= found

    def reader(self, topic, starts=None):
        if topic not in self._changelogs:
            return self._broker.reader(topic, starts)
        early = {p: self._read.pop((topic, p)) for p in starts if (topic, p) in self._read}
        late = {p: at for p, at in starts.items() if p not in early}
        rest = self._broker.reader(topic, late) if late else None
        return EarlyReader([r for records in early.values() for r in records], rest)


class StopsAtTheFirstEnd:
    """Control, a broker: a reader of changelogs that takes "nothing more now" for the end."""

    def __init__(self, broker, topics):
        self._broker = broker
        self._changelogs = (topics.assignments, topics.vectors, topics.statistics)

    def __getattr__(self, name):
        return getattr(self._broker, name)

    def reader(self, topic, starts=None):
        reader = self._broker.reader(topic, starts)
        return Hasty(reader) if topic in self._changelogs else reader


class Hasty:
    def __init__(self, reader):
        self._reader = reader
        self.at_end = reader.at_end

    @property
    def positions(self):
        return self._reader.positions

    def read(self, max_records, *, timeout_s):
        records = self._reader.read(max_records, timeout_s=timeout_s)
        self.at_end = not records
        return records

    def close(self):
        self._reader.close()


def have_a_sweep_come_first(world):
    """An epoch that moves half of the largest cluster's items, and no record before its sweep."""
    model = world.reclusterer.model
    largest = model.manifest.clusters[int(model.counts.argmax())]
    world.command("split", cluster=largest)  # moves half of its items
    while world.reclusterer.model.manifest.epoch == model.manifest.epoch:
        world.now_s += 0.1
        world.turn_reclusterer()
    world.write = lambda n=1: None  # the first that the sleeper does is to sweep
