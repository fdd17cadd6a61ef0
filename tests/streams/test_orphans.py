"""Who starts a rebalance for partitions that nobody owns, and when."""

from __future__ import annotations

import pytest

from pipeline.streams.contract import GroupMember
from pipeline.streams.kafka.client import ClientSettings
from pipeline.streams.kafka.orphans import Seat, Seen, Verdicts, are_possible


def seen(*partitions: set[int], is_at_rest: bool = True, n_partitions: int = 4) -> Seen:
    """Members a, b, ... and what each of them owns."""
    seats = (
        Seat(f"{name}-1", name, frozenset(owned))
        for name, owned in zip("abc", partitions, strict=False)
    )
    return Seen(is_at_rest, n_partitions, frozenset(seats))


HEALTHY = seen({0, 1}, {2, 3})
ORPHANED = seen({2, 3}, set())


def looks_until_told(verdicts: Verdicts, found: Seen, n_looks: int = 1000) -> int | None:
    """At which look, from 1, something is to be done."""
    return next((n for n in range(1, n_looks + 1) if verdicts.on(found)), None)


def test_the_first_by_name_gives_orphans_away_after_two_equal_looks() -> None:
    verdicts = Verdicts("a")

    assert verdicts.on(ORPHANED) == []
    assert verdicts.on(ORPHANED) == [0, 1]


@pytest.mark.parametrize(
    "found",
    [
        HEALTHY,
        seen({2, 3}, set(), is_at_rest=False),  # a rebalance goes on
        seen(),  # nobody is there
        seen({0}, {1}, n_partitions=0),  # the topic is not told of
        None,  # nobody answers
    ],
)
def test_control_nothing_is_done_about_a_group_that_is_well_or_not_seen(
    found: Seen | None,
) -> None:
    verdicts = Verdicts("a")

    assert not any(verdicts.on(found) for _ in range(100))


@pytest.mark.parametrize(
    "between", [HEALTHY, seen({3}, {2}), seen({2, 3}, set(), is_at_rest=False), None]
)
def test_whatever_changes_between_two_looks_begins_the_count_anew(
    between: Seen | None,
) -> None:
    verdicts = Verdicts("a")

    assert not any(verdicts.on(found) for found in [ORPHANED, between] * 20)


def test_the_next_by_name_waits_until_the_first_has_had_its_turn() -> None:
    first, second, third = (
        looks_until_told(Verdicts(name), seen({3}, {2}, set())) for name in "abc"
    )

    # looks of two processes may be almost one look apart
    assert (first, second, third) == (2, 4, 6)


def test_who_is_not_in_the_group_does_nothing() -> None:
    assert looks_until_told(Verdicts("z"), ORPHANED) is None


def test_a_rebalance_that_changed_nothing_is_tried_less_and_less_often() -> None:
    verdicts = Verdicts("a")
    waits = [looks_until_told(verdicts, ORPHANED) for _ in range(8)]

    assert waits == [2, 4, 8, 16, 32, 64, 64, 64]
    verdicts.on(HEALTHY)
    assert looks_until_told(verdicts, ORPHANED) == 2


@pytest.mark.parametrize(
    ("given", "instance_id", "expected"),
    [
        ({}, "a", True),
        ({}, None, False),
        ({"group.instance.id": ""}, "a", False),
        ({"group.protocol": "consumer"}, "a", False),
        ({"consumer.partition.assignment.strategy": "range"}, "a", False),
    ],
)
def test_only_groups_of_static_members_that_cooperate_are_looked_at(
    given: dict[str, str], instance_id: str | None, expected: bool
) -> None:
    settings = ClientSettings({"bootstrap.servers": "127.0.0.1:1", **given}, 1_048_576)

    assert are_possible(settings, GroupMember("in", "g", "t", instance_id)) is expected
