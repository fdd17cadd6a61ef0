"""What one transaction covers: one poll, or a few joined while there is a backlog."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Enough records for the kernels, but never too long for the reader."""

    max_records: int = 4000
    """The most records of one transaction; so many are joined only while there is a backlog."""
    max_bytes: int = 64 * 2**20
    """No more is joined once their values have so many bytes together; large records would fill the
    memory long before there are `max_records` of them."""
    max_wait_s: float = 0.02
    """The longest that a record waits for others."""

    def __post_init__(self) -> None:
        if self.max_records < 1:
            raise ConfigError(f"batching.max_records is {self.max_records}, but must be at least 1")
        if not 65_536 <= self.max_bytes <= 2**31:
            raise ConfigError(
                f"batching.max_bytes is {self.max_bytes}, but must be 65536 to {2**31}"
            )
        if not 0 < self.max_wait_s <= 10:
            raise ConfigError(
                f"batching.max_wait_s is {self.max_wait_s}, but must be above 0 and at most 10"
            )
