"""What pages for operators name, held against what there is: verbs, options, metrics, events."""

from __future__ import annotations

import re
from functools import cache

import typer.main
import yaml

from pipeline.cli.main import VERBS, find_app
from pipeline.config import options
from pipeline.telemetry.catalogue import CATALOGUE
from pipeline.telemetry.events import EVENTS
from pipeline.telemetry.kinds import Kind
from tests.test_house import ROOT

ELSEWHERE = {
    "acks", "cleanup.policy", "delete.retention.ms", "kafka.group.id", "max.poll.interval.ms",
    "message.max.bytes", "min.insync.replicas", "offsets.retention.minutes", "retention.ms",
    "session.timeout.ms", "transaction.timeout.ms",
}  # fmt: skip
"""Options of Kafka and of its client."""
NO_EVENTS = {"read_committed"}
COMING = {"eddy_stream_clients", "client_connected"}
"""Of the server's streams."""
ENDS = {Kind.HISTOGRAM: ("_bucket", "_count", "_sum"), Kind.COUNTER: (), Kind.GAUGE: ()}


def code(text):
    """What stands between backticks, blocks left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def unknown(text):
    """What a page names, and what there is not: a list of sentences."""
    spans = code(text)
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    shell = [line for block in blocks for line in block.splitlines()]
    found = []
    for span in [*spans, *shell]:
        found += unknown_verbs(span)
    for span in spans:
        found += unknown_metrics(span)
        found += unknown_options(span)
        found += unknown_events(span)
    return found


# Verbs


@cache
def verbs():
    """(verb, subverb or empty) -> the options that it takes."""
    found = {}
    for name in VERBS:
        command = typer.main.get_command(find_app(name))
        below = getattr(command, "commands", None) or {"": command}
        for sub, one in below.items():
            flags = {opt for param in one.params for opt in (*param.opts, *param.secondary_opts)}
            found[name, sub] = flags | {"--config", "--set", "--verbose", "--help"}
    return found


def unknown_verbs(span):
    for words in re.findall(r"(?:^|\s)eddy((?: [^|;#]+)?)(?=$|[|;#])", span):
        verb, *rest = words.split() or [""]
        if verb in ("", "--help"):
            continue
        names = {sub for name, sub in verbs() if name == verb}
        if not names:
            yield f"eddy {verb}"
            continue
        sub = rest[0] if rest and rest[0] in names else ""
        if sub not in names and rest:
            yield f"eddy {verb} {rest[0]}"
            continue
        taken = verbs().get((verb, sub), {"--help"})
        for flag in re.findall(r"(?<!\S)--[a-z-]+", " ".join(rest)):
            if flag not in taken:
                yield f"eddy {verb} {sub} {flag}"


# Metrics


def unknown_metrics(span):
    """Names, labels and the values of labels."""
    series = {name: name for name in CATALOGUE} | {
        f"{name}{end}": name for name, metric in CATALOGUE.items() for end in ENDS[metric.kind]
    }
    for name, matchers in re.findall(r"\b(eddy_[a-z0-9_]+)(?:\{([^}]*)\})?", span):
        if name in COMING:
            continue
        if name not in series:
            yield f"the metric {name}"
            continue
        labels = CATALOGUE[series[name]].labels
        for label, value in re.findall(r'(\w+)!?="([^"]*)"', matchers):
            allowed = labels.get(label)
            if allowed is None:
                yield f"the label {label} of {name}"
            elif isinstance(allowed, tuple) and value not in allowed:
                yield f"{label}={value} of {name}"


# Options


@cache
def known_options():
    """Of the configuration and of the chart, sections included."""
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    whole = {*options(), *_paths(values, "")}
    sections = {key.rsplit(".", n)[0] for key in whole for n in range(key.count("."))}
    return whole | sections


def _paths(tree, above):
    for key, value in tree.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{above}{key}.")


def unknown_options(span):
    """Words with dots, as far as they look like an option; with a value or without."""
    word = re.match(r"^([a-z][A-Za-z_]*(?:\.[a-z][A-Za-z_]*)+)(?:[:=] ?[^ ]+)?$", span)
    if word is None or re.search(r"\.(md|yaml|yml|toml|py|json|npy|jsonl|crt)$", span):
        return
    if word[1] not in known_options() | ELSEWHERE:
        yield f"the option {word[1]}"


# Events of the log


def unknown_events(span):
    """Words that look like an event: a thing, and what became of it."""
    ends = "_(started|stopped|finished|failed|rejected|assigned|revoked|lost|written|committed"
    ends += "|aborted|error|fenced|dead|installed|published|due|raised|cleared|received|done"
    ends += "|violated|connected|disconnected)"
    if re.fullmatch(rf"[a-z_]+{ends}", span) and span not in {*EVENTS, *COMING, *NO_EVENTS}:
        yield f"the log event {span}"
