"""How a broker of ours differs from the usual one: a node among several, other doors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """Which cluster a broker belongs to, and how its folder is formatted."""

    controller_port: int = 0
    """0: any free one."""
    cluster_id: str | None = None
    """The same for all nodes of a cluster; None: a new one."""
    format_with: Sequence[str] = ("--standalone",)
    """Arguments of Kafka's ``StorageTool format``."""
