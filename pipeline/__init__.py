"""Keep vector embeddings clustered while they change.

Two wings meet in :mod:`pipeline.engine`::

    arithmetic   kernels -> clustering -> state
    transport    messages -> batching, streams

:mod:`pipeline.services` turns the engine into processes; nothing below it
reads a clock, opens a socket or writes a log line, but for :mod:`pipeline.streams`,
which is the edge to the broker.

Without Kafka: ``from pipeline import KMeans``; beside a running Eddy: ``from pipeline import
EddyClient``; and what else `__all__` names. A name is imported when it is asked for, so that
``import pipeline`` costs nothing, and no room waits for another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.client.asynchronous import AsyncEddyClient
    from pipeline.client.sync import EddyClient
    from pipeline.estimator.kmeans import KMeans
    from pipeline.estimator.scores import (
        calinski_harabasz_score,
        davies_bouldin_score,
        silhouette_samples,
        silhouette_score,
    )

__all__ = [
    "AsyncEddyClient",
    "EddyClient",
    "KMeans",
    "calinski_harabasz_score",
    "davies_bouldin_score",
    "silhouette_samples",
    "silhouette_score",
]

_ROOMS = dict.fromkeys(__all__, "estimator.scores") | {
    "KMeans": "estimator.kmeans",
    "EddyClient": "client.sync",
    "AsyncEddyClient": "client.asynchronous",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
