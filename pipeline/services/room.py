"""How much memory this process may have, and whether a partition as full as it may be fits in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pipeline.config import Config
from pipeline.state.footprint import item_bytes

_GIB = 2**30


def memory_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """What the machine has, cut by the limits of this process's control groups, version 2 or 1."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limits(root, own):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # else "max"
            found.append(int(text))
    return min(found)


def _limits(root: Path, own: Path) -> list[Path]:
    """The files that may hold a limit: of the process's groups, and of those around them."""
    # in a container the group that is seen at the root is its own, whatever it is called outside
    groups = [(root, "memory.max"), (root / "memory", "memory.limit_in_bytes")]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for top, name in groups[:2]:
            if controllers == ("" if name == "memory.max" else "memory"):
                inner = top / path.lstrip("/")
                above = [one for one in inner.parents if one != top and top in one.parents]
                groups += [(one, name) for one in (inner, *above)]
    return [folder / name for folder, name in groups]


def shortage(config: Config, n_bytes: int) -> str | None:
    """What is wrong where one partition with all the items it may have needs more than there is.

    None: nothing. How many partitions a process will own is not known at its start, so this is
    the least that has to fit.
    """
    n_items = config.limits.max_items_per_partition
    each = item_bytes(config.embedding.dimensions, np.dtype(config.state.dtype).itemsize)
    if n_items * each <= n_bytes:
        return None
    # half of it: models, batches and snapshots stand beside the rows, and elsewhere than on Linux
    # rows that grow are copied
    fitting = n_bytes // (2 * each)
    return (
        f"limits.max_items_per_partition is {n_items}: a partition of so many items takes "
        f"{n_items * each / _GIB:.1f} GiB ({each} bytes an item), but there are "
        f"{n_bytes / _GIB:.1f} GiB; before the limit is reached the process may be killed: "
        f"set it to {fitting} or less, divided by the partitions that a process owns"
    )
