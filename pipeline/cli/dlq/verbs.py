"""``eddy dlq``: the records that could not be used, why not, and their way back."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.markup import escape

from pipeline.cli.context import Invocation, invocation
from pipeline.cli.dlq.letters import (
    add_letter,
    letter_line,
    letter_whole,
    letters_table,
    print_letter,
    reason_of,
)
from pipeline.cli.dlq.redrive import Chosen, Plan, carry_out, make_plan
from pipeline.cli.options import TIME_HELP, flag, moment_ms, place
from pipeline.cli.output import count, out, print_json, printable, some
from pipeline.cli.reading import onward
from pipeline.errors import TopicError, UsageError
from pipeline.messages.dead_letters import read_letter
from pipeline.messages.records import Record
from pipeline.streams.contract import Broker

app = typer.Typer(add_completion=False)

_NEWEST: Final = 20
_NOT_ALL: Final = 1

ReasonChoice = Annotated[
    str | None, typer.Option("--reason", metavar="REASON", help="Only these, as dimension.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help=f"Only those written since then: {TIME_HELP}."),
]
JsonLine = Annotated[bool, flag("--json", help="One line of JSON.")]


@app.callback()
def dlq() -> None:
    """Look at the records that could not be used, and send them again."""


@app.command("list")
def list_letters(
    ctx: typer.Context,
    reason: ReasonChoice = None,
    since: SinceOption = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="So many of the newest letters.")
    ] = _NEWEST,
    as_json: JsonLine = False,
) -> None:
    """Count the dead letters by reason, and show the newest.

    A letter is named by its partition and offset among the dead letters; source is where its
    record stood in the input.
    """
    asked = invocation(ctx)
    broker, topic = asked.broker(), asked.config.topics.dead_letters
    counts: Counter[str] = Counter()
    newest: list[tuple[int, int, int, Chosen]] = []
    for _, one in _letters(broker, topic, reason, since):
        letter = one.letter
        counts[reason_of(letter)] += 1
        entry = (letter.written_at_ms or 0, letter.offset, letter.partition, one)
        if len(newest) < limit:
            heapq.heappush(newest, entry)
        elif limit:
            heapq.heappushpop(newest, entry)
    shown = [one for *_, one in sorted(newest, key=lambda entry: entry[:3], reverse=True)]
    if as_json:
        print_json(
            {
                "topic": topic,
                "letters": counts.total(),
                "reasons": dict(counts.most_common()),
                "newest": [letter_line(one.letter, one.key) for one in shown],
            }
        )
        return
    if not counts:
        out.print(f"no dead letters in [bold]{escape(topic)}[/]", soft_wrap=True)
        return
    said = ", ".join(f"{count(n)} {escape(word)}" for word, n in counts.most_common())
    out.print(f"[bold]{count(counts.total())}[/] in {escape(topic)}: {said}", soft_wrap=True)
    if shown:
        rows = letters_table()
        for one in shown:
            add_letter(rows, one.letter, one.key)
        out.print(rows)


@app.command()
def show(
    ctx: typer.Context,
    letter: Annotated[
        str, typer.Argument(metavar="PARTITION:OFFSET", help="The letter, as list shows it.")
    ],
    as_json: JsonLine = False,
) -> None:
    """Show one letter in full: headers, and what its value looks like.

    With --json also the bytes of key, value and headers, as base64.
    """
    partition, offset = place(letter, "the letter")
    asked = invocation(ctx)
    broker, topic = asked.broker(), asked.config.topics.dead_letters
    _check_topic(broker, topic)
    held = broker.ranges(topic).get(partition)
    if held is not None and held.low <= offset < held.high:
        for records in onward(broker, topic, {partition: offset}):
            if records[0].offset == offset:
                if as_json:
                    print_json(letter_whole(read_letter(records[0]), records[0]))
                else:
                    print_letter(read_letter(records[0]), records[0])
                return
            break
    raise UsageError(f"{topic} holds no letter {partition}:{offset}: eddy dlq list shows them")


@app.command()
def redrive(
    ctx: typer.Context,
    letters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PARTITION:OFFSET]...", help="These letters; none named: all of them."
        ),
    ] = None,
    reason: ReasonChoice = None,
    since: SinceOption = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Only say what would be done.")] = False,
    even_if_newer: Annotated[
        bool,
        flag("--even-if-newer", help="Also over a newer record of the item in the input."),
    ] = False,
    as_json: JsonLine = False,
) -> int:
    """Send dead letters again: each to its partition of the input.

    Key, value and own headers are as they were, with one header more, eddy-redriven, that names
    the letter. An item that the input holds a newer record of is passed over. So it is safe to run
    twice: what came back is passed over, unless --even-if-newer is given and compaction has taken
    it since. The letters stay where they are. A record that is no better now becomes a letter
    again. Exit code 1 when a letter that was named cannot go back.
    """
    asked = invocation(ctx)
    wanted = {place(word, "a letter") for word in letters or ()}
    broker, topics = asked.broker(), asked.config.topics
    found = [
        one
        for where, one in _letters(broker, topics.dead_letters, reason, since)
        if not wanted or where in wanted
    ]
    missing = wanted - {(one.letter.partition, one.letter.offset) for one in found}
    if missing:
        names = some(f"{partition}:{offset}" for partition, offset in sorted(missing))
        raise UsageError(f"{topics.dead_letters} holds no letter {names} of that kind")
    inputs = broker.topics([topics.input])
    if topics.input not in inputs:
        raise TopicError(f"{topics.input} does not exist: run eddy topics create")
    plan = make_plan(broker, topics, inputs[topics.input], found, even_if_newer=even_if_newer)
    n_written = len(plan.write) if dry_run else carry_out(broker, topics, plan)
    _tell(asked, plan, n_written, is_done=not dry_run, as_json=as_json)
    return _NOT_ALL if wanted and plan.refused else 0


def _tell(asked: Invocation, plan: Plan, n_written: int, *, is_done: bool, as_json: bool) -> None:
    topic = asked.config.topics.input
    if as_json:
        print_json(
            {
                "topic": topic,
                "dry_run": not is_done,
                "redriven": n_written,
                "skipped": {"newer": plan.n_newer, "redriven_before": plan.n_redriven},
                "refused": [
                    {"because": why, "letters": places} for why, places in plan.refused.items()
                ],
            }
        )
        return
    verb = "went back to" if is_done else "would go back to"
    out.print(f"[green]{count(n_written)}[/] {verb} [bold]{escape(topic)}[/]", soft_wrap=True)
    if plan.n_redriven:
        out.print(f"{count(plan.n_redriven)} passed over: they went back before", soft_wrap=True)
    if plan.n_newer:
        out.print(
            f"{count(plan.n_newer)} passed over: the input holds a newer record of the item "
            "(--even-if-newer overwrites it)",
            soft_wrap=True,
        )
    for why, places in plan.refused.items():
        out.print(
            f"[yellow]{count(len(places))} refused[/]: {escape(why)} ({some(places)})",
            soft_wrap=True,
        )


def _letters(
    broker: Broker, topic: str, reason: str | None, since: str | None
) -> Iterator[tuple[tuple[int, int], Chosen]]:
    """The letters that are asked for, without their values."""
    from_ms = None if since is None else moment_ms(since, "--since")
    _check_topic(broker, topic)
    for records in onward(broker, topic):
        for record in records:
            one = _chosen(record)
            if reason is not None and reason_of(one.letter) != printable(reason):
                continue
            if from_ms is not None and (record.timestamp_ms or 0) < from_ms:
                continue
            yield (record.partition, record.offset), one


def _chosen(record: Record) -> Chosen:
    return Chosen(read_letter(record), record.key)


def _check_topic(broker: Broker, topic: str) -> None:
    if topic not in broker.topics([topic]):
        raise TopicError(f"{topic} does not exist: run eddy topics create")
