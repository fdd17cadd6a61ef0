"""Which dead letters go back to the input, and their way there.

A record that comes back is a new record: what its item was given meanwhile would be overwritten
by something older. So a letter is passed over when the input holds a newer record of its item, and
its own copy of an earlier time is such a one: doing it twice does it once. Letters are small beside
their values, so these are read a second time instead of being held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.cli.output import count
from pipeline.cli.reading import onward
from pipeline.errors import FatalError
from pipeline.messages.dead_letters import Letter, read_letter, redriven, redriven_place
from pipeline.messages.records import Record
from pipeline.streams.contract import Broker, TopicSettings
from pipeline.streams.topics import TopicPolicy, cleanup_policy

_ACKNOWLEDGED_TOGETHER: Final = 1000


@dataclass(frozen=True, slots=True)
class Chosen:
    """A letter that was asked for, without its value."""

    letter: Letter
    key: bytes | None


@dataclass(slots=True)
class Plan:
    """What becomes of the letters that were asked for."""

    write: list[Chosen] = field(default_factory=list)
    n_newer: int = 0
    """Passed over: the input holds a newer record of the item."""
    n_redriven: int = 0
    """Passed over: they came back before."""
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Why not -> the places of the letters."""

    @property
    def n_refused(self) -> int:
        return sum(map(len, self.refused.values()))


def make_plan(
    broker: Broker,
    topics: TopicPolicy,
    settings: TopicSettings,
    chosen: Iterable[Chosen],
    *,
    even_if_newer: bool,
) -> Plan:
    """Decide; reads the input from the oldest of the letters on.

    Parameters
    ----------
    settings
        Of the input.
    """
    plan, able = Plan(), []
    for one in chosen:
        problem = _problem(one, topics, settings)
        if problem is None:
            able.append(one)
        else:
            plan.refused.setdefault(problem, []).append(one.letter.place)
    newest, came_back = _look_up(broker, topics, able)
    for one in able:
        letter = one.letter
        assert letter.source_partition is not None and letter.source_offset is not None
        if f"{topics.dead_letters}/{letter.partition}/{letter.offset}" in came_back:
            plan.n_redriven += 1
        elif (
            not even_if_newer
            and one.key is not None
            and newest.get((letter.source_partition, one.key), -1) > letter.source_offset
        ):
            plan.n_newer += 1
        else:
            plan.write.append(one)
    return plan


def carry_out(broker: Broker, topics: TopicPolicy, plan: Plan) -> int:
    """Write what is to be written; how many letters went back.

    Raises
    ------
    FatalError
        The broker did not take something.
    """
    wanted = {(one.letter.partition, one.letter.offset) for one in plan.write}
    if not wanted:
        return 0
    starts: dict[int, int] = {}
    for partition, offset in wanted:
        starts[partition] = min(offset, starts.get(partition, offset))
    producer, n_written, n_open = broker.producer(), 0, 0
    try:
        for records in onward(broker, topics.dead_letters, starts):
            for record in records:
                if (record.partition, record.offset) not in wanted:
                    continue
                letter = read_letter(record)
                producer.write(redriven(record, letter, dead_letters=topics.dead_letters))
                n_open += 1
                if n_open >= _ACKNOWLEDGED_TOGETHER:
                    producer.flush()
                    n_written, n_open = n_written + n_open, 0
        producer.flush()
    except FatalError as error:
        raise FatalError(
            f"{error}; {count(n_written)} letters are in {topics.input} again, and the same "
            "command goes on with the others"
        ) from error
    return n_written + n_open


def _problem(one: Chosen, topics: TopicPolicy, settings: TopicSettings) -> str | None:
    """Why a letter cannot go back; None if it can."""
    letter = one.letter
    if letter.reason is None or letter.source_topic is None:
        return "no dead letter of Eddy's: it does not say where it comes from"
    if letter.source_topic != topics.input:
        return f"comes from another topic than {topics.input}"
    partition, offset = letter.source_partition, letter.source_offset
    if partition is None or offset is None or offset < 0:
        return "no dead letter of Eddy's: it does not say where it comes from"
    if not 0 <= partition < settings.n_partitions:
        return f"comes from a partition that {topics.input} does not have"
    for part in ("value", "key", "headers"):
        if part in letter.left_out:
            verb = "were" if part == "headers" else "was"
            return (
                f"its {part} {verb} too large for a dead letter and {verb} left out: "
                "only its producer can send it again"
            )
    if one.key is None and "compact" in cleanup_policy(settings):
        return f"it has no key, and {topics.input} is compacted: the broker would refuse it"
    return None


def _look_up(
    broker: Broker, topics: TopicPolicy, able: Iterable[Chosen]
) -> tuple[Mapping[tuple[int, bytes], int], set[str]]:
    """Per partition and key the newest offset in the input, and the letters that came back."""
    starts: dict[int, int] = {}
    keys: dict[int, set[bytes]] = {}
    for one in able:
        partition, offset = one.letter.source_partition, one.letter.source_offset
        assert partition is not None and offset is not None
        starts[partition] = min(offset + 1, starts.get(partition, offset + 1))
        if one.key is not None:
            keys.setdefault(partition, set()).add(one.key)
    newest: dict[tuple[int, bytes], int] = {}
    came_back: set[str] = set()
    if starts:
        ranges = broker.ranges(topics.input)
        # a topic that was made anew may be shorter than what its letters tell of
        starts = {p: offset for p, offset in starts.items() if offset < ranges[p].high}
    if not starts:
        return newest, came_back
    for records in onward(broker, topics.input, starts):
        for record in records:
            _note(record, keys, newest, came_back)
    return newest, came_back


def _note(
    record: Record,
    keys: Mapping[int, set[bytes]],
    newest: dict[tuple[int, bytes], int],
    came_back: set[str],
) -> None:
    if record.headers:
        place = redriven_place(record)
        if place is not None:
            came_back.add(place)
    key = record.key
    if key is not None and key in keys.get(record.partition, ()):
        newest[record.partition, key] = record.offset
