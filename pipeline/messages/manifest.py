"""What a model says of itself: one record, written last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import Reason, RecordError
from pipeline.messages.codec import json_bytes, json_value, milliseconds, timestamp
from pipeline.messages.policy import MAX_CLUSTERS, MAX_DIMENSIONS

WIRE = 1
"""The number of what this code writes to topics, and of what it reads. A field more leaves it as it
is; what an older reader would misread is another number. A manifest that says none is of 1."""
_FIRST_WIRE = 1


class WireError(RecordError):
    """A manifest of another wire: not to be read, and not to be passed over either."""

    def __init__(self, wire: int) -> None:
        super().__init__(Reason.DECODE, f"a manifest of wire {wire}, and this Eddy reads {WIRE}")
        self.wire = wire


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is; the order of ``clusters`` is that of the labels, and so decides ties."""

    epoch: int
    revision: int
    metric: str
    dimensions: int
    embedding_model: str | None
    clusters: tuple[str, ...]
    max_component: float
    input_policy: str
    """The input's ``cleanup.policy`` as it was seen first."""
    digest: str
    next_cluster_number: int
    fitted_items: int
    fitted_inertia: float
    fitted_offsets: tuple[int, ...]
    """Per partition, up to where the input was read."""
    created_at_ms: int
    half_life_s: float | None = None
    """After which a member weighs half; None: nothing is forgotten."""
    landmark_ms: int | None = None
    """Members weigh 1 at this time; None: nothing is forgotten."""
    embedding_since: int | None = None
    """The epoch with which the embedding model took over from another; None: there was none."""

    def __post_init__(self) -> None:
        assert 1 <= len(self.clusters) <= MAX_CLUSTERS
        assert (self.half_life_s is None) == (self.landmark_ms is None)

    def shares_embedding_with(self, newer: Manifest) -> bool:
        """Whether vectors of both can be compared: one model, that may have been named later."""
        is_named_so = self.embedding_model in (None, newer.embedding_model)
        return is_named_so and self.embedding_since == newer.embedding_since

    @property
    def version(self) -> str:
        """As people write it: 7.31."""
        return f"{self.epoch}.{self.revision}"


def encode_manifest(manifest: Manifest) -> bytes:
    """The value of ``manifest`` and ``<epoch>``."""
    forgetting = None
    if manifest.half_life_s is not None:
        landmark = timestamp(manifest.landmark_ms)
        forgetting = {"half_life_s": manifest.half_life_s, "landmark": landmark}
    since = {}
    if manifest.embedding_since is not None:
        since = {"embedding_since": manifest.embedding_since}
    return json_bytes(
        {
            "epoch": manifest.epoch,
            "revision": manifest.revision,
            "metric": manifest.metric,
            "dimensions": manifest.dimensions,
            "embedding_model": manifest.embedding_model,
            **since,
            "clusters": manifest.clusters,
            "max_component": manifest.max_component,
            "input_policy": manifest.input_policy,
            "digest": manifest.digest,
            "next_cluster_number": manifest.next_cluster_number,
            "fitted_on": {
                "items": manifest.fitted_items,
                "inertia": manifest.fitted_inertia,
                "offsets": manifest.fitted_offsets,
            },
            "forgetting": forgetting,
            "created_at": timestamp(manifest.created_at_ms),
            **({} if WIRE == _FIRST_WIRE else {"wire": WIRE}),
        }
    )


def decode_manifest(value: bytes) -> Manifest:
    """The counterpart of `encode_manifest`.

    Raises
    ------
    WireError
        Another version of the wire wrote it, so nothing else in it means what it seems to.
    RecordError
        It is no manifest.
    """
    told: Any = json_value(value)
    try:
        wire = told.get("wire", _FIRST_WIRE)
        if type(wire) is not int or wire < _FIRST_WIRE:
            raise ValueError("wire")
        if wire != WIRE:
            raise WireError(wire)
        fitted_on, created_at_ms = told["fitted_on"], milliseconds(told["created_at"])
        forgetting = told.get("forgetting")
        clusters, n_dims = tuple(told["clusters"]), int(told["dimensions"])
        are_names = all(type(name) is str for name in clusters)
        if created_at_ms is None or not (are_names and 1 <= len(clusters) <= MAX_CLUSTERS):
            raise ValueError("created_at or clusters")
        if not 1 <= n_dims <= MAX_DIMENSIONS:  # of so many, memory is taken
            raise ValueError("dimensions")
        landmark_ms = None if forgetting is None else milliseconds(forgetting["landmark"])
        if forgetting is not None and landmark_ms is None:
            raise ValueError("landmark")
        since = told.get("embedding_since")
        return Manifest(
            epoch=int(told["epoch"]),
            revision=int(told["revision"]),
            metric=told["metric"],
            dimensions=n_dims,
            embedding_model=told["embedding_model"],
            clusters=clusters,
            max_component=float(told["max_component"]),
            input_policy=told["input_policy"],
            digest=told["digest"],
            next_cluster_number=told["next_cluster_number"],
            fitted_items=fitted_on["items"],
            fitted_inertia=float(fitted_on["inertia"]),
            fitted_offsets=tuple(fitted_on["offsets"]),
            created_at_ms=created_at_ms,
            half_life_s=None if forgetting is None else float(forgetting["half_life_s"]),
            landmark_ms=landmark_ms,
            embedding_since=None if since is None else int(since),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"no manifest: {type(error).__name__} {error}"[:200]
        raise RecordError(Reason.DECODE, message) from error
