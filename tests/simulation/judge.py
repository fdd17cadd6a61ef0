"""What the topics must say after any history: held against slow, obvious versions.

Reads committed records only, and shares no code with the product but the names of topics.
"""

from __future__ import annotations

import datetime
import json
import math
import struct
from collections import defaultdict

import numpy as np

from tests import naive
from tests.schemas import validate_record


def vector_of(record, n_dims):
    """(vector, sequence) of a native record, or None for one that cannot be used."""
    value = record.value
    if len(value) != 20 + 4 * n_dims or value[:4] != b"EDV1":
        return None
    vector = np.frombuffer(value, "<f4", n_dims, 20)
    if not np.isfinite(vector).all():
        return None
    return vector, struct.unpack_from("<Q", value, 12)[0]


def stored(vector, embedding):
    """The vector as it is compared: under cosine of unit length, made so in float64; rounded."""
    if embedding.metric == "cosine":
        norm = math.sqrt(naive.squared_distance(vector, np.zeros_like(vector)))
        vector = np.array([float(x) / norm for x in vector.tolist()], np.float32)
    return vector.astype(embedding.dtype).astype(np.float32)


def applied(records, embedding):
    """Item -> its records that count, in order: (offset, vector or None)."""
    history, last = defaultdict(list), {}
    for record in records:
        key = record.key.decode()
        if record.value is None:
            last.pop(key, None)
            history[key].append((record.offset, None))
            continue
        found = vector_of(record, embedding.dimensions)
        if found is None:
            continue
        vector, sequence = found
        if 0 < sequence <= last.get(key, 0):
            continue
        last[key] = sequence
        history[key].append((record.offset, stored(vector, embedding)))
    return history


def newest_model(world):
    """(cluster ids, centroids, manifest) as the topic tells it."""
    (records,) = world.committed(world.topics.model)
    rows = {r.key.decode(): r.value for r in records}
    manifest = json.loads(rows["manifest"])
    ids = manifest["clusters"]
    centroids = [
        np.frombuffer(rows[f"{manifest['epoch']}/{i}"], "<f4", world.embedding.dimensions, 20)
        for i in ids
    ]
    return ids, np.array(centroids, np.float32), manifest


def assigned(world, p):
    """Item -> its assignment, of one partition."""
    rows = {r.key.decode(): r.value for r in world.committed(world.topics.assignments)[p]}
    return {key: json.loads(value) for key, value in rows.items() if value is not None}


def members(world, inputs, p):
    """Item -> (offset, vector) of the record that counts, for every item that lives."""
    if world.reference is not None:
        return world.reference(world, inputs[p], p)
    history = applied(inputs[p], world.embedding)
    live = {key: steps[-1] for key, steps in history.items() if steps[-1][1] is not None}
    if not world.compacts_unread:
        return live
    # The cleaner may have taken a good row unread, under a bad or a stale one: then the item is
    # where an older row put it, or nowhere. But its row is one that was written, what stands
    # last and is surely good counts, and what was removed last is gone.
    found = {}
    for key, row in assigned(world, p).items():
        offset = row["source"]["offset"]
        (record,) = [r for r in inputs[p] if r.offset == offset]
        found[key] = (
            offset,
            stored(vector_of(record, world.embedding.dimensions)[0], world.embedding),
        )
    for record in {r.key: r for r in inputs[p]}.values():
        key = record.key.decode()
        good = record.value and vector_of(record, world.embedding.dimensions)
        if record.value is None:
            found.pop(key, None)
        elif good and good[1] == 0:
            found[key] = (record.offset, stored(good[0], world.embedding))
    return found


def check_assignments(world, inputs):
    """Every live item sits in its nearest centroid, and there is nothing else."""
    ids, centroids, _ = newest_model(world)
    for p in range(world.topics.partitions):
        found, live = assigned(world, p), members(world, inputs, p)
        assert found.keys() == live.keys(), f"partition {p}: items"
        for key, (offset, vector) in live.items():
            assert found[key]["source"] == {"partition": p, "offset": offset}, key
            label = naive.assign(vector[None, :], centroids)[0][0]
            assert found[key]["cluster"] == ids[label], f"{key} is not in its nearest cluster"


