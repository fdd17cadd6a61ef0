"""``eddy doctor``: what keeps Eddy from working here, line by line, with what to do about it.

A check is a function that returns what it found or raises; nothing is written to any topic, and
nothing is asked that needs a broker once the broker turned out to be away.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer
from rich.markup import escape

from pipeline.cli.context import Invocation, invocation
from pipeline.cli.options import flag
from pipeline.cli.output import count, out, print_json, printable
from pipeline.cli.topics import find_problems
from pipeline.config import Config
from pipeline.errors import FatalError, TransientError
from pipeline.services.room import memory_bytes, shortage
from pipeline.streams.contract import Broker
from pipeline.streams.topics import Severity

app = typer.Typer(add_completion=False)

_OK, _NOTE, _BAD = "ok", "note", "!"
_COLOURS: Final = {_OK: "green", _NOTE: "yellow", _BAD: "bold red"}
_MAX_AHEAD_S: Final = 5.0
_CLOCK_LIMIT_S: Final = 5.0
_N_LATEST: Final = 20
_LOW_DISK_BYTES: Final = 2**30
_PINNED: Final = ("confluent-kafka", "numpy", "numba", "scipy")


class Finding(NamedTuple):
    """One line."""

    state: str
    what: str
    text: str


@app.command()
def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, flag("--json", help="One line of JSON a check.")] = False,
) -> int:
    """Look for what keeps Eddy from working, and say what to do.

    Each line is ok, a note, or ! with what to do; exit code 1 when there is a !. Writes nothing.
    """
    n_bad = 0
    for finding in examine(invocation(ctx)):
        n_bad += finding.state == _BAD
        if as_json:
            print_json({"check": finding.what, "state": finding.state, "text": finding.text})
            continue
        mark = f"[{_COLOURS[finding.state]}]{finding.state:<4}[/]"
        what = f"[bold]{finding.what:<9}[/]"
        out.print(f"{mark}  {what}  {escape(printable(finding.text))}", soft_wrap=True)
    return 1 if n_bad else 0


def examine(asked: Invocation) -> Iterator[Finding]:
    """The findings, each as soon as it is known."""
    yield from _tried("versions", _versions)
    configured: list[Config] = []

    def config() -> Iterator[Finding]:
        configured.append(asked.config)
        n_set = sum(asked.loaded.is_set(key) for key in asked.loaded.origins)
        yield Finding(_OK, "config", f"read; options that are not their default: {n_set}")

    yield from _tried("config", config)
    if not configured:
        return
    yield from _tried("device", lambda: _device(asked))
    yield from _tried("state", lambda: _state(asked.config))
    yield from _tried("memory", lambda: _memory(asked.config))
    reached: list[Broker] = []

    def broker() -> Iterator[Finding]:
        started = time.perf_counter()
        reached.append(asked.broker())
        address = asked.config.kafka.get("bootstrap.servers", "nowhere")
        took_ms = (time.perf_counter() - started) * 1000
        yield Finding(_OK, "broker", f"{address} answers after {took_ms:.0f} ms")

    yield from _tried("broker", broker)
    if not reached:
        return
    yield from _tried("topics", lambda: _topics(reached[0], asked.config))
    yield from _tried("clock", lambda: _clock(reached[0], asked.config))


def _tried(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What the check found, up to where it failed."""
    try:
        yield from check()
    except (FatalError, TransientError) as error:
        yield Finding(_BAD, what, str(error))


def _versions() -> Iterator[Finding]:
    """Held against the package's own requirements, so that no pin is written twice."""
    words = [f"Python {platform.python_version()}"]
    wrong = []
    try:
        own = distribution("eddy-stream")
        words.insert(0, f"eddy {own.version}")
        needed = own.requires or []
    except PackageNotFoundError:
        needed = []
    for name in _PINNED:
        found = distribution(name).version
        words.append(f"{name} {found}")
        bounds = next((_bounds(line, name) for line in needed if _bounds(line, name)), "")
        if not _satisfies(found, bounds):
            wrong.append(f"{name} {found} is not {bounds}: pip install '{name}{bounds}'")
    yield Finding(_OK, "versions", ", ".join(words))
    for sentence in wrong:
        yield Finding(_BAD, "versions", sentence)


