"""``eddy demo``: a real stream through the real thing, told as a story.

Everything is what a user would run: a broker, the topics, `eddy assigner` and `eddy reclusterer` as
processes. This one plays the two users, who produce embeddings and read changes, and at the end
the judge.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Annotated, Final

import typer
from rich.markup import escape

from pipeline.cli.audit.report import show
from pipeline.cli.context import Invocation, invocation
from pipeline.cli.demo.debian import RELEASES, Change, Packages, load
from pipeline.cli.demo.replay import Replay, StoppedError
from pipeline.cli.demo.scenery import scenery
from pipeline.cli.demo.story import Story
from pipeline.cli.local.beside import missing_library
from pipeline.cli.options import flag
from pipeline.cli.output import err, out, printable, progress, waiting
from pipeline.cli.page import open_page
from pipeline.cli.signals import stop_event
from pipeline.cli.verify import verify
from pipeline.config import assigner_group
from pipeline.errors import FatalError, UsageError

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
    page: Annotated[
        bool, flag("--page", help="Show it in a browser, too; Ctrl-C ends it then.")
    ] = False,
) -> int:
    """Replay a real stream through everything, and see what happened.

    Debian's packages over five releases: a slice of them is bundled. Takes about a minute. A
    scratch broker is started and removed; where one is configured, topics of the demo's own are
    made on it.
    """
    asked = invocation(ctx)
    library = missing_library() if page else None
    if library is not None:
        raise UsageError(f"--page needs {library}: pip install 'eddy-stream[server]'")
    packages = load()
    story = Story(packages)
    last_words: deque[str] = deque(maxlen=8)
    with stop_event() as stop:
        try:
            story.opening()
            started = time.monotonic()
            with scenery(
                asked, packages, last_words, n_clusters=N_CLUSTERS, has_page=page
            ) as found:
                story.started(found, asked.config, time.monotonic() - started)
                if found.page is not None:
                    open_page(found.page, stop)
                code = _play(asked, packages, story, rate, stop, found.services.check)
                if found.page is not None and out.is_terminal:
                    story.staying(found.page)
                    found.services.wait(stop)
                return code
        except StoppedError:
            err.print("stopped; everything that was started is ended")
            return _INTERRUPTED
        except FatalError:
            for line in last_words:
                err.print(f"[dim]{escape(printable(line))}[/]", soft_wrap=True)
            raise


def _play(
    asked: Invocation,
    packages: Packages,
    story: Story,
    rate: int,
    stop: threading.Event,
    check: Callable[[], None],
) -> int:
    config, broker = asked.config, asked.broker()
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
    with progress() as bar:
        task = bar.add_task("assigning", total=replay.n_produced)
        replay.wait_for_all(lambda n: bar.update(task, completed=n))
    story.assigned(replay, replay.view.take_changes())


def _next_release(replay: Replay, story: Story, changes: Sequence[Change], rate: int) -> None:
    with progress() as bar:
        task = bar.add_task("packages come, change and go", total=len(changes))
        replay.view.latencies_s.clear()
        replay.produce(changes, rate=rate, on_progress=lambda n: bar.update(task, completed=n))
        replay.wait_for_all(lambda n: None)
    story.happened(replay, changes, replay.view.take_changes())


def _recluster(replay: Replay, story: Story, *, is_cold: bool) -> None:
    with waiting("a new model"):
        answer, seconds = replay.recluster(is_cold=is_cold)
    story.reclustered(replay, answer, replay.view.take_changes(), seconds, is_cold=is_cold)
