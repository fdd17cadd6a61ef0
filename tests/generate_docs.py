"""Writes what the documentation copies from the code: ``python -m tests.generate_docs [--check]``.

The copies are committed, and a test compares them, so a reader of the documentation reads
what the code says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline.cli.explain import template
from pipeline.telemetry.catalogue import CATALOGUE
from pipeline.telemetry.kinds import Kind, Metric, Open, Service
from pipeline.telemetry.logs import ALWAYS_FIELDS, COMMON_FIELDS, EVENTS

DOCS = Path(__file__).parent.parent / "docs"
NOTE = "<!-- Written by `python -m tests.generate_docs`; change the code, not this file. -->"

CONFIGURATION = """\
# Configuration

One YAML file (`--config PATH` or the variable `EDDY_CONFIG`), overridden by the environment,
overridden by flags:

| where | how `clustering.clusters` is written |
|---|---|
| file | `clustering:`, below it `clusters: 500` |
| environment | `EDDY_CLUSTERING__CLUSTERS=500`: upper case, two underscores for each dot |
| flag | `--set clustering.clusters=500`, as often as needed |

`eddy config init` writes a commented file to start from. `eddy config show` prints what a process
would obey, and where each value came from. A key that does not exist, or a value of the wrong
type, ends the process with exit code 3 and a line that names it, with the nearest known key.

**Kafka.** Below `kafka` stands anything that librdkafka knows, under librdkafka's own name:
`security.protocol: SASL_SSL` in the file, `EDDY_KAFKA__SECURITY__PROTOCOL` in the environment.
What the loop depends on, such as `isolation.level`, cannot be set, and Eddy says so.

**Secrets.** A variable that ends in `_FILE` names a file to read the value from:
`EDDY_KAFKA__SASL__PASSWORD_FILE=/run/secrets/kafka`. Values of keys that contain `password`,
`secret`, `key.pem`, `token` or `oauthbearer.config` are hidden wherever configuration is printed.

An empty variable counts as not set. Text of the environment and of flags is read as YAML where
the option is a number, a list or a truth value; below `kafka` it is taken as it stands.

## Every option, with its default
"""

METRICS = """\
# Metrics and logs

Every service answers `/metrics` on `telemetry.metrics_port`, beside `/livez`, `/readyz` and
`/startupz` (200 or 503; `?verbose` lists the checks as JSON). Nothing in a label comes from a
user: no item, no cluster, no text. A gauge that nobody has set yet is left out, and the series of
a partition go when the partition is handed on.
"""

LOGS = f"""\
## Log events

One JSON object a line on the standard output, or lines for people on a terminal
(`telemetry.log_format`). Every JSON line has {", ".join(f"`{name}`" for name in ALWAYS_FIELDS)};
where they exist, also {", ".join(f"`{name}`" for name in sorted(COMMON_FIELDS))}. Item ids
appear only as a hash unless `telemetry.log_item_ids` is true.
"""


def configuration() -> str:
    """The page ``docs/configuration.md``."""
    return f"{NOTE}\n{CONFIGURATION}\n```yaml\n{template()}```\n"


def metrics() -> str:
    """The page ``docs/metrics.md``."""
    rows = (
        (
            f"`{metric.name}`",
            metric.kind.value,
            "<br>".join(f"`{label}`: {_values(v)}" for label, v in metric.labels.items()),
            "all" if set(metric.services) == set(Service) else ", ".join(metric.services),
            metric.help + _buckets(metric),
        )
        for metric in CATALOGUE.values()
    )
    events = (
        (f"`{e.name}`", e.level, ", ".join(f"`{name}`" for name in e.fields), e.help)
        for e in EVENTS.values()
    )
    return "\n".join(
        [
            NOTE,
            METRICS,
            table(("metric", "type", "labels", "by", "meaning"), rows),
            LOGS,
            table(("event", "level", "fields", "meaning"), events),
        ]
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def _values(allowed: tuple[str, ...] | Open) -> str:
    return allowed.value if isinstance(allowed, Open) else ", ".join(allowed)


def _buckets(metric: Metric) -> str:
    if metric.kind is not Kind.HISTOGRAM:
        return ""
    return f" Buckets from {metric.buckets[0]:g} to {metric.buckets[-1]:g}."


PAGES = {"configuration.md": configuration, "metrics.md": metrics}


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are not what they would be."""
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print(*(f"docs/{name}" for name in stale), sep="\n", end="\n" if stale else "")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
