"""A partition that is read back is the partition that was left, weights included."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.engine.cluster_engine import ClusterEngine, Restored
from pipeline.engine.setting import EngineSettings
from pipeline.messages.codec import encode_vector
from pipeline.messages.model import model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.services.assigner.restore import Restore
from pipeline.services.reclusterer.sampling import SampleReader
from pipeline.state.members import Members
from pipeline.streams.contract import GroupMember
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics
from tests.engine.house import KERNELS, WEST_EAST, model

T0 = 1_772_366_400_000
GROUP = "t.assigner"


class Site:
    """A broker, and an owner of the one partition whose transactions all succeed."""

    def __init__(self, policy, first):
        self.broker = MemoryBroker()
        self.topics = TopicPolicy(input="in", prefix="t.", partitions=1)
        head, *others = expected_topics(self.topics, 10**6)
        config = {**head.config, "cleanup.policy": policy}
        self.broker.create_topics([dataclasses.replace(head, config=config), *others])
        self.embedding = EmbeddingPolicy(dimensions=2, max_component=256.0)
        self.settings = EngineSettings(
            self.topics, self.embedding, LimitPolicy(), EventPolicy(), policy == "compact"
        )
        for out in model_records(first, self.topics.model):
            self.broker.append(out.topic, 0, out.key, out.value)
        self.stream = self.broker.stream(GroupMember("in", GROUP, "t.assigner.a"))
        self.engine = self.new_engine(first)
        self.engine.adopt(Restored(0, 0, Members(2), [], {}, set(), 0))
        self.stream.poll(0, timeout_s=0)
        self.commit(self.engine.publish_head(0))
        self.stream.start(0, 0)

    def new_engine(self, first):
        made = ClusterEngine(self.settings, KERNELS)
        made.install_model(first)
        return made

    def commit(self, changes):
        self.stream.commit(changes.outgoing, changes.next_offsets)
        self.engine.install(changes)

    def write(self, item, vector, hours=None, sequence=0):
        """A record of so many hours after T0, applied; no hours: it has no time."""
        value = vector
        if isinstance(vector, list):
            value = encode_vector(np.array(vector, np.float32), sequence)
        at_ms = -1 if hours is None else T0 + round(hours * 3_600_000)
        self.broker.append("in", 0, item.encode(), value, (), at_ms)
        self.commit(self.engine.prepare(self.stream.poll(100, timeout_s=0).records))

    def restored(self):
        run = Restore(self.broker, self.settings, self.broker.committed(GROUP, "in")).run()
        while True:
            try:
                next(run)
            except StopIteration as end:
                (found,) = end.value.partitions.values()
                again = self.new_engine(end.value.model)
                again.adopt(found)
                return again


def history(policy, first):
    """Updates late and early, a stale and a bad record over good ones, removals, no times."""
    site = Site(policy, first)
    for n in range(8):
        site.write(f"i{n}", [n - 4 + 0.1, n], hours=n - 4, sequence=5)
    site.write("i1", [2, 2], hours=-6, sequence=6)  # late
    site.write("i2", [3, 3], hours=3, sequence=4)  # stale
    site.write("i3", b"no vector", hours=3)
    site.write("i4", None, hours=3)
    site.write("i5", [1, 1])
    site.write("i6", [1, 1], hours=1000)
    site.write("i7", b"no vector", hours=3)
    site.write("i7", [1, 7], hours=0.3, sequence=9)
    site.commit(site.engine.publish_statistics(0))
    return site


def columns(made):
    """Item -> all that its row says but for the proof."""
    members = made.partitions[0].members
    names = ("labels", "sequences", "offsets", "kept", "timestamps", "weights")
    return {
        key.decode(): [members.vectors[row].tolist(), *(getattr(members, n)[row] for n in names)]
        for key, row in members.items()
    }


FADING = {"half_life_s": 3600.0, "landmark_ms": T0}


@pytest.mark.parametrize("forgetting", [FADING, {}], ids=["fading", "plain"])
@pytest.mark.parametrize("is_compacted_away", [True, False])
@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_what_is_read_back_is_what_was_there(policy, is_compacted_away, forgetting):
    site = history(policy, model(WEST_EAST, input_policy=policy, **forgetting))
    if is_compacted_away and policy == "compact":
        site.broker.compact("in", 0, keep_tombstones=True)
    elif is_compacted_away:
        site.broker.truncate("in", 0, before=site.engine.partitions[0].next_offset)
    before, again = site.engine.partitions[0], site.restored()
    after = again.partitions[0]

    assert len(before.members) == 7
    assert columns(again) == columns(site.engine)
    for name in before.sums.arrays:
        assert getattr(after.sums, name).tolist() == getattr(before.sums, name).tolist()
    if forgetting:
        weights = {key: row[-1] for key, row in columns(again).items()}
        assert weights == pytest.approx(
            {
                "i0": 2**-4, "i1": 2**-6, "i2": 2**-2, "i3": 2**-1, "i5": 1.0, "i6": 2.0**8,
                "i7": 2**0.3,
            }, rel=4e-4,
        )  # fmt: skip


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_an_owner_under_another_landmark_counts_as_if_it_had_been_there_always(policy):
    site = history(policy, model(WEST_EAST, input_policy=policy, **FADING))
    later = model(
        WEST_EAST, epoch=2, input_policy=policy, half_life_s=900.0, landmark_ms=T0 + 3_600_000
    )
    for out in model_records(later, site.topics.model):
        site.broker.append(out.topic, 0, out.key, out.value)
    site.engine.install_model(later)
    site.commit(site.engine.sweep(0, max_rows=3))  # and dies in the middle

    again = site.restored()
    for engine in (again, site.engine):
        while engine.partitions[0].to_sweep:
            engine.install(engine.sweep(0, max_rows=3))

    assert columns(again) == columns(site.engine)
    before, after = site.engine.partitions[0].sums, again.partitions[0].sums
    for name in before.arrays:
        assert getattr(after, name).tolist() == getattr(before, name).tolist()


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_the_sample_knows_the_times_that_the_members_have(policy):
    site = history(policy, model(WEST_EAST, input_policy=policy, **FADING))
    if policy == "compact":
        site.broker.compact("in", 0, keep_tombstones=True)
    else:
        site.broker.truncate("in", 0, before=site.engine.partitions[0].next_offset)
    sampling = SampleReader(
        site.broker, site.topics, site.embedding, LimitPolicy(), 100, lambda: 0.0
    )
    for _ in sampling.begin():
        pass
    while sampling.read():
        pass

    keys, points, timestamps = sampling.sample.snapshot()

    members = site.engine.partitions[0].members
    rows = members.rows_of(keys)
    assert sorted(members) == keys
    assert points.tolist() == members.vectors[rows].tolist()
    assert timestamps.tolist() == members.timestamps[rows].tolist()
