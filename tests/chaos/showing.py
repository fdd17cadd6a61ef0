"""The judge of what servers show and tell, against what stands in the topics at rest."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.chaos.asking import Address, Asked, Seen, insist, pages
from tests.chaos.onlooker import Followed
from tests.kafka.site import Site
from tests.simulation.judge import newest_model

SHOW_LIMIT_S = 30.0
"""From the last record until the answers are those of the topics."""
N_SINGLE = 60
"""Items that are asked for one by one; a second answers fifty."""
KINDS = ("change", "lifecycle", "drift")


@dataclass
class Truth:
    """What an outsider reads from the topics."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Item -> its assignment."""
    clusters: list[str] = field(default_factory=list)
    """Of the newest model."""
    events: dict[str, list[list[str]]] = field(default_factory=dict)
    """Kind -> ids, partition by partition."""
    placed: set[Seen] = field(default_factory=set)
    """Every assignment that was ever committed."""


def truth_of(site: Site) -> Truth:
    """Read it."""
    topics, found = site.topics, Truth(clusters=list(newest_model(site)[0]))
    for records in site.committed(topics.assignments):
        for record in records:
            item = (record.key or b"").decode()
            if record.value is None:
                found.rows.pop(item, None)
                continue
            row = json.loads(record.value)
            found.rows[item] = row
            model = row["model"]
            found.placed.add(
                Seen(item, row["cluster"], row["source"]["offset"],
                     model["epoch"], model["revision"])
            )  # fmt: skip
    told = (topics.changes, topics.lifecycle, topics.drift)
    for kind, topic in zip(KINDS, told, strict=True):
        found.events[kind] = [
            [json.loads(r.value)["id"] for r in records if r.value is not None]
            for records in site.committed(topic)
        ]
    return found


# --- answers --------------------------------------------------------------------------------------


def wait_until_shown(truth: Truth, address: Address, seed: int) -> list[str]:
    """What of a server's answers is not as it stands in the topics, when time enough has passed."""
    deadline = time.monotonic() + SHOW_LIMIT_S
    while True:
        problems = differences(truth, address.port, seed)
        if not problems or time.monotonic() > deadline:
            return [f"{address.name}: {problem}" for problem in problems]
        time.sleep(0.5)


def differences(truth: Truth, port: int, seed: int) -> list[str]:
    """What a server shows, all of it, held against the topics; nothing: it is the same."""
    sizes = Counter(row["cluster"] for row in truth.rows.values())
    shown = {row["cluster"]: row["size"] for row in pages(port, "/clusters")}
    problems = _compare("sizes of clusters", {c: sizes[c] for c in truth.clusters}, shown)
    if shown.keys() != set(truth.clusters):
        return problems  # it has another model; nobody can be asked for
    members = {
        row["item"]: (cluster, np.float32(row["distance"]))
        for cluster in truth.clusters
        for row in pages(port, f"/clusters/{cluster}/members", order="item_id")
    }
    wanted = {
        item: (row["cluster"], np.float32(row["distance"])) for item, row in truth.rows.items()
    }
    problems += _compare("members", wanted, members)
    totals = insist(port, "/stats")
    problems += _compare(
        "totals",
        {"items": len(truth.rows), "clusters": len(truth.clusters)},
        {name: totals[name] for name in ("items", "clusters")},
    )
    lifecycle = [row["id"] for row in pages(port, "/lifecycle")]
    if lifecycle[::-1] != truth.events["lifecycle"][0]:
        problems.append(
            f"lifecycle: {len(lifecycle)} events, {len(truth.events['lifecycle'][0])} are there"
        )
    changes = Counter(row["id"] for row in pages(port, "/changes"))
    there = Counter(event for ids in truth.events["change"] for event in ids)
    if changes != there:
        problems.append(f"changes: {changes.total()} events, {there.total()} are there")
    return problems + _single(truth, port, seed)


def _single(truth: Truth, port: int, seed: int) -> list[str]:
    """Some items one by one: their clusters, and the records that put them there."""
    items = sorted(truth.rows)
    some = np.random.default_rng(seed).permutation(len(items))[:N_SINGLE]
    wanted, shown = {}, {}
    for item in (items[at] for at in some):
        row, found = truth.rows[item], insist(port, f"/items/{item}")
        wanted[item] = (row["cluster"], row["source"]["partition"], row["source"]["offset"])
        if found is not None:
            shown[item] = (found["cluster"], found["partition"], found["offset"])
    return _compare("items", wanted, shown)


def _compare(what: str, wanted: Mapping[str, object], shown: Mapping[str, object]) -> list[str]:
    wrong = [name for name in wanted.keys() | shown.keys() if wanted.get(name) != shown.get(name)]
    if not wrong:
        return []
    first = min(wrong)
    return [f"{what}: {len(wrong)} wrong, {first} is {shown.get(first)}, not {wanted.get(first)}"]


# --- the stream -----------------------------------------------------------------------------------


def judge_stream(truth: Truth, followed: Followed) -> tuple[int, list[str]]:
    """How many events are missing and were not said to be; and what else is wrong.

    Every event has to come for the first time in the order of its partition.
    """
    problems = list(followed.problems)
    n_missing = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        came = {one.id: n for n, one in enumerate(followed.events) if one.kind == kind}
        for ids in truth.events[kind]:
            n_missing[kind] += sum(event not in came for event in ids)
            order = [came.pop(event) for event in ids if event in came]
            if order != sorted(order):
                problems.append(f"the stream of {kind} events is out of order")
        if came:
            problems.append(f"{len(came)} {kind} events came that are in no topic: {min(came)}")
    n_others = n_missing["lifecycle"] + n_missing["drift"]
    n_silent = max(
        0,
        sum(n_missing.values()) - followed.n_dropped - followed.n_gone,
        n_others - followed.n_gone,  # who is slow loses changes, not what becomes of clusters
    )
    if n_silent:
        problems.append(
            f"of {n_missing} events that did not come over the stream {followed.n_dropped} were "
            f"said to be dropped and {followed.n_gone} to be gone"
        )
    if followed.n_unknown_gaps:
        problems.append(f"{followed.n_unknown_gaps} times the stream did not know what is missing")
    sizes = Counter(row["cluster"] for row in truth.rows.values())
    wanted = {cluster: sizes[cluster] for cluster in truth.clusters}
    return n_silent, problems + _compare("sizes over the stream", wanted, followed.sizes)


def judge_answers(truth: Truth, asked: Asked) -> list[str]:
    """Answers that were given in the middle of everything: each was true at some time."""
    wrong = asked.answers - truth.placed
    problems = [f"an answer that never was true: {one}" for one in sorted(wrong)[:5]]
    return asked.problems[:20] + problems
