"""What a run did to the topics, in numbers: lost, duplicated, out of order, wrong state."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from pipeline.messages.records import Record
from tests.kafka.audit import check_assignment_log, check_events_are_the_differences
from tests.kafka.site import Site
from tests.simulation import judge

Check = Callable[[], object]


@dataclass
class Findings:
    """Of one site at rest."""

    n_records: int = 0
    n_events: int = 0
    n_lost: int = 0
    """Input records that count and were not applied, bad ones without a dead letter, events."""
    n_duplicated: int = 0
    n_out_of_order: int = 0
    n_wrong: int = 0
    """Promises about the state that do not hold, of those in `problems`."""
    problems: list[str] = field(default_factory=list)


def find(site: Site) -> Findings:
    """Every record of the topics against the input; then every promise of the judge."""
    site.committed = cache(site.committed)  # type: ignore[method-assign]  # at rest: once is enough
    inputs = site.committed(site.topics.input)
    assignments = site.committed(site.topics.assignments)
    changes = site.committed(site.topics.changes)
    letters = site.committed(site.topics.dead_letters)
    found = Findings(n_records=sum(map(len, inputs)), n_events=sum(map(len, changes)))
    histories = [judge.applied(records, site.embedding) for records in inputs]
    for p, history in enumerate(histories):
        _count_rows(found, history, assignments[p])
        _count_letters(found, inputs[p], letters[p], site.embedding.dimensions)
        _count_events(found, assignments[p], changes[p])
    checks: dict[str, Check] = {
        "assignments": lambda: judge.check_assignments(site, inputs),
        "events": lambda: judge.check_events(site, inputs),
        "dead letters": lambda: judge.check_dead_letters(site, inputs),
        "statistics": lambda: judge.check_statistics(site, inputs),
        "centroids": lambda: judge.check_centroids(site, inputs),
        "lineage": lambda: judge.check_lineage(site),
    }
    for p, history in enumerate(histories):
        checks[f"assignment log of {p}"] = lambda p=p, h=history: check_assignment_log(
            assignments[p], dict(h)
        )
        checks[f"differences of {p}"] = lambda p=p: check_events_are_the_differences(
            assignments[p], changes[p]
        )
    for name, check in checks.items():
        try:
            check()
        except (AssertionError, KeyError, ValueError) as error:
            found.n_wrong += 1
            found.problems.append(f"{name}: {type(error).__name__}: {str(error)[:500]}")
    return found


def centroids_rest(site: Site, inputs: list[list[Record]]) -> bool:
    """Whether every centroid is the mean of its members by now: revisions come one by one."""
    try:
        judge.check_centroids(site, inputs)
    except AssertionError:
        return False
    return True


def _count(found: Findings, wanted: Counter[object], there: Counter[object]) -> None:
    found.n_lost += (wanted - there).total()
    found.n_duplicated += (there - wanted).total()


def _count_rows(found: Findings, history: dict, rows: list[Record]) -> None:
    """Each record that counts is a row of the log, once, in order."""
    wanted: Counter[object] = Counter()
    for key, steps in history.items():
        is_in = False
        for offset, vector in steps:
            if vector is not None:
                wanted[key, offset] += 1
            elif is_in:
                wanted[key, None] += 1
            is_in = vector is not None
    there: Counter[object] = Counter()
    places: set[object] = set()
    last: dict[str, int] = defaultdict(lambda: -1)
    for row in rows:
        key = (row.key or b"").decode()
        if row.value is None:
            there[key, None] += 1
            continue
        told = json.loads(row.value)
        offset, model = told["source"]["offset"], told["model"]
        place = key, offset, model["epoch"], model["revision"]
        found.n_duplicated += place in places
        found.n_out_of_order += offset < last[key]
        places.add(place)
        if offset != last[key]:  # else a model moved it
            there[key, offset] += 1
        last[key] = offset
    _count(found, wanted, there)


def _count_letters(
    found: Findings, records: list[Record], letters: list[Record], n_dims: int
) -> None:
    bad = [
        r.offset for r in records if r.value is not None and judge.vector_of(r, n_dims) is None
    ]  # fmt: skip
    told = [int(dict(r.headers)["eddy.errors.offset"] or 0) for r in letters]
    _count(found, Counter(bad), Counter(told))
    found.n_out_of_order += sum(b < a for a, b in pairwise(told))


def _count_events(found: Findings, rows: list[Record], events: list[Record]) -> None:
    """One event per difference between successive assignments of an item."""
    wanted: Counter[object] = Counter()
    at: dict[str, object] = {}
    for row in rows:
        key = (row.key or b"").decode()
        cluster = None if row.value is None else json.loads(row.value)["cluster"]
        if cluster != at.get(key):
            wanted[key, at.get(key), cluster] += 1
            at[key] = cluster
    there: Counter[object] = Counter()
    last: dict[str, int] = defaultdict(int)
    for record in events:
        event = json.loads(record.value or b"")
        there[event["item"], event["from"], event["to"]] += 1
        found.n_out_of_order += event["source"]["offset"] < last[event["item"]]
        last[event["item"]] = event["source"]["offset"]
    _count(found, wanted, there)
