"""``eddy model migrate --status``: how far the items are on the way to the next embedding model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from pipeline.cli.model.standing import read_standing
from pipeline.cli.output import count, out, printable
from pipeline.config import Config
from pipeline.errors import TransientError
from pipeline.messages.embedding import in_force
from pipeline.messages.model import Manifest
from pipeline.services.reclusterer.migration import Progress
from pipeline.services.reclusterer.sampling import SampleReader
from pipeline.state.sample import FULL_RANGE
from pipeline.streams.contract import Broker

_LIMIT_S = 600.0
"""Reading a whole input takes its time, as a reclusterer's start does."""


@dataclass(frozen=True, slots=True)
class Migration:
    """Which embedding model stands, which is on its way, and how far that is."""

    model: str | None
    since: int | None
    """The epoch with which it took over; None: there was no other."""
    next_model: str | None
    """None: none is on its way."""
    progress: Progress | None
    wanted_share: float
    sampled_share: float
    """Of the items, those that were counted."""
    n_partitions: int
    n_arrived: int
    """Partitions in which all members stand by the model."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        progress = self.progress
        return {
            "embedding_model": self.model,
            "since_epoch": self.since,
            "next": self.next_model,
            "items": None
            if progress is None
            else {
                "both": progress.n_both,
                "old_only": progress.n_old_only,
                "new_only": progress.n_new_only,
                "share": progress.share,
            },
            "wanted_share": None if self.next_model is None else self.wanted_share,
            "sampled_share": None if progress is None else self.sampled_share,
            "partitions": {"all": self.n_partitions, "arrived": self.n_arrived},
        }


def read_migration(broker: Broker, config: Config, manifest: Manifest) -> Migration:
    """Ask the topics; while a model is on its way, that means to read the input.

    Raises
    ------
    TransientError
        That took too long.
    """
    embedding = in_force(config.embedding, manifest.embedding_model, manifest.embedding_since)
    heads = read_standing(broker, config, manifest).heads.values()
    since = manifest.embedding_since
    progress, sampled = None, 1.0
    if embedding.successor is not None:
        reader = SampleReader(
            broker, config.topics, embedding, config.limits, config.recluster.sample_items,
            time.monotonic,
        )  # fmt: skip
        _read_all(reader)
        assert reader.next_sample is not None
        progress = Progress.of(reader.sample, reader.next_sample)
        sampled = reader.sample.hash_range / FULL_RANGE
    return Migration(
        model=embedding.model,
        since=since,
        next_model=embedding.next.model,
        progress=progress,
        wanted_share=config.embedding.next.share,
        sampled_share=sampled,
        n_partitions=config.topics.partitions,
        n_arrived=sum((head.embedding_since or 0) >= (since or 0) for head in heads),
    )


def _read_all(reader: SampleReader) -> None:
    deadline = time.monotonic() + _LIMIT_S
    try:
        for _ in reader.begin():
            _check_time(deadline)
        while not reader.has_caught_up:
            reader.read()
            _check_time(deadline)
    finally:
        reader.close()


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TransientError(f"the input could not be read within {_LIMIT_S:g} s")


def print_migration(found: Migration) -> None:
    """For people."""
    name = escape(printable(found.model or "a model without a name"))
    since = "" if found.since is None else f", since epoch {found.since}"
    out.print(f"[bold]{name}[/] stands{since}", soft_wrap=True)
    if found.since is not None and found.n_arrived < found.n_partitions:
        done = f"{found.n_arrived} of {found.n_partitions} partitions"
        out.print(f"  [yellow]items of {done} have arrived so far[/]")
    if found.progress is None:
        out.print("  no other is on its way: embedding.next.model is not set, or stands already")
        return
    progress, following = found.progress, escape(printable(found.next_model or ""))
    sampled = ""
    if found.sampled_share < 1.0:
        sampled = f", counted in a sample of {found.sampled_share:.2%} of the items"
    out.print(f"[bold]{following}[/] is on its way{sampled}", soft_wrap=True)
    out.print(f"  both      {count(progress.n_both)} items have a vector of both")
    out.print(f"  old only  {count(progress.n_old_only)}")
    out.print(f"  new only  {count(progress.n_new_only)}, which wait for the change")
    reached = f"{progress.share:.2%} of the items that stand have both"
    out.print(f"  share     {reached}; it takes over at {found.wanted_share:.2%}", soft_wrap=True)
