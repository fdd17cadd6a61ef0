"""What the operator decides about the memory of an assigner and its copy on disk."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class StatePolicy:
    """A copy of the state on disk makes restarts fast; the topics stay the truth."""

    directory: str | None = None
    """Where the copies are kept; null: nowhere."""
    snapshot_interval_s: float = 300.0
    """Time between two of them."""

    def __post_init__(self) -> None:
        if self.snapshot_interval_s < 1:
            raise ConfigError(
                f"state.snapshot_interval_s is {self.snapshot_interval_s:g}, but must be at least 1"
            )
