"""What users promise about their records, and what they want to read in events."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from pipeline.errors import ConfigError
from pipeline.messages.halves import LARGEST_COMPONENT, LEAST_COMPONENT

Metric = Literal["euclidean", "cosine"]
ContentType = Literal["application/vnd.eddy.vector", "application/octet-stream", "application/json"]
Envelope = Literal["plain", "cloudevents-structured", "cloudevents-binary"]
Dtype = Literal["float32", "float16"]

NATIVE: ContentType = "application/vnd.eddy.vector"
RAW: ContentType = "application/octet-stream"
JSON: ContentType = "application/json"

MAX_KEY_BYTES = 512
MAX_METADATA_BYTES = 4096
MAX_DIMENSIONS = 16_384
MAX_CLUSTERS = 50_000  # a manifest names them all in one record


@dataclass(frozen=True, slots=True)
class NextEmbedding:
    """The embedding model that shall take over; until it has, records of both are accepted."""

    model: str | None = None
    """Its name, which its records must give; null: none is on its way."""
    dimensions: int | None = None
    """Numbers of its vectors; null: as many as now."""
    share: float = 0.95
    """It takes over once so large a share of the items has a vector of both models."""

    def __post_init__(self) -> None:
        if self.model is not None and not self.model:
            raise ConfigError("embedding.next.model is empty, but must be a name or null")
        if self.dimensions is not None and not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise ConfigError(
                f"embedding.next.dimensions is {self.dimensions}, but must be 1 to "
                f"{MAX_DIMENSIONS}, or null"
            )
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(
                f"embedding.next.share is {self.share}, but must be above 0, and 1 at most"
            )


@dataclass(frozen=True, slots=True)
class EmbeddingPolicy:
    """What a vector has to be.

    ``max_component`` bounds each component and fixes the unit of the integer statistics, so it
    is for the life of an embedding model; None stands for 1 under cosine and 256 otherwise.
    """

    must_name: ClassVar[bool] = False
    """Whether a record that names no embedding model is a dead letter, as one of another is."""

    dimensions: int = 1024
    """Numbers of a vector."""
    metric: Metric = "euclidean"
    """What near means: euclidean, or cosine, under which vectors are scaled to length 1."""
    model: str | None = None
    """Name of the embedding model: a record that names another is a dead letter; null: any."""
    content_type: ContentType = NATIVE
    """Form of a record without a content-type header; nothing is guessed."""
    max_component: float | None = None
    """Bound of a vector's numbers, a power of two, for the life of an embedding model; null: 1
    under cosine, else 256."""
    next: NextEmbedding = field(default_factory=NextEmbedding)
    dtype: Dtype = field(default="float32", metadata={"is_option": False})
    """What its numbers are rounded to: `state.dtype`, noted here because it is part of what a
    vector has to be."""

    def __post_init__(self) -> None:
        if not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise ConfigError(
                f"embedding.dimensions is {self.dimensions}, but must be 1 to {MAX_DIMENSIONS}"
            )
        _one_of("embedding.metric", self.metric, get_args(Metric))
        _one_of("embedding.content_type", self.content_type, get_args(ContentType))
        if self.model is not None and not self.model:
            raise ConfigError("embedding.model is empty, but must be a name or null")
        _one_of("state.dtype", self.dtype, get_args(Dtype))
        self._check_next()
        if self.max_component is None:
            return
        given = f"embedding.max_component is {self.max_component}"
        # so far from 1 that nobody is in the way, and near enough for squares in float32
        if not 2.0**-32 <= self.max_component <= 2.0**32:
            raise ConfigError(f"{given}, but must be between 2**-32 and 2**32")
        if math.frexp(self.max_component)[0] != 0.5:
            raise ConfigError(f"{given}, but must be a power of two")
        if self.metric == "cosine" and self.max_component != 1.0:
            raise ConfigError(f"{given}, but must be 1 or null under cosine: vectors become unit")
        if self.dtype == "float16" and not (
            LEAST_COMPONENT <= self.max_component <= LARGEST_COMPONENT
        ):
            raise ConfigError(
                f"{given}, but must be 2**-14 to 2**15 while state.dtype is float16, whose largest "
                "number is 65504"
            )

    @property
    def largest_component(self) -> float:
        """The largest magnitude that a component of a stored vector may have."""
        if self.metric == "cosine":
            return 1.0
        return 256.0 if self.max_component is None else float(self.max_component)

    @property
    def successor(self) -> EmbeddingPolicy | None:
        """What a vector of the next embedding model has to be; None: none is on its way."""
        if self.next.model is None:
            return None
        return NamedEmbeddingPolicy(
            dimensions=self.next.dimensions or self.dimensions,
            metric=self.metric,
            model=self.next.model,
            content_type=self.content_type,
            max_component=self.max_component,
            dtype=self.dtype,
        )

    def _check_next(self) -> None:
        name = self.next.model
        if name is None and self.next.dimensions is not None:
            raise ConfigError(
                f"embedding.next.dimensions is {self.next.dimensions}, but embedding.next.model "
                "is null: name the model that has them"
            )
        if name is not None and self.model is None:
            raise ConfigError(
                f"embedding.next.model is {name!r}, but embedding.model is null: name the model "
                "that stands first; records that name none count as its"
            )
        if name is not None and name == self.model:
            raise ConfigError(
                f"embedding.next.model is {name!r}, but must be another than embedding.model"
            )


@dataclass(frozen=True, slots=True)
class NamedEmbeddingPolicy(EmbeddingPolicy):
    """What a vector has to be where there was another embedding model before.

    A record that names no model counts as one of the first, so here every record names its own.
    """

    must_name: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """Bounds on what others may send."""

    max_record_bytes: int = 1_048_576
    """A longer record is a dead letter."""
    max_items_per_partition: int = 8_000_000
    """A new item above it is a dead letter; below 2**23, so that no sum overflows."""

    def __post_init__(self) -> None:
        # a gigabyte is far beyond what a broker takes; less than 4 KiB holds no metadata
        if not 4096 <= self.max_record_bytes <= 2**30:
            raise ConfigError(
                f"limits.max_record_bytes is {self.max_record_bytes}, but must be 4096 to {2**30}"
            )
        # 2**23 items of the largest component are where an int64 sum would overflow
        if not 1 <= self.max_items_per_partition < 2**23:
            raise ConfigError(
                f"limits.max_items_per_partition is {self.max_items_per_partition}, "
                f"but must be 1 to {2**23 - 1}"
            )


@dataclass(frozen=True, slots=True)
class EventPolicy:
    """How change and lifecycle events look; ``metadata`` names the keys they carry along."""

    envelope: Envelope = "plain"
    """Form of an event: our own JSON, or CloudEvents around it."""
    metadata: tuple[str, ...] = ()
    """Keys of the items' metadata that change events carry along."""

    def __post_init__(self) -> None:
        _one_of("events.envelope", self.envelope, get_args(Envelope))
        if "" in self.metadata or len(set(self.metadata)) < len(self.metadata):
            raise ConfigError(
                f"events.metadata is {list(self.metadata)}, but must hold different, non-empty keys"
            )


def _one_of(path: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{path} is {value!r}, but must be one of {', '.join(allowed)}")
