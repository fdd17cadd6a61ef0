"""What must be caught: Eddys with one promise taken out, in the simulation.

There a history is a seed, and takes a second. The barriers in the wrong order are in
``tests/simulation/test_barriers.py``, beside what they are for.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from pipeline.errors import AbortedError
from pipeline.services.assigner.pace import SlicePace
from pipeline.services.assigner.process import Assigner
from pipeline.streams.memory import Stage
from tests.simulation.judge import judge
from tests.simulation.sleep import have_a_sweep_come_first
from tests.simulation.test_barriers import at_rest, judge_again, play

pytestmark = pytest.mark.sim

SEEDS = range(200, 206)


class Through:
    """A stream that is another one, but for what a control takes out."""

    def __init__(self, stream, topics):
        self._stream, self._topics = stream, topics

    def __getattr__(self, name):
        return getattr(self._stream, name)


class CommitsBeforeItProduces(Through):
    """Offsets in a transaction, then what was made of the records in another one."""

    def commit(self, outgoing, next_offsets):
        self._stream.commit([], next_offsets)
        self._stream.commit(outgoing, next_offsets)


class CommitsByItself(Through):
    """Auto-commit: what was handed out is committed at the next poll, whether applied or not."""

    def __init__(self, stream, topics):
        super().__init__(stream, topics)
        self._handed_out = {}

    def poll(self, max_records, **rest):
        polled = self._stream.poll(max_records, **rest)
        for record in polled.records:
            self._handed_out[record.partition] = record.offset + 1
        due = {p: o for p, o in self._handed_out.items() if p in self._stream.member.told}
        if due:
            try:
                self._stream.commit([], due)
            except AbortedError:
                pass  # the next poll commits it
            else:
                self._handed_out = {}
        return polled


class LetsSleepersThrough(Through):
    """A slice of a sweep goes out without offsets: the group is asked nothing."""

    def commit(self, outgoing, next_offsets):
        records = list(outgoing)
        causes = {json.loads(r.value)["cause"] for r in records if r.topic == self._topics.changes}
        if causes != {"model"}:
            self._stream.commit(records, next_offsets)
            return
        stream = self._stream
        stream._check_epoch()
        transaction = stream._broker._coordinator.begin(stream.who.transactional_id)
        stream._reach(Stage.WRITTEN, transaction)
        stream._write(transaction, records)
        stream._broker._coordinator.end(transaction, commits=True)


def through(wrong):
    """An assigner whose stream is a wrong one."""

    def make(broker, stream, engine, *rest):
        return Assigner(broker, wrong(stream, engine.settings.topics), engine, *rest)

    return make


class FollowsSlowly(Assigner):
    """Hears of a new model late, which is allowed: a restore brings it."""

    def _follow_model(self):
        if self.engine.version is None or self.clock() - self._model_polled_at > 10.0:
            super()._follow_model()


class RestoresUnderWhatItKnows(FollowsSlowly):
    """A restored partition begins under the model at hand, though its last owner had a newer."""

    def _adopt(self, result):
        known = self.engine.version is not None
        super()._adopt(dataclasses.replace(result, model=None) if known else result)


def caught(assigner):
    """The seeds whose histories the judge, or a service itself, ends with a sentence."""
    found = {}
    for seed in SEEDS:
        try:
            judge(*play(seed, assigner=assigner))
        except (AssertionError, KeyError, ValueError) as error:
            found[seed] = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(*found.items(), sep="\n")
    return found


@pytest.mark.parametrize("wrong", [CommitsBeforeItProduces, CommitsByItself])
def test_control_offsets_apart_from_records_are_caught(wrong):
    assert len(caught(through(wrong))) >= 2


def test_control_a_slice_of_a_sweep_without_offsets_is_caught_under_a_sleeper():
    world, inputs = at_rest(through(LetsSleepersThrough))
    world.touch_every_item()
    world.settle()
    have_a_sweep_come_first(world)
    world.assigners["a0"].sweep_pace = SlicePace()  # all of it in one slice

    for _ in range(world.topics.partitions):  # a slice in which nobody moves commits nothing
        if not world.slept[Stage.WRITTEN]:
            world.sleep_in_commit("a0", Stage.WRITTEN)

    assert world.slept[Stage.WRITTEN] == 1
    with pytest.raises(AssertionError):
        judge_again(world, inputs)


def hand_over(assigner):
    """An owner works under a new model and leaves; its heir has not heard of that model."""
    world, inputs = at_rest(assigner)
    world.touch_every_item()
    world.settle()
    heir, owner = world.assigners["a1"], world.assigners["a0"]
    known = heir.engine.version
    heir._model_polled_at, owner._model_polled_at = world.now_s, float("-inf")
    world.command("split", cluster=world.reclusterer.model.manifest.clusters[0])
    for _ in range(20):
        world.now_s += 0.1
        world.turn_reclusterer()
        world.turn("a0")
        owner._model_polled_at = float("-inf")
    world.write(10)
    for _ in range(5):
        world.turn("a0")
    assert owner.engine.version > known == heir.engine.version
    world.assigners.pop("a0").close()
    for stream in world.streams.pop("a0"):
        world.broker.expire_session(stream)
    world.write(30)
    for _ in range(40):
        heir._model_polled_at = world.now_s
        world.turn("a1")
    judge_again(world, inputs)


def test_an_heir_that_hears_late_of_a_model_learns_it_from_the_restore():
    hand_over(FollowsSlowly)


def test_control_a_partition_restored_under_an_older_model_is_caught():
    with pytest.raises(AssertionError, match="went back"):
        hand_over(RestoresUnderWhatItKnows)
