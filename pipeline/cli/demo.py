"""``eddy demo``: a real stream through the real thing, told as a story.

Everything is what a user would run: a broker, the topics, `eddy assigner` and `eddy reclusterer` as
processes. This one plays the two users, who produce embeddings and read changes, and at the end
the judge.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Final

import typer
from rich.markup import escape

from pipeline.cli.audit.report import show
from pipeline.cli.broker import own_broker
from pipeline.cli.children import Services
from pipeline.cli.context import Invocation, invocation
from pipeline.cli.debian import RELEASES, Change, Packages, load
from pipeline.cli.demo_story import Story
from pipeline.cli.output import count, err, out, printable, progress, waiting
from pipeline.cli.replay import Replay, StoppedError
from pipeline.cli.signals import stop_event
from pipeline.cli.topics import create_topics
from pipeline.cli.verify import verify
from pipeline.config import Config, assigner_group
from pipeline.errors import FatalError

app = typer.Typer(add_completion=False)

N_CLUSTERS: Final = 40
_INTERRUPTED: Final = 130
_BROKEN: Final = 1
_VERIFY_S: Final = 60.0


@app.command()
def demo(
    ctx: typer.Context,
    rate: Annotated[
        int, typer.Option("--rate", min=1, help="Changes a second, after the first release.")
    ] = 500,
) -> int:
    """Replay a real stream through everything, and see what happened.

    Debian's packages over five releases: a slice of them is bundled. Takes about a minute. A scratch
    broker is started and removed; where one is configured, topics of the demo's own are made on it.
    """
    asked = invocation(ctx)
    packages = load()
    last_words: deque[str] = deque(maxlen=8)
    with stop_event() as stop:
        try:
            with _everything(asked, packages, last_words) as services:
                return _play(asked, packages, rate, stop, services.check)
        except StoppedError:
            err.print("stopped; everything that was started is ended")
            return _INTERRUPTED
        except FatalError:
            for line in last_words:
                err.print(f"[dim]{escape(printable(line))}[/]", soft_wrap=True)
            raise


@contextmanager
def _everything(
    asked: Invocation, packages: Packages, last_words: deque[str]
) -> Iterator[Services]:
    """Broker, topics and services, for as long as the context lasts."""
    story = Story(packages)
    story.opening()
    started = time.monotonic()
    for key, value in demo_settings(packages).items():
        asked.set(key, value)
    with own_broker(asked, None, 0, lambda line: err.print(f"[dim]{escape(line)}[/]")) as (
        address,
        running,
    ):
        if running is None:
            prefix = f"eddy-demo-{secrets.token_hex(3)}."
            asked.set("topics.prefix", prefix)
            asked.set("topics.input", f"{prefix}embedding-changes")
            asked.set("kafka.group.id", f"{prefix}assigner")
        create_topics(asked.broker(), asked.config)
        services = Services(
            asked.flags, on_line=lambda name, line: last_words.append(f"{name}: {line}")
        )
        with services:
            seconds = time.monotonic() - started
            story.started(address, services.names, asked.config, seconds, is_ours=bool(running))
            yield services


def demo_settings(packages: Packages, *, n_clusters: int = N_CLUSTERS) -> dict[str, str]:
    """What the demo needs whatever is configured: no fit comes but the first, and on command."""
    _, first = next(packages.releases())
    return {
        "embedding.dimensions": str(packages.vectors.shape[1]),
        "embedding.metric": "cosine",
        "embedding.model": "null",
        "embedding.max_component": "null",
        "embedding.content_type": "application/vnd.eddy.vector",
        "clustering.clusters": str(n_clusters),
        "topics.partitions": "6",
        "events.envelope": "plain",
        "recluster.bootstrap_items": str(len(first)),
        "recluster.bootstrap_max_wait_s": "60",
        "recluster.max_updates": "1000000000",
        "recluster.max_age_s": "1000000000",
        "recluster.schedule": "null",
        "state.directory": "null",
        "telemetry.log_format": "json",
    }


def _play(
    asked: Invocation,
    packages: Packages,
    rate: int,
    stop: threading.Event,
    check: Callable[[], None],
) -> int:
    config, broker = asked.config, asked.broker()
    story = Story(packages)
    with closing(Replay(broker, config, packages, stop, check)) as replay:
        releases = list(packages.releases())
        for number, (release, changes) in enumerate(releases):
            story.chapter(RELEASES[release], is_first=number == 0)
            if number == 0:
                _first_release(replay, story, changes)
                continue
            _next_release(replay, story, changes, rate)
            _recluster(replay, story, is_cold=release == releases[-1][0])
        story.summary(replay)
    story.verifying()
    with waiting("verifying"):
        report = verify(
            broker,
            config.topics,
            config.embedding,
            config.limits,
            group_id=assigner_group(config),
            timeout_s=_VERIFY_S,
        )
    show(report, out)
    if not report.ok:
        return _BROKEN
    story.farewell()
    return 0


def _first_release(replay: Replay, story: Story, changes: Sequence[Change]) -> None:
    with progress() as bar:
        task = bar.add_task("producing", total=len(changes))
        replay.produce(changes, on_progress=lambda n: bar.update(task, completed=n))
    story.produced(len(changes))
    with waiting("fitting the first model"):
        fit_s = replay.wait_for(lambda: replay.view.model is not None, "the first model")
    story.first_model(replay, fit_s)
    started = time.monotonic()
    before = replay.view.n_applied
    with progress() as bar:
        task = bar.add_task("assigning", total=replay.n_produced)
        replay.wait_for_all(lambda n: bar.update(task, completed=n))
    seconds = time.monotonic() - started
    replay.note_throughput(replay.view.n_applied - before, seconds)
    replay.view.take_changes()
    story.assigned(replay)


def _next_release(replay: Replay, story: Story, changes: Sequence[Change], rate: int) -> None:
    with progress() as bar:
        task = bar.add_task("packages come, change and go", total=len(changes))
        replay.view.latencies_s.clear()
        replay.produce(
            changes, rate=rate, on_progress=lambda n: bar.update(task, completed=n)
        )
        replay.wait_for_all(lambda n: None)
    story.happened(replay, changes, replay.view.take_changes())


def _recluster(replay: Replay, story: Story, *, is_cold: bool) -> None:
    before = story.clusters
    with waiting("a new model"):
        answer, seconds = replay.recluster(is_cold=is_cold)
    story.reclustered(replay, before, answer, replay.view.take_changes(), seconds, is_cold=is_cold)
