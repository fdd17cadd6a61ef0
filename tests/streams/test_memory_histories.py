"""Random histories of the twin in memory: what is committed with its offsets is copied exactly."""

from __future__ import annotations

import random

import pytest

from pipeline.errors import FatalError, TransientError
from pipeline.messages.records import Outgoing
from pipeline.streams.contract import GroupMember, TopicSettings
from pipeline.streams.memory import OFFSETS, Fault, MemoryBroker, MemoryStream, Stage


@pytest.mark.parametrize("seed", range(20))
def test_copies_made_through_faults_are_exact(seed: int):
    """Four processes copy records and their offsets; crashes, zombies, aborts and outages."""
    rng = random.Random(seed)
    broker = MemoryBroker(batch_sizes=lambda: rng.randrange(4))
    broker.create_topics([TopicSettings("in", 4), TopicSettings("out", 4)])
    broker.n_queued = rng.randrange(3)
    streams: dict[str, MemoryStream] = {}
    gone: list[MemoryStream] = []  # the group has not noticed yet

    def run(who: str) -> None:
        """One step of a process as a service would do it."""
        stream = streams.get(who) or streams.setdefault(
            who, broker.stream(GroupMember("in", "group", f"group.{who}"))
        )
        try:
            poll = stream.poll(10, timeout_s=0)
            for partition, offset in poll.assigned.items():
                stream.start(partition, offset or 0)
            if poll.records:
                stream.commit(
                    [Outgoing("out", r.partition, r.key, r.value) for r in poll.records],
                    {r.partition: r.offset + 1 for r in poll.records},
                )
        except TransientError:
            stream.rewind()
        except FatalError:
            gone.append(streams.pop(who))  # a supervisor starts it again

    def sleep(stage: Stage, stream: MemoryStream) -> None:
        if rng.random() > 0.2:
            return
        broker.between = None  # one sleeps at a time
        broker.expire_session(stream)
        if rng.random() < 0.3:
            broker.expire_transaction(stream.who.transactional_id)
        for who in rng.choices("abcd", k=6):
            if streams.get(who) is not stream:
                run(who)
        broker.between = sleep

    for n in range(300):
        broker.append("in", rng.randrange(4), b"k", b"%d" % n)
        broker.between = sleep
        broker.is_away = rng.random() < 0.05
        what = rng.random()
        who = rng.choice("abcd")
        if what < 0.05 and who in streams:
            broker.crash(streams[who])
            gone.append(streams.pop(who))
        elif what < 0.1 and who in streams:
            streams[who].close()
            gone.append(streams.pop(who))
        elif what < 0.15 and gone:
            broker.expire_session(gone.pop())
        elif what < 0.2:
            broker.faults[broker.n_commits] = rng.choice(list(Fault))
        elif what < 0.3:
            broker.hold_markers(*rng.choice([OFFSETS, ("out", rng.randrange(4))]))
        elif what < 0.4:
            broker.release_markers()
        elif not broker.is_away or who in streams:
            run(who)
    broker.is_away, broker.between = False, None
    broker.faults.clear()
    broker.release_markers()
    for stream in gone:
        broker.expire_session(stream)
    for _ in range(500):
        for who in "abcd":
            run(who)

    for partition in range(4):
        copied = [r.value for r in broker.records("out", partition)]
        assert copied == [r.value for r in broker.records("in", partition)], f"seed {seed}"
