"""``eddy verify``: reads the topics and says whether the promises were kept.

An independent judge: it knows the published formats and rules and nothing of the product's
own state, decodes with the standard library and calculates in float64 numpy. It waits for a
quiet moment, reads everything, and reads again if something moved meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

from pipeline.cli.audit.judge import Judge, Progress
from pipeline.cli.audit.report import Report, show
from pipeline.cli.audit.watch import Watch
from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import out, print_json, printable, waiting
from pipeline.config import assigner_group
from pipeline.errors import TransientError
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy
from pipeline.streams.contract import Broker
from pipeline.streams.topics import TopicPolicy

app = typer.Typer(add_completion=False)

_POLL_S = 0.2
_BROKEN = 1


@app.command("verify")
def verify_command(
    ctx: typer.Context,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait for quiet."),
    ] = 60.0,
    as_json: Annotated[bool, flag("--json", help="One line of JSON.")] = False,
) -> int:
    """Read the topics and check the promises.

    Waits until everything produced so far is applied and swept; then reads all of it and checks,
    with arithmetic of its own, that what the topics say fits together. Exit code 1 when a promise
    is broken or no quiet moment comes.
    """
    asked = invocation(ctx)
    config = asked.config
    wheel = waiting("verifying")
    with wheel:
        report = verify(
            asked.broker(),
            config.topics,
            config.embedding,
            config.limits,
            group_id=assigner_group(config),
            timeout_s=timeout_s,
            progress=lambda what: wheel.update(wheel.task_ids[0], description=printable(what)),
        )
    if as_json:
        print_json(report.as_json())
    else:
        show(report, out)
    return 0 if report.ok else _BROKEN


def verify(
    broker: Broker,
    topics: TopicPolicy,
    embedding: EmbeddingPolicy,
    limits: LimitPolicy,
    *,
    group_id: str,
    timeout_s: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
) -> Report:
    """Wait for a quiet moment, read all topics at read_committed, check every promise.

    Parameters
    ----------
    group_id
        Of the assigners; its committed offsets say how much of the input was applied.
    timeout_s
        How long to wait for the quiet moment; what is still moving then is in the report.

    Raises
    ------
    TopicError
        A topic is missing.
    UnreachableError
        The broker does not answer.
    """
    judge = Judge(broker, topics, embedding, limits, group_id, progress or (lambda _: None))
    started = clock()
    with closing(Watch(broker, topics, group_id, clock)) as watch:
        while True:
            try:
                reasons = watch.look(deadline=started + timeout_s)
                if watch.model_missing:
                    return Report("there is no model yet, so nothing is clustered")
                if not reasons:
                    quiet_at = clock()
                    before = watch.marks()
                    # it must have been quiet at the marks: a revision may have come before them
                    reasons = watch.look(deadline=started + timeout_s)
                if not reasons:
                    report = judge.read_and_check()
                    if watch.marks() == before:
                        waited_s, duration_s = quiet_at - started, clock() - quiet_at
                        return replace(report, waited_s=waited_s, duration_s=duration_s)
                    reasons = ["something was written while the topics were read"]
            except TransientError as error:
                reasons = [str(error)]
            waited_s = clock() - started
            if waited_s >= timeout_s:
                problem = f"no quiet moment within {timeout_s:g} s"
                return Report(problem, tuple(reasons), waited_s=waited_s)
            judge.progress(f"waiting for a quiet moment: {reasons[0]}")
            sleep(_POLL_S)
