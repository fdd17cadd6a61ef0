"""The judge of the simulation on real topics, and what it cannot see without the whole log.

Shares nothing with ``eddy verify``. It reads the topics to their ends, so it wants them at rest and
not yet compacted.
"""

from __future__ import annotations

import json
from collections import defaultdict

from tests.kafka.site import Site
from tests.simulation.judge import (
    applied,
    check_assignments,
    check_centroids,
    check_dead_letters,
    check_events,
    check_lineage,
    check_statistics,
)


def audit(site: Site) -> int:
    """Every promise about the topics of a site at rest; the number of change events."""
    inputs = site.committed(site.topics.input)
    check_statistics(site, inputs)
    check_centroids(site, inputs)
    check_lineage(site)
    return audit_records(site)


def audit_records(site: Site) -> int:
    """What does not wait for statistics, and needs no history of the model."""
    inputs = site.committed(site.topics.input)
    check_assignments(site, inputs)
    check_events(site, inputs)
    check_dead_letters(site, inputs)
    assignments = site.committed(site.topics.assignments)
    changes = site.committed(site.topics.changes)
    for p, records in enumerate(inputs):
        check_assignment_log(assignments[p], applied(records, site.embedding))
        check_events_are_the_differences(assignments[p], changes[p])
    return sum(map(len, changes))


def check_assignment_log(rows, history):
    """Each record that counts was applied once, in order, and nothing else was."""
    seen, offsets = set(), defaultdict(list)
    for row in rows:
        key = row.key.decode()
        if row.value is None:
            offsets[key].append(None)
            continue
        told = json.loads(row.value)
        model = told["model"]
        place = (key, told["source"]["offset"], model["epoch"], model["revision"])
        assert place not in seen, f"{place} was written twice"
        seen.add(place)
        if offsets[key][-1:] != [told["source"]["offset"]]:  # else a model moved it
            offsets[key].append(told["source"]["offset"])
    for key, steps in history.items():
        wanted, is_in = [], False
        for offset, vector in steps:
            if vector is not None:
                wanted.append(offset)
            elif is_in:
                wanted.append(None)
            is_in = vector is not None
        assert offsets.pop(key, []) == wanted, f"{key}: lost or repeated records"
    assert not offsets, f"rows of items that never were: {sorted(offsets)}"


def check_events_are_the_differences(rows, events):
    """One event per difference between successive assignments of an item, and no other."""
    wanted, at = defaultdict(list), {}
    for row in rows:
        key = row.key.decode()
        cluster = None if row.value is None else json.loads(row.value)["cluster"]
        if cluster != at.get(key):
            wanted[key].append((at.get(key), cluster))
            at[key] = cluster
    found = defaultdict(list)
    for record in events:
        event = json.loads(record.value)
        found[event["item"]].append((event["from"], event["to"]))
    assert found == wanted
