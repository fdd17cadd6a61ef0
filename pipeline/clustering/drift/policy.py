"""What the operator decides about drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """When a change in the stream is an alarm."""

    enabled: bool = True
    """Whether drift is watched at all."""
    arl0: int = 10_000
    """Mean number of windows between two false alarms of one signal, over the whole model."""
    window: int = 4096
    """Records that close a window."""
    min_effect: float = 0.01
    """A change below this is none, however certain: in a large stream every change is certain."""

    def __post_init__(self) -> None:
        if self.arl0 < 2:
            raise ConfigError(f"drift.arl0 is {self.arl0}, but must be at least 2")
        if self.window < 1:
            raise ConfigError(f"drift.window is {self.window}, but must be at least 1")
        if not 0.0 <= self.min_effect < math.inf:
            raise ConfigError(
                f"drift.min_effect is {self.min_effect}, but must be finite and not below 0"
            )
