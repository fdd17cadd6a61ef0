"""``eddy replay``: the assignments once more, under a second prefix, up to now or to a time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from pipeline.cli.context import Invocation, invocation
from pipeline.cli.options import TIME_HELP, flag, moment_ms, places
from pipeline.cli.output import count, err, out, print_json, progress, some
from pipeline.cli.reading import onward, read_models, whole
from pipeline.cli.signals import stop_event
from pipeline.cli.topics import create_topics
from pipeline.config import Config, assigner_group, instance
from pipeline.errors import FatalError, TopicError, UsageError
from pipeline.messages.codec import timestamp
from pipeline.messages.model import MANIFEST_KEY, Model, ModelFold, label_record, model_records
from pipeline.services.assigner.rebuild import Part, Rebuild, RebuildReports, check_starts, survey
from pipeline.services.launch import new_assigner
from pipeline.services.lifecycle import serve
from pipeline.streams.contract import Broker
from pipeline.streams.topics import TopicPolicy, cleanup_policy
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import configure, get_logger
from pipeline.telemetry.metrics import Metrics

app = typer.Typer(add_completion=False)

_INTERRUPTED: Final = 130
_COMPACT: Final = "compact"


@app.command()
def replay(
    ctx: typer.Context,
    into: Annotated[
        str, typer.Option("--into", metavar="PREFIX", help="The second prefix; nothing is in it.")
    ],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help=f"Only what was produced before: {TIME_HELP}."),
    ] = None,
    from_offsets: Annotated[
        str | None,
        typer.Option(
            "--from-offsets",
            metavar="P:OFFSET,...",
            help="Begin there, as 0:120,1:77; a partition that is not named begins at its "
            "beginning.",
        ),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            "--epoch",
            min=1,
            help="The model: the last revision of this kept epoch, instead of the newest, or with "
            "--at of the newest of that time.",
        ),
    ] = None,
    as_json: Annotated[bool, flag("--json", help="The summary as one line of JSON.")] = False,
) -> int:
    """Build the assignments once more, under a second prefix.

    Makes the prefix's topics, publishes one model there, and runs the assigner over the input as
    it is now, under the group <PREFIX>assigner. Dead letters are counted and not written. Under
    one model the same input makes the same events, byte for byte; what another model made, ends in
    the same assignments once it is swept. The prefix is a whole one: verify it with
    --set topics.prefix=PREFIX, or let an assigner go on with it. An interrupted replay cannot be
    taken up: delete the prefix's topics and the group, or take another prefix.
    """
    asked = invocation(ctx)
    at_ms = None if at is None else moment_ms(at, "--at")
    starts = places([from_offsets], "--from-offsets") if from_offsets else {}
    config = _second(asked.config, into)
    broker = asked.broker()
    policy = _input_policy(broker, config.topics)
    fold, model = _choose_model(broker, asked.config, at_ms, epoch)
    _check_unused(broker, config)
    ranges = broker.ranges(config.topics.input)
    check_starts(starts, ranges, config.topics.input)
    begins = {p: starts.get(p, held.low) for p, held in ranges.items()}
    parts = _survey(broker, config.topics.input, begins, at_ms)

    create_topics(broker, config)
    _publish(broker, config.topics, fold, model)
    with stop_event() as stop:
        rebuild, reports, seconds = _run(asked, config, broker, policy, parts, stop)
    if not rebuild.is_done:
        err.print(
            f"[yellow]stopped after {count(reports.n_records)} records: delete the topics of "
            f"{escape(into)} and the group {escape(assigner_group(config))}, or take another "
            "prefix[/]",
            soft_wrap=True,
        )
        return _INTERRUPTED
    told = _summary(config, model, policy, rebuild, reports, seconds, is_begun_late=bool(starts))
    if as_json:
        print_json(told)
    else:
        _print(told)
    return 0


def _second(config: Config, prefix: str) -> Config:
    """The configuration under the second prefix; its group is never the configured one."""
    if prefix == config.topics.prefix:
        raise UsageError(f"--into is {prefix!r}, the configured prefix: name another")
    topics = replace(config.topics, prefix=prefix)
    kafka = {name: value for name, value in config.kafka.items() if name != "group.id"}
    second = replace(config, topics=topics, kafka=kafka)
    # the live assigners' folder of snapshots is none of ours
    second = replace(second, state=replace(second.state, directory=None))
    if assigner_group(second) == assigner_group(config):
        raise UsageError(f"{assigner_group(config)} is the configured group: name another prefix")
    return second


def _input_policy(broker: Broker, topics: TopicPolicy) -> str:
    found = broker.topics([topics.input])
    if topics.input not in found:
        raise TopicError(f"{topics.input} does not exist: run eddy topics create")
    return cleanup_policy(found[topics.input])


def _check_unused(broker: Broker, config: Config) -> None:
    """Nothing is in the prefix, and its group has no past."""
    topics, group = config.topics, assigner_group(config)
    shared = (topics.input, topics.dead_letters)
    derived = broker.topics(name for name in topics.names if name not in shared)
    filled = [n for n in derived if any(held.high > 0 for held in broker.ranges(n).values())]
    if filled:
        raise FatalError(
            f"{some(filled)} {'holds' if len(filled) == 1 else 'hold'} something, or did: "
            f"delete the topics of {topics.prefix} and the group {group}, or take another prefix"
        )
    if any(offset is not None for offset in broker.committed(group, topics.input).values()):
        raise FatalError(
            f"the group {group} has committed offsets of {topics.input}: delete it, or take "
            "another prefix"
        )


# --- the model ------------------------------------------------------------------------------------


def _choose_model(
    broker: Broker, config: Config, at_ms: int | None, epoch: int | None
) -> tuple[ModelFold, Model]:
    fold, newest = read_models(broker, config)
    kept = some((m.version for _, m in sorted(fold.epochs.items())), n=100)
    if epoch is not None:
        chosen = fold.model_of(epoch)
        if chosen is None:
            raise UsageError(f"--epoch is {epoch}, but the kept models are {kept}")
        return fold, chosen
    if at_ms is None:
        return fold, newest
    candidates = [
        model
        for model in _kept(broker, config.topics.model, fold)
        if model.manifest.created_at_ms <= at_ms
    ]
    if not candidates:
        raise FatalError(
            f"no model that is kept was there at {timestamp(at_ms)}: --epoch takes one of {kept}"
        )
    return fold, max(candidates, key=lambda m: (m.manifest.epoch, m.manifest.revision))


def _kept(broker: Broker, topic: str, fold: ModelFold) -> Iterator[Model]:
    """The last revision of every kept epoch, and those before it that compaction has left."""
    for epoch in fold.epochs:
        model = fold.model_of(epoch)
        if model is not None:
            yield model
    again = ModelFold()
    for records in whole(broker, topic):
        begin = 0
        for i, record in enumerate(records, 1):
            # a fold looks at the last manifest of what it is given, and here each one counts
            if record.key == MANIFEST_KEY:
                again.fold(records[begin:i])
                begin = i
                if again.newest is not None:
                    yield again.newest
        again.fold(records[begin:])


def _publish(broker: Broker, topics: TopicPolicy, fold: ModelFold, model: Model) -> None:
    producer = broker.producer()
    for record in model_records(model, topics.model):
        producer.write(record)
    for cluster in model.manifest.clusters:
        if cluster in fold.labels:
            producer.write(label_record(cluster, fold.labels[cluster], topics.model))
    producer.flush()


# --- the input ------------------------------------------------------------------------------------


def _survey(
    broker: Broker, topic: str, begins: Mapping[int, int], at_ms: int | None
) -> dict[int, Part]:
    """Where it ends, and what there is up to there."""
    ranges = broker.ranges(topic)
    parts: dict[int, Part] = {}
    total = sum(ranges[p].high - begin for p, begin in begins.items())
    with progress() as bar:
        task = bar.add_task("looking through the input", total=total)
        batches = onward(broker, topic, begins)
        for parts in survey(batches, ranges, begins, until_ms=at_ms):
            bar.update(task, completed=sum(part.n_records for part in parts.values()))
    return parts


def _run(
    asked: Invocation,
    config: Config,
    broker: Broker,
    policy: str,
    parts: Mapping[int, Part],
    stop: threading.Event,
) -> tuple[Rebuild, RebuildReports, float]:
    """Run the assigner to the end; what it tells by itself goes to stderr, warnings only."""
    configure(
        service="replay", instance=instance(config), version="",
        log_format=config.telemetry.log_format, level="warning", stream=sys.stderr,
    )  # fmt: skip
    kernels, health = asked.kernels(), Health("assigner", poll_timeout_s=config.batching.max_wait_s)
    reports = RebuildReports(get_logger(), Metrics("assigner"), health, kernel=kernels.name)
    rebuild = Rebuild(
        new_assigner(
            config,
            broker,
            kernels,
            input_policy=policy,
            name=instance(config),
            clock=time.monotonic,
            reports=reports,
            writes_dead_letters=False,
        ),
        parts,
        stop,
    )
    began = time.monotonic()
    with progress() as bar:
        total = sum(part.n_records for part in parts.values())
        shown = _Shown(rebuild, reports, bar, bar.add_task("replaying", total=total))
        serve(shown, stop=stop, reports=reports)
    return rebuild, reports, time.monotonic() - began


class _Shown:
    """A rebuild, with a bar beside it."""

    def __init__(self, rebuild: Rebuild, reports: RebuildReports, bar: Any, task: Any) -> None:
        self._rebuild, self._reports, self._bar, self._task = rebuild, reports, bar, task

    def step(self) -> None:
        self._rebuild.step()
        self._bar.update(self._task, completed=self._reports.n_records)

    def close(self) -> None:
        self._rebuild.close()


# --- the summary ----------------------------------------------------------------------------------


def _summary(
    config: Config,
    model: Model,
    policy: str,
    rebuild: Rebuild,
    reports: RebuildReports,
    seconds: float,
    *,
    is_begun_late: bool,
) -> dict[str, Any]:
    parts = rebuild.parts.values()
    return {
        "prefix": config.topics.prefix,
        "group": assigner_group(config),
        "model": model.version,
        "records": reports.n_records,
        "events": reports.n_events,
        "items": rebuild.n_items,
        "dead": dict(reports.dead),
        "offsets": {
            str(p): {"from": part.start, "to": part.end} for p, part in rebuild.parts.items()
        },
        "duration_s": round(seconds, 3),
        "remarks": list(_remarks(config, policy, list(parts), is_begun_late=is_begun_late)),
    }


def _remarks(
    config: Config, policy: str, parts: list[Part], *, is_begun_late: bool
) -> Iterator[str]:
    """What this replay cannot show, a sentence each."""
    n_missing = sum(part.n_missing for part in parts)
    is_compacted = _COMPACT in policy.split(",")
    if n_missing:
        gone = "compaction took it, or they" if is_compacted else "they"
        yield (f"{count(n_missing)} offsets hold no record: {gone} were marks of transactions")
    if is_compacted:
        yield (
            f"{config.topics.input} is compacted: steps whose record a newer one has replaced are "
            "missing among the events, and the assignments at the end are whole"
        )
        if any(part.is_cut for part in parts):
            yield (
                "an item that was written again after that time may be missing: "
                "compaction keeps its newest record"
            )
    if any(part.low > 0 for part in parts) and not is_compacted:
        yield "retention has taken the beginning: items not written since are missing"
    if is_begun_late:
        yield "items that were last written before the given offsets are missing"


def _print(told: Mapping[str, Any]) -> None:
    out.print(
        f"[green]{count(told['records'])}[/] records under model {told['model']} made "
        f"[green]{count(told['events'])}[/] events and [green]{count(told['items'])}[/] items in "
        f"[bold]{escape(told['prefix'])}[/]; {told['duration_s']:.1f} s",
        soft_wrap=True,
    )
    if told["dead"]:
        said = ", ".join(f"{count(n)} {escape(reason)}" for reason, n in told["dead"].items())
        out.print(f"[yellow]could not be used, and no letters were written[/]: {said}")
    for remark in told["remarks"]:
        out.print(f"[yellow]note[/]  {escape(remark)}", soft_wrap=True)
