"""``eddy produce``: a file of embeddings into the input topic.

Every row is judged as the assigner will judge it, before it is sent: a bad one ends the command
with its place in the file, and everything before it is in the topic. What the broker has
acknowledged is noted beside the file, so that ``--resume`` goes on there.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import count, err, out, print_json, progress
from pipeline.cli.signals import stop_event
from pipeline.cli.sources import Given, Row, Source, open_source
from pipeline.config import Config
from pipeline.errors import FatalError, TopicError, UsageError
from pipeline.messages.codec import decode, json_bytes, json_value
from pipeline.messages.records import Outgoing, Record
from pipeline.streams.contract import Producer

app = typer.Typer(add_completion=False)

_JUDGED_TOGETHER: Final = 500
_ACKNOWLEDGED_TOGETHER: Final = 5_000
_INTERRUPTED: Final = 130


@app.command()
def produce(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".npy, .jsonl or .parquet")],
    ids: Annotated[
        Path | None, typer.Option("--ids", metavar="FILE", help="For .npy: one id a line.")
    ] = None,
    sequence: Annotated[
        int,
        typer.Option(
            min=0,
            help="The version of every row without its own. A record that is not above its item's "
            "last one is ignored; 0 is no version.",
        ),
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="The embedding model that made the vectors, for rows that name none.",
        ),
    ] = None,
    resume: Annotated[
        bool, flag("--resume", help="Go on after what was acknowledged the last time.")
    ] = False,
    as_json: Annotated[bool, flag("--json", help="The summary as one line of JSON.")] = False,
) -> int:
    """Feed a file of embeddings to the input topic.

    .npy: vectors (n, dimensions), with --ids FILE. .jsonl: {"item", "vector"} and perhaps
    "sequence", "metadata", "embedding_model"; a vector is a list or base64 of float32, null
    removes the item. .parquet: columns item and vector, perhaps sequence.
    """
    config = invocation(ctx).config
    embedding = config.embedding
    known = embedding.successor if model == embedding.next.model else None
    dimensions = (known or embedding).dimensions
    given = Given(dimensions, embedding.content_type, sequence, model)
    source = open_source(file, ids, given)
    log = _AckLog(file.with_name(f"{file.name}.progress"), config.topics.input)
    after = log.read(source) if resume else 0

    broker = invocation(ctx).broker()
    if config.topics.input not in broker.topics([config.topics.input]):
        raise TopicError(f"{config.topics.input} does not exist: run eddy topics create")
    feed = _Feed(config, source, broker.producer(), log, n_done=after)
    started = time.monotonic()
    with stop_event() as stop, progress() as bar:
        task = bar.add_task(escape(file.name), total=source.total, completed=after)
        try:
            for n_done in feed.run(stop):
                bar.update(task, completed=n_done)
        except (UsageError, FatalError) as error:
            raise type(error)(f"{error}; {feed.state()}") from error
    seconds = time.monotonic() - started

    if stop.is_set():
        err.print(f"stopped: {escape(feed.state())}", soft_wrap=True)
        return _INTERRUPTED
    log.forget()
    if as_json:
        print_json(
            {
                "topic": config.topics.input,
                "records": feed.n_records,
                "tombstones": feed.n_tombstones,
                "skipped": after,
                "duration_s": round(seconds, 3),
            }
        )
        return 0
    removals = f", {count(feed.n_tombstones)} of them remove an item" if feed.n_tombstones else ""
    rate = f"{count(round(feed.n_records / seconds))}/s" if seconds > 0 else ""
    topic = escape(config.topics.input)
    out.print(
        f"[green]{count(feed.n_records)}[/] records in [bold]{topic}[/]{removals}; "
        f"{seconds:.1f} s, {rate}",
        soft_wrap=True,
    )
    return 0


class _Feed:
    """Rows of a source on their way to the topic."""

    def __init__(
        self, config: Config, source: Source, producer: Producer, log: _AckLog, *, n_done: int
    ) -> None:
        self._config = config
        self._source = source
        self._producer = producer
        self._log = log
        self._acknowledged = n_done
        self.n_records = 0
        self.n_tombstones = 0

    def run(self, stop: threading.Event) -> Iterator[int]:
        """Send what is left, and say how far it is acknowledged; ends early when told to stop.

        Raises
        ------
        UsageError
            A bad row; all rows before it are acknowledged.
        FatalError
            The broker did not take something.
        """
        rows = self._source.rows(self._acknowledged)
        chunks = _chunks(rows, _JUDGED_TOGETHER)
        n_open, last = 0, None
        problem: UsageError | None = None
        while problem is None and not stop.is_set():
            chunk, problem = next(chunks, ([], None))
            good, found = self._judge(chunk)
            problem = found or problem
            for row in good:
                self._producer.write(
                    Outgoing(self._config.topics.input, -1, row.key, row.value, row.headers)
                )
            n_open, last = n_open + len(good), good[-1] if good else last
            if n_open >= _ACKNOWLEDGED_TOGETHER or problem or not chunk:
                self._acknowledge(last)
                n_open = 0
                yield self._acknowledged
            self.n_records += len(good)
            self.n_tombstones += sum(row.value is None for row in good)
            if not chunk:
                break
        if stop.is_set():
            self._acknowledge(last)
        if problem is not None:
            raise problem

    def state(self) -> str:
        """How far it came, and what to do about the rest."""
        n, unit = count(self._acknowledged), self._source.unit
        if not self._acknowledged:
            return f"nothing of it is in {self._config.topics.input}"
        return f"up to {unit} {n} it is in {self._config.topics.input}, --resume goes on after that"

    def _judge(self, rows: Sequence[Row]) -> tuple[Sequence[Row], UsageError | None]:
        """The rows before the first bad one, and what is wrong with that."""
        records = [Record(0, 0, row.key, row.value, None, row.headers) for row in rows]
        errors = decode(records, self._config.embedding, self._config.limits).errors
        if not errors:
            return rows, None
        i, error = min(errors.items())
        where = f"{self._source.unit} {rows[i].number}"
        return rows[:i], UsageError(f"{self._log.file} {where}: {error}")

    def _acknowledge(self, last: Row | None) -> None:
        self._producer.flush()
        if last is not None:
            self._acknowledged = last.number
            self._log.write(last)


def _chunks(rows: Iterator[Row], size: int) -> Iterator[tuple[list[Row], UsageError | None]]:
    """Lists of rows; the last one may come with the error that ended them."""
    while True:
        chunk: list[Row] = []
        try:
            for row in itertools.islice(rows, size):
                chunk.append(row)  # one by one: what came before an error is kept
        except UsageError as error:
            yield chunk, error
            return
        if not chunk:
            return
        yield chunk, None


@dataclass(slots=True)
class _AckLog:
    """A small file beside the source: how far it is acknowledged, and what stood there."""

    path: Path
    topic: str
    is_writable: bool = True

    @property
    def file(self) -> str:
        """The source's name."""
        return str(self.path).removesuffix(".progress")

    def read(self, source: Source) -> int:
        """The number of the last acknowledged row; 0 without one.

        Raises
        ------
        UsageError
            It tells of another topic, or the file has changed up to there.
        """
        try:
            noted: Any = json_value(self.path.read_bytes())
        except FileNotFoundError:
            err.print(f"no {escape(str(self.path))}: beginning at the first {source.unit}")
            return 0
        if noted["topic"] != self.topic:
            raise UsageError(
                f"{self.path} tells of the topic {noted['topic']}, not of {self.topic}: "
                "begin anew without --resume"
            )
        number = int(noted["number"])
        row = next(source.rows(number - 1), None)
        if row is None or row.number != number or _digest(row) != noted["digest"]:
            raise UsageError(
                f"{self.file} has changed: {source.unit} {number} is not the one that was "
                "acknowledged last; begin anew without --resume"
            )
        return number

    def write(self, row: Row) -> None:
        """Note the last acknowledged row."""
        if not self.is_writable:
            return
        noted = {"topic": self.topic, "number": row.number, "digest": _digest(row)}
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            fresh.write_bytes(json_bytes(noted))
            os.replace(fresh, self.path)
        except OSError as error:
            self.is_writable = False
            err.print(
                f"[yellow]{escape(str(self.path))} cannot be written ({error.strerror}): "
                "--resume will not work[/]",
                soft_wrap=True,
            )

    def forget(self) -> None:
        """Everything is acknowledged."""
        with contextlib.suppress(OSError):
            self.path.unlink()


def _digest(row: Row) -> str:
    return hashlib.blake2b(row.key + b"\0" + (row.value or b""), digest_size=16).hexdigest()
