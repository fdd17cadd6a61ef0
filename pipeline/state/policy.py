"""What the operator decides about the memory of an assigner and its copy on disk."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.messages.policy import Dtype


@dataclass(frozen=True, slots=True)
class StatePolicy:
    """A copy of the state on disk makes restarts fast; the topics stay the truth."""

    directory: str | None = None
    """Where the copies are kept; null: nowhere."""
    snapshot_interval_s: float = 300.0
    """Time between two of them."""
    dtype: Dtype = "float32"
    """How vectors are held in memory and on disk: float16 takes half of it and keeps 11 binary
    digits of a number; labels and statistics are exact over what is held. The same for all
    processes; it may change from one start to the next."""

    def __post_init__(self) -> None:
        if self.snapshot_interval_s < 1:
            raise ConfigError(
                f"state.snapshot_interval_s is {self.snapshot_interval_s:g}, but must be at least 1"
            )
