"""What became of a record that was written: the same reading of answers for both clients.

The server reads assignments, events and heads from topics of their own. What one transaction wrote
to them may show one after the other there, some milliseconds apart; so an answer counts at once
where it proves itself, and else after a moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.client.problems import NotAppliedError
from pipeline.client.results import Change, Item, Put
from pipeline.streams.contract import Place

SETTLING_S: Final = 1.0
"""After which an answer counts as it is."""
PAUSE_S: Final = 0.02
N_CHANGES: Final = 20


def min_offset(place: Place) -> str:
    """As the server reads it."""
    return f"{place.partition}:{place.offset}"


def is_settled(
    place: Place, found: Item | None, changes: Sequence[Change], *, removes: bool
) -> bool:
    """Whether the answer proves that all of the record shows.

    Each event begins where the one before ended, so the newest one ends where the item is.
    """
    if found is None:
        is_there = removes
    else:
        is_there = not _is_older(found, place) and (not removes or found.offset != place.offset)
    if not is_there:
        return False
    cluster = None if found is None else found.cluster
    if event_of(place, changes) is not None:
        return True
    return bool(changes) and changes[0].to_cluster == cluster


def put_of(
    item: str, place: Place, found: Item | None, changes: Sequence[Change], *, removes: bool
) -> Put:
    """What is told of a record.

    Raises
    ------
    NotAppliedError
        The item stands by an older record, or is not there at all though it was put. A newer one
        that has overtaken this one is fine.
    """
    event = event_of(place, changes)
    if event is None and not removes and found is None:
        raise NotAppliedError(
            f"{item!r} is nowhere after the record at {min_offset(place)}: it became a dead "
            "letter, or a later record took the item away; see eddy dlq list"
        )
    if event is None and found is not None and _is_older(found, place):
        raise NotAppliedError(
            f"the record at {min_offset(place)} did nothing to {item!r}, which stands by "
            f"{found.offset}: it became a dead letter, or its sequence is not above the last one; "
            "see eddy dlq list"
        )
    return Put(item, place.partition, place.offset, found, event)


def event_of(place: Place, changes: Sequence[Change]) -> Change | None:
    """The one that a record caused."""
    for change in changes:
        if (change.partition, change.offset, change.cause) == (*place, "record"):
            return change
    return None


def _is_older(found: Item, place: Place) -> bool:
    return found.partition == place.partition and found.offset < place.offset
