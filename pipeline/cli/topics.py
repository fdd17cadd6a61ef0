"""``eddy topics``: make what is missing, and say what is wrong with what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipeline.cli.acls import acls
from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import out, print_json, table
from pipeline.config import Config
from pipeline.errors import TopicError
from pipeline.streams.contract import Broker, TopicSettings
from pipeline.streams.topics import (
    Problem,
    Severity,
    check_topics,
    cleanup_policy,
    expected_topics,
)

app = typer.Typer(add_completion=False)
app.command("acls")(acls)

_AsJson = Annotated[bool, flag("--json", help="One line of JSON.")]
_FOUND_PROBLEMS = 1


@app.callback()
def topics() -> None:
    """Make the topics, or say what is wrong with them."""


@app.command()
def create(ctx: typer.Context, as_json: _AsJson = False) -> int:
    """Make the topics that are missing; then check them all.

    A topic that exists is left as it is: partition counts are for life, and retention is yours.
    """
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    made = make_missing(broker, config)
    return _report(broker, config, made, as_json=as_json)


@app.command()
def check(ctx: typer.Context, as_json: _AsJson = False) -> int:
    """Say what is wrong with the topics; exit code 1 when something is."""
    config, broker = invocation(ctx).config, invocation(ctx).broker()
    return _report(broker, config, [], as_json=as_json)


def make_missing(broker: Broker, config: Config) -> list[str]:
    """Create the topics that are not there; their names."""
    expected = expected_topics(config.topics, config.limits.max_record_bytes)
    found = broker.topics(topic.name for topic in expected)
    missing = [topic for topic in expected if topic.name not in found]
    if missing:
        broker.create_topics(missing, replication_factor=config.topics.replication_factor)
    return [topic.name for topic in missing]


def find_problems(
    broker: Broker, config: Config
) -> tuple[Mapping[str, TopicSettings], list[Problem]]:
    """The topics that exist, and what is wrong."""
    expected = expected_topics(config.topics, config.limits.max_record_bytes)
    found = broker.topics(topic.name for topic in expected)
    return found, check_topics(found, config.topics, config.limits.max_record_bytes)


def create_topics(broker: Broker, config: Config) -> list[str]:
    """Create what is missing, and `TopicError` if what is there breaks a promise."""
    made = make_missing(broker, config)
    _, problems = find_problems(broker, config)
    errors = [problem.message for problem in problems if problem.severity == Severity.ERROR]
    if errors:
        more = f"; and {len(errors) - 1} more, see eddy topics check" if errors[1:] else ""
        raise TopicError(errors[0] + more)
    return made


def _report(broker: Broker, config: Config, made: Sequence[str], *, as_json: bool) -> int:
    found, problems = find_problems(broker, config)
    broken = any(problem.severity == Severity.ERROR for problem in problems)
    if as_json:
        print_json(_as_json(config, found, problems, made))
        return _FOUND_PROBLEMS if broken else 0

    shown = table("", "topic", "partitions", "policy", "", right=["partitions"])
    for name in config.topics.names:
        settings = found.get(name)
        found_here = {problem.severity for problem in problems if problem.topic == name}
        mark = "[green]ok[/]" if not found_here else "[yellow]![/]"
        mark = "[bold red]![/]" if Severity.ERROR in found_here else mark
        if settings is None:
            shown.add_row(mark, escape(name), "", "", "[red]missing[/]")
            continue
        said = "[green]made[/]" if name in made else ""
        policy = cleanup_policy(settings)
        shown.add_row(mark, escape(name), str(settings.n_partitions), policy, said)
    out.print(shown)
    for problem in problems:
        colour = "red" if problem.severity == Severity.ERROR else "yellow"
        out.print(f"[{colour}]{problem.severity}[/]  {escape(problem.message)}", soft_wrap=True)
    return _FOUND_PROBLEMS if broken else 0


def _as_json(
    config: Config,
    found: Mapping[str, TopicSettings],
    problems: Sequence[Problem],
    made: Sequence[str],
) -> dict[str, Any]:
    return {
        "topics": [
            {
                "name": name,
                "exists": name in found,
                "created": name in made,
                "partitions": found[name].n_partitions if name in found else None,
                "policy": cleanup_policy(found[name]) if name in found else None,
            }
            for name in config.topics.names
        ],
        "problems": [
            {"severity": str(p.severity), "topic": p.topic, "message": p.message} for p in problems
        ],
    }
