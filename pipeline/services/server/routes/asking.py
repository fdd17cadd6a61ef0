"""What routes have in common: parameters, names that are looked up, facts as replies show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import numpy as np
from fastapi import Depends, Query
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray

from pipeline.errors import RecordError
from pipeline.messages.codec import milliseconds, timestamp
from pipeline.messages.events import ClusterChange, Drift, Lifecycle
from pipeline.messages.model import Model
from pipeline.services.server.desk import Desk
from pipeline.services.server.pages import DEFAULT_LIMIT, MAX_CURSOR, MAX_LIMIT
from pipeline.services.server.problems import Problem, ProblemError, faulty
from pipeline.services.server.shapes import Change, Signal, Version
from pipeline.services.server.shapes_whole import LifecycleRow
from pipeline.state.view.changes import KeptChange
from pipeline.state.view.fold import View
from pipeline.state.view.items import Place
from pipeline.state.view.metadata import Conditions

BEHIND_S: Final = 2.0
MAX_CLUSTER_ID: Final = 64
MAX_TIME: Final = 40
MAX_CONDITIONS: Final = 8
MAX_CONDITION: Final = 512

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Of a page.")]
NearLimit = Annotated[int, Query(ge=1, le=200, description="How many are wanted.")]
Cursor = Annotated[
    str | None, Query(max_length=MAX_CURSOR, description="`next_cursor` of the page before.")
]
Since = Annotated[
    str | None, Query(max_length=MAX_TIME, description="Not before this time, ISO 8601.")
]
Where = Annotated[
    list[str] | None,
    Query(
        max_length=MAX_CONDITIONS,
        description="`<key>:<value>` of an item's metadata; where it is repeated, all have to be "
        "true. A value is text, or a number or boolean as JSON has them.",
    ),
]
ClusterFilter = Annotated[str | None, Query(max_length=MAX_CLUSTER_ID)]
DEFAULT: Final = DEFAULT_LIMIT
NEAR_DEFAULT: Final = 10

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"model": Problem, "description": "A problem, as RFC 9457 has it."},
    422: {"model": Problem, "description": "The request says something that it may not."},
}
"""What every route may answer, for OpenAPI."""


def read_your_writes(desk: Desk) -> Any:
    """The parameter ``min_offset`` of every question, as a dependency."""

    async def wait(  # without a thread, which only a wait needs: most requests ask for none
        min_offset: Annotated[
            str | None,
            Query(
                pattern=r"^[0-9]{1,9}:[0-9]{1,18}$",
                description="`<partition>:<offset>` of a record that the answer has to know.",
            ),
        ] = None,
    ) -> None:
        if min_offset is None:
            return
        partition, _, offset = min_offset.partition(":")
        if int(partition) >= desk.topics.partitions:
            raise faulty("/query/min_offset", f"the input has {desk.topics.partitions} partitions")
        if not await run_in_threadpool(desk.reached, int(partition), int(offset), BEHIND_S):
            raise ProblemError("view-behind", f"{min_offset} does not show yet", retry_after_s=1)

    return Depends(wait)


def conditions_of(where: Sequence[str] | None, place: str = "/query/where") -> Conditions:
    """Keys and the texts of their values, of conditions that somebody wrote."""
    found = []
    for text in where or ():
        key, colon, value = text.partition(":")
        if not key or not colon or len(text) > MAX_CONDITION:
            raise faulty(place, f"must be <key>:<value> of {MAX_CONDITION} characters at most")
        found.append((key, value))
    return found


def fitting(
    desk: Desk, conditions: Conditions, rows: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Those of the rows, or of all, whose metadata fits; with the lock held."""
    if desk.search is None:
        raise ProblemError(
            "vectors-not-kept", "metadata comes with the vectors, and this server keeps none"
        )
    return desk.view.items.where(conditions, rows)


def moment(text: str | None, place: str) -> int | None:
    """Milliseconds since 1970 of a time that somebody wrote."""
    if text is None:
        return None
    try:
        return milliseconds(text)
    except (RecordError, OverflowError) as error:
        raise faulty(place, "this is no time as ISO 8601 has it") from error


def model_of(view: View) -> Model:
    """The newest model; ``no-model`` if there is none."""
    if view.model is None:
        raise ProblemError("no-model", "there is no model yet", retry_after_s=5)
    return view.model


def label_of(desk: Desk, cluster: str) -> int:
    """Where a cluster stands in the newest model; with the lock held.

    Raises
    ------
    ProblemError
        ``not-found``, or ``cluster-retired`` with its successors.
    """
    model = model_of(desk.view)
    label = desk.label_of(model).get(cluster)
    if label is not None:
        return label
    origin = desk.view.lifecycle.origin(cluster)
    if origin is None or origin.retired_in is None:
        version = model.version
        raise ProblemError("not-found", f"{cluster} is no cluster of model {version}")
    raise ProblemError(
        "cluster-retired",
        f"{cluster} retired in epoch {origin.retired_in}",
        successors=origin.successors,
    )


def place_of(view: View, key: bytes) -> Place:
    """Where an item is; ``not-found`` if nobody knows it."""
    row = view.items.find(key)
    if row < 0:
        raise ProblemError("not-found", "there is no such item")
    return view.items.place(row)


def text_of(key: bytes) -> str:
    """An item id as text; keys are UTF-8, or their records are dead letters."""
    return key.decode("utf-8", "replace")


def change_row(kept: KeptChange) -> Change:
    """A change event, as replies show it."""
    event: ClusterChange = kept.event
    return Change(
        id=event.id,
        type=event.type,
        item=event.item,
        from_=event.from_cluster,
        to=event.to_cluster,
        cause=event.cause,
        distance=event.distance,
        margin=event.margin,
        confidence=event.confidence,
        typicality=event.typicality,
        model=Version(event.epoch, event.revision),
        partition=event.partition,
        offset=event.offset,
        occurred_at=timestamp(event.occurred_at_ms),
        emitted_at=timestamp(kept.key.time_ms),
    )


def signal_row(alarm: Drift) -> Signal:
    """An alarm, as replies show it."""
    return Signal(
        id=alarm.id,
        state=alarm.state,
        scope=alarm.scope,
        cluster=alarm.cluster,
        clusters=list(alarm.clusters),
        signal=alarm.signal,
        statistic=alarm.statistic,
        threshold=alarm.threshold,
        effect=alarm.effect,
        arl0=alarm.arl0,
        window=alarm.window,
        model=Version(alarm.epoch, alarm.revision),
        occurred_at=timestamp(alarm.occurred_at_ms),
    )


def lifecycle_row(event: Lifecycle) -> LifecycleRow:
    """A lifecycle event, as replies show it."""
    return LifecycleRow(
        id=event.id,
        type=event.type,
        cluster=event.cluster,
        parents=list(event.parents),
        children=list(event.children),
        size=event.size,
        model=Version(event.epoch, event.revision),
        similarity=event.similarity,
        label=event.label,
        command=event.command,
        reason=event.reason,
        inertia_before=event.inertia_before,
        inertia_after=event.inertia_after,
        moved=event.moved,
        occurred_at=timestamp(event.occurred_at_ms),
    )