def _bounds(requirement: str, name: str) -> str:
    """``>=2.15.1,<2.16`` of the line of that package; nothing of another's."""
    plain = requirement.partition(";")[0].replace(" ", "").replace("(", "").replace(")", "")
    rest = plain.removeprefix(name)
    return rest if rest != plain and rest[:1] in "<>=!~" else ""


def _satisfies(version: str, bounds: str) -> bool:
    """Of the forms that this package's requirements use: >=, <, and joined by commas."""
    for bound in filter(None, bounds.split(",")):
        if bound.startswith(">=") and _parts(version) < _parts(bound[2:]):
            return False
        if (
            bound.startswith("<")
            and not bound.startswith("<=")
            and _parts(version) >= _parts(bound[1:])
        ):
            return False
    return True


def _parts(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _device(asked: Invocation) -> Iterator[Finding]:
    from pipeline.kernels.choose import why
    from pipeline.kernels.devices import device_name

    kernels = asked.kernels()
    cores = os.cpu_count() or 1
    given = f"device.kind {asked.config.device.kind}"
    on = f"kernels {kernels.name} ({given}) on {device_name(kernels)}, {cores} cores seen"
    yield Finding(_OK, "device", f"{on}; {why(asked.config.device)}")


def _state(config: Config) -> Iterator[Finding]:
    directory = config.state.directory
    if directory is None:
        yield Finding(_OK, "state", "no folder: state is read back from the topics at every start")
        return
    # an assigner makes it, and the folders above it
    there = Path(directory)
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        yield Finding(_BAD, "state", f"{there} is no folder: move it, or mend state.directory")
        return
    if not os.access(there, os.W_OK):
        yield Finding(_BAD, "state", f"{there} cannot be written by this user")
        return
    free = shutil.disk_usage(there).free
    state = _NOTE if free < _LOW_DISK_BYTES else _OK
    made = "" if there == Path(directory) else ", which an assigner makes"
    yield Finding(state, "state", f"{directory}{made}, {free / 2**30:.1f} GiB free")


def _memory(config: Config) -> Iterator[Finding]:
    n_bytes = memory_bytes()
    problem = shortage(config, n_bytes)
    if problem is not None:
        yield Finding(_NOTE, "memory", problem)
        return
    n_items = config.limits.max_items_per_partition
    there = f"{n_bytes / 2**30:.1f} GiB"
    yield Finding(_OK, "memory", f"{there}, enough for a partition of {count(n_items)} items")


def _topics(broker: Broker, config: Config) -> Iterator[Finding]:
    found, problems = find_problems(broker, config)
    if not found:
        yield Finding(_BAD, "topics", "there are none yet: run eddy topics create")
        return
    for problem in problems:
        state = _BAD if problem.severity == Severity.ERROR else _NOTE
        yield Finding(state, "topics", problem.message)
    if not problems:
        n = config.topics.partitions
        yield Finding(_OK, "topics", f"{len(found)} as they should be, {n} partitions")


def _clock(broker: Broker, config: Config) -> Iterator[Finding]:
    """Whether the newest records come from the future: then a clock, theirs or ours, is wrong."""
    topic = config.topics.input
    if topic not in broker.topics([topic]):
        return
    ranges = broker.ranges(topic)
    starts = {p: max(r.low, r.high - _N_LATEST) for p, r in ranges.items() if r.high > r.low}
    if not starts:
        yield Finding(_OK, "clock", f"nothing to hold it against: {topic} is empty")
        return
    newest_ms = -1
    reader = broker.reader(topic, starts)
    try:
        deadline = time.monotonic() + _CLOCK_LIMIT_S
        while not reader.at_end and time.monotonic() < deadline:
            for record in reader.read(1000, timeout_s=0.2):
                newest_ms = max(newest_ms, record.timestamp_ms or -1)
    finally:
        reader.close()
    if newest_ms < 0:
        yield Finding(_OK, "clock", f"nothing to hold it against: no timestamps in {topic}")
        return
    ahead_s = newest_ms / 1000 - time.time()
    if ahead_s > _MAX_AHEAD_S:
        yield Finding(
            _BAD,
            "clock",
            f"the newest record of {topic} is {count(round(ahead_s))} s in the future: set this "
            "machine's clock, or its producer's (latencies are measured against it)",
        )
        return
    yield Finding(_OK, "clock", f"no record of {topic} comes from the future")
