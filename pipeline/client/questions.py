"""Every question that a client asks, said once; both clients ask the same ones."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.client import results
from pipeline.client.problems import AnswerError
from pipeline.client.reading import read
from pipeline.client.transport import Question
from pipeline.errors import UsageError

T = TypeVar("T")

State = Literal["live", "empty"]
Sort = Literal["size", "growth", "drift", "born_at"]
Order = Literal["distance", "-distance", "item_id"]
Window = Literal["5m", "1h", "24h"]
By = Literal["net", "gain", "loss", "rate"]
When = datetime | str | None
"""A time: with a zone, or as ISO 8601."""

MAX_PAGE: Final = 500
_PLAIN: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,400}")
"""Ids that stand in a path as they are; whatever else is written as base64."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and where the next one begins."""

    items: tuple[T, ...]
    next_cursor: str | None


def page_of(
    shape: type[T], path: str, cursor: str | None, limit: int, **query: object
) -> Question[Page[T]]:
    """A page of a list."""
    asked = {**query, "limit": limit, "cursor": cursor}
    return Question(path, lambda body: Page(_rows(shape, body), body.get("next_cursor")), asked)


def rows_of(shape: type[T], path: str, **query: object) -> Question[tuple[T, ...]]:
    """A list that comes at once."""
    return Question(path, lambda body: _rows(shape, body), query)


def one_of(shape: type[T], path: str, **query: object) -> Question[T]:
    """One object."""
    return Question(path, lambda body: read(shape, body), query)


def cluster(name: str) -> Question[results.ClusterDetail]:
    """One cluster."""
    return one_of(results.ClusterDetail, cluster_path(name))


def near_clusters(name: str, limit: int) -> Question[tuple[results.NearCluster, ...]]:
    """Clusters whose centroids are near."""
    return rows_of(results.NearCluster, f"{cluster_path(name)}/similar", limit=limit)


def timeline(name: str, since: When, until: When) -> Question[results.Timeline]:
    """A cluster over time."""
    span = {"from": moment(since), "to": moment(until)}
    return Question(
        f"{cluster_path(name)}/timeline", lambda body: read(results.Timeline, body), span
    )


def item(name: str) -> Question[results.Item]:
    """Where an item is."""
    return one_of(results.Item, item_path(name))


def related(
    name: str, limit: int, min_similarity: float | None
) -> Question[tuple[results.NearItem, ...]]:
    """The nearest members of the item's own cluster."""
    return rows_of(
        results.NearItem, f"{item_path(name)}/related", limit=limit, min_similarity=min_similarity
    )


def similar(
    given: str | ArrayLike, limit: int, min_similarity: float | None
) -> Question[tuple[results.NearItem, ...]]:
    """The nearest of all items, to an item or to a vector."""
    if isinstance(given, str):
        path, wanted = f"{item_path(given)}/similar", {"min_similarity": min_similarity}
        return rows_of(results.NearItem, path, limit=limit, **wanted)
    body: dict[str, Any] = {"vector": numbers(given), "limit": limit}
    if min_similarity is not None:
        body["min_similarity"] = min_similarity
    return Question(
        "/similar", lambda said: _rows(results.NearItem, said), method="POST", body=body
    )


def assign(vector: ArrayLike) -> Question[results.Assigned]:
    """The cluster that a vector would belong to."""
    body = {"vector": numbers(vector)}
    return Question("/assign", lambda said: read(results.Assigned, said), method="POST", body=body)


def trending(window: Window, by: By, limit: int) -> Question[tuple[results.Trend, ...]]:
    """What grows and shrinks."""
    return rows_of(results.Trend, "/trending", window=window, by=by, limit=limit)


def flows(window: Window) -> Question[tuple[results.Flow, ...]]:
    """From where to where items go."""
    return rows_of(results.Flow, "/flows", window=window)


def frames(since: When, until: When, step_s: int) -> Question[tuple[results.Frame, ...]]:
    """The map as it was."""
    span = {"from": moment(since), "to": moment(until), "step": step_s}
    return rows_of(results.Frame, "/frames", **span)


def drift() -> Question[results.DriftBoard]:
    """The state of drift."""
    return one_of(results.DriftBoard, "/drift")


def stats() -> Question[results.Stats]:
    """Totals."""
    return one_of(results.Stats, "/stats")


def model() -> Question[results.Model]:
    """The newest model."""
    return one_of(results.Model, "/model")


def models() -> Question[tuple[results.ModelSummary, ...]]:
    """Those that can be gone back to."""
    return rows_of(results.ModelSummary, "/models")


def job(job_id: str, wait_s: int = 0) -> Question[results.JobState]:
    """What came of a command."""
    path = f"/jobs/{quote(job_id, safe='')}"
    return one_of(results.JobState, path, wait=wait_s or None)


def command(
    path: str, body: Mapping[str, Any], key: str | None, *, method: str = "POST"
) -> Question[results.JobState]:
    """A command; it may be sent twice, since ``key`` (None: a new one) says that it is one."""
    return Question(
        path,
        lambda said: read(results.JobState, said),
        method=method,
        body={name: value for name, value in body.items() if value is not None},
        headers={"Idempotency-Key": key or str(uuid.uuid4())},
    )


def cluster_path(name: str) -> str:
    """Of a cluster; `UsageError` where it cannot be one."""
    if not _PLAIN.fullmatch(name):
        raise UsageError(f"{name!r} is no id of a cluster")
    return f"/clusters/{name}"


def item_path(name: str) -> str:
    """Of an item; what does not stand in a path as it is, as base64."""
    if not name:
        raise UsageError("an item's id must not be empty")
    if _PLAIN.fullmatch(name):
        return f"/items/{name}"
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the item's id is no UTF-8: {error}") from error
    return "/items/~b64:" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def numbers(vector: ArrayLike) -> list[float]:
    """A vector as JSON has it; `UsageError` for what is none."""
    return [float(number) for number in as_vector(vector).tolist()]


def as_vector(vector: ArrayLike) -> NDArray[np.float64]:
    """(n_dims,) a vector that somebody gave; `UsageError` for what is none."""
    try:
        array: NDArray[np.float64] = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the vector is none: {error}") from error
    if array.ndim != 1 or not array.size:
        raise UsageError(f"the vector has shape {array.shape}, but must be one row of numbers")
    if not np.isfinite(array).all():
        raise UsageError("the vector holds NaN or infinity")
    return array


def moment(when: When) -> str | None:
    """A time as the server reads it."""
    if not isinstance(when, datetime):
        return when
    if when.tzinfo is None:
        raise UsageError(f"{when.isoformat()} names no zone")
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rows(shape: type[T], body: Any) -> tuple[T, ...]:
    rows = body.get("items") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        raise AnswerError("there are no items in the server's answer")
    return tuple(read(shape, row) for row in rows)
