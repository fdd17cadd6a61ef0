"""When a partition says what its clusters add up to: the pace of tier 2."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CentroidPolicy:
    """How often statistics go out, and how far a centroid moves before it is published."""

    enabled: bool = True
    """Whether centroids follow their members between two fits."""
    min_updates: int = 100
    """Changes of members after which a partition's statistics are due."""
    min_interval_s: float = 1.0
    """Never closer together than this; 0: as fast as the centroids can follow."""
    max_interval_s: float = 30.0
    """Due after this, however few the changes."""
    tolerance: float = 1.0e-4
    """A move below this share of the cluster's root mean squared distance is none."""

    def __post_init__(self) -> None:
        if self.min_updates < 1:
            raise ConfigError(
                f"centroids.min_updates is {self.min_updates}, but must be at least 1"
            )
        if not 0 <= self.min_interval_s <= self.max_interval_s:
            raise ConfigError(
                f"centroids.min_interval_s is {self.min_interval_s}, but must not be below 0, nor "
                f"above max_interval_s, {self.max_interval_s}"
            )
        if self.tolerance < 0:
            raise ConfigError(f"centroids.tolerance is {self.tolerance}, but must not be below 0")

    def is_due(self, n_changes: int, *, is_idle: bool, elapsed_s: float) -> bool:
        """Whether a partition with something to say says it now.

        ``elapsed_s`` counts from its last publication; ``is_idle``: there is nothing to read.
        """
        if elapsed_s < self.min_interval_s:
            return False
        return is_idle or n_changes >= self.min_updates or elapsed_s >= self.max_interval_s