def check_events(world, inputs):
    """The events are the differences between successive assignments, each once, in order."""
    seen, versions = set(), defaultdict(int)
    for p, records in enumerate(world.committed(world.topics.changes)):
        at, offsets, last = {}, defaultdict(int), (0, 0)
        for record in records:
            event = json.loads(record.value)
            item = event["item"]
            assert event["id"] not in seen, f"{event['id']} occurs twice"
            seen.add(event["id"])
            assert event["from"] == at.get(item), f"{event['id']}: a step is missing before it"
            assert event["from"] != event["to"]
            assert event["source"]["offset"] >= offsets[item]
            offsets[item] = event["source"]["offset"]
            version = (event["model"]["epoch"], event["model"]["revision"])
            assert version >= last, f"partition {p} went back from {last} to {version}"
            last = version
            at[item] = event["to"]
            if event["to"] is None:
                del at[item]
            versions[p] += 1
        current = {key: row["cluster"] for key, row in assigned(world, p).items()}
        assert at == current, f"partition {p}: the chains of events do not end in the assignments"
        if not world.compacts_unread and world.reference is None:
            check_record_events(records, inputs[p], world.embedding)


def check_record_events(records, inputs, embedding):
    """An item's first record and its removals always make an event, at the offset that did it."""
    caused = {}
    for record in records:
        event = json.loads(record.value)
        if event["cause"] == "record":
            caused[event["source"]["offset"]] = event["type"]
    for key, steps in applied(inputs, embedding).items():
        is_in = False
        for offset, vector in steps:
            if vector is not None and not is_in:
                assert caused.get(offset) == "assigned", f"{key} at {offset}: no `assigned`"
            elif vector is None and is_in:
                assert caused.get(offset) == "removed", f"{key} at {offset}: no `removed`"
            elif vector is None:
                assert offset not in caused, f"{key} at {offset}: removed twice"
            is_in = vector is not None


def check_dead_letters(world, inputs):
    """One for each record that cannot be used."""
    for p, records in enumerate(world.committed(world.topics.dead_letters)):
        bad = [
            r.offset
            for r in inputs[p]
            if r.value is not None and vector_of(r, world.embedding.dimensions) is None
        ]
        told = [int(dict(r.headers)["eddy.errors.offset"]) for r in records]
        if world.compacts_unread:
            assert set(told) <= set(bad) and len(set(told)) == len(told)
        else:
            assert told == bad, f"partition {p}: dead letters"


def weights(world, inputs, p, manifest):
    """Item -> what it weighs under the model, for every item that lives."""
    fading, live = manifest["forgetting"], members(world, inputs, p)
    if fading is None:
        return dict.fromkeys(live, 1.0)
    landmark = datetime.datetime.fromisoformat(fading["landmark"])
    landmark_ms = round(landmark.timestamp() * 1000)
    times = {record.offset: record.timestamp_ms for record in inputs[p]}
    return {
        key: naive.weight(times[offset], half_life_s=fading["half_life_s"], landmark_ms=landmark_ms)
        for key, (offset, _) in live.items()
    }


def check_statistics(world, inputs):
    """The published statistics are those of the members, in integers."""
    ids, _, manifest = newest_model(world)
    n_dims = world.embedding.dimensions
    for p, records in enumerate(world.committed(world.topics.statistics)):
        rows = {r.key.decode(): r.value for r in records}
        rows = {key: value for key, value in rows.items() if value is not None}
        clusters = {key: row["cluster"] for key, row in assigned(world, p).items()}
        live = {key: vector for key, (_, vector) in members(world, inputs, p).items()}
        labels = [ids.index(clusters[key]) for key in live]
        points = np.array(list(live.values()), np.float32).reshape(-1, n_dims)
        largest, totals = manifest["max_component"], None
        if manifest["forgetting"] is None:
            counts, sums, squares = naive.statistics(
                points, labels, len(ids), max_component=largest
            )
        else:
            heavy = np.array(list(weights(world, inputs, p, manifest).values()))
            counts, sums, squares, totals = naive.weighted_statistics(
                points, labels, heavy, len(ids), max_component=largest
            )
        head = json.loads(rows.pop(str(p)))
        assert head["model"] == {k: manifest[k] for k in ("epoch", "revision")}
        assert head["members"] == len(live)
        assert rows.keys() == {f"{p}/{i}" for i in ids}
        for label, cluster in enumerate(ids):
            value = rows[f"{p}/{cluster}"]
            magic, dims, epoch, n, high, low = struct.unpack_from("<4sIQqqq", value)
            assert (magic, dims, epoch) == (b"EDS1", n_dims, manifest["epoch"])
            assert (n, (high << 32) + low) == (counts[label], squares[label])
            assert np.frombuffer(value, "<i8", n_dims, 64).tolist() == sums[label]
            weight = [] if totals is None else [totals[label]]
            assert np.frombuffer(value, "<i8", offset=64 + 8 * n_dims).tolist() == weight


def check_centroids(world, inputs):
    """Every centroid is the mean of its members, of all partitions, to the tolerance."""
    ids, centroids, manifest = newest_model(world)
    n_dims, is_cosine = world.embedding.dimensions, world.embedding.metric == "cosine"
    points, clusters, heavy = [], [], []
    for p in range(world.topics.partitions):
        found = assigned(world, p)
        for key, (_, vector) in members(world, inputs, p).items():
            points.append(vector)
            clusters.append(found[key]["cluster"])
        heavy += weights(world, inputs, p, manifest).values()
    points = np.array(points, np.float64).reshape(-1, n_dims)
    for label, cluster in enumerate(ids):
        is_mine = [c == cluster for c in clusters]
        mine, weight = points[is_mine], np.array(heavy)[is_mine]
        if not len(mine):
            continue
        mean = np.average(mine, axis=0, weights=weight)
        if is_cosine:
            length = np.sqrt((mean**2).sum())
            if length < 1e-9:
                continue
            mean /= length
        squares = ((mine - centroids[label]) ** 2).sum(axis=1)
        spread = np.sqrt(np.average(squares, weights=weight))
        far = np.sqrt(((mean - centroids[label]) ** 2).sum())
        # what weighs next to nothing is rounded coarsely: half a unit of each member's share
        rounding = len(mine) * n_dims**0.5 * manifest["max_component"] * 2.0**-33 / weight.sum()
        assert far <= 1e-4 * spread + 1e-6 + rounding * (manifest["forgetting"] is not None), (
            f"{cluster} of {manifest['epoch']}.{manifest['revision']} is {far} off its mean"
        )


def check_lineage(world):
    """Ids are never used again, and every epoch says what became of the one before."""
    (records,) = world.committed(world.topics.lifecycle)
    events = [json.loads(r.value) for r in records]
    assert len({e["id"] for e in events}) == len(events)
    live, born_ever = set(), set()
    for event in events:
        if event["type"] == "born":
            assert event["cluster"] not in born_ever, "an id was used twice"
            born_ever.add(event["cluster"])
            live.add(event["cluster"])
        elif event["type"] == "retired":
            live.remove(event["cluster"])
        elif event["type"] == "restored":
            assert event["cluster"] in born_ever - live, "restored, but never gone"
            live.add(event["cluster"])
        elif event["type"] == "split":
            assert event["cluster"] in event["children"] and len(event["children"]) > 1
        elif event["type"] == "merged":
            assert event["cluster"] in event["parents"] and len(event["parents"]) > 1
    assert live == set(newest_model(world)[0])
    answers = [
        e["command"]
        for e in events
        if e["type"] in ("installed", "rejected")
        or (e["type"] == "labelled" and e["id"].startswith("command/"))
    ]
    commands = [a for a in answers if a is not None]
    assert len(commands) == len(set(commands)), "a command was carried out twice"
    assert len(commands) == world.n_commands, "a command was not answered"


def check_schemas(world):
    """Every record that was written is what its schema says."""
    topics = world.topics
    for name in (topics.changes, topics.assignments, topics.vectors, topics.statistics,
                 topics.model, topics.lifecycle, topics.drift):  # fmt: skip
        for records in world.committed(name):
            for record in records:
                validate_record(name.removeprefix(topics.prefix), record)
    for records in world.committed(topics.dead_letters):
        for record in records:
            validate_record("dead-letters", record)


def judge(world, inputs):
    """All of it."""
    check_schemas(world)
    check_assignments(world, inputs)
    check_events(world, inputs)
    check_dead_letters(world, inputs)
    check_statistics(world, inputs)
    if world.follows:
        check_centroids(world, inputs)
    check_lineage(world)
