"""Servers that keep a copy of their view, over histories of random steps."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

from pipeline.config import ServerPolicy
from pipeline.state.snapshot_bytes import SnapshotError
from tests.services.server.conftest import Site, TimedWorld
from tests.simulation.test_commands import CORNERS, put

OF_THE_VIEW = (
    "items", "clusters", "clusters_live", "changes_per_s", "model", "vectors", "delay_p50_s",
    "delay_p99_s", "partitions", "as_of",
)  # fmt: skip


class TidyWorld(TimedWorld):
    """Its cleaner keeps every tombstone, as one does for `delete.retention.ms`."""

    def _compact(self, *, keep_tombstones=True):
        topics = self.topics
        names = [topics.assignments, topics.statistics, topics.vectors]
        names += [topics.input] if self.is_compacted else []
        for name in names:
            for partition in range(topics.partitions):
                before = self.applied(partition) if name == topics.input else None
                self.broker.compact(name, partition, keep_tombstones=keep_tombstones, before=before)
        self.broker.compact(topics.model, 0, keep_tombstones=True)

    def applied(self, partition):
        group = self.broker._group("t.assigner", self.topics.input)
        return 0 if group.is_pending(partition) else group.offsets.get(partition) or 0


def random_world(seed, **given):
    world = TidyWorld(seed, metadata=("kind",), **given)
    world.start_assigner("a0")
    world.start_assigner("a1")
    world.start_reclusterer()
    return world


def policy_at(folder):
    return ServerPolicy(snapshot_directory=str(folder), snapshot_interval_s=1e9)


class Later:
    """An executor that does what it was given when it is told to."""

    def __init__(self):
        self.calls = []
        self.is_prompt = False

    def submit(self, call, *args):
        future = Future()
        self.calls.append((future, call, args))
        if self.is_prompt:
            self.run()
        return future

    def run(self):
        for future, call, args in self.calls:
            try:
                future.set_result(call(*args))
            except (OSError, SnapshotError) as error:
                future.set_exception(error)
        self.calls.clear()

    def shutdown(self, wait=True):
        self.run()


class Place(Site):
    """A site that keeps snapshots, and knows whether it began with one."""

    def __init__(self, world, folder, **policy):
        self.path = folder / f"{world.topics.prefix}view.snapshot"
        had_one = self.path.exists()
        super().__init__(world, replace(policy_at(folder), **policy))
        self.was_resumed = had_one and self.path.exists()
        self.server.snapshots._executor = self.later = Later()

    def begin(self):
        """A snapshot of now, whose file is written when `later` is run."""
        snapshots = self.server.snapshots
        snapshots._due_at = float("-inf")
        snapshots.step(self.server.desk, self.server.follower)

    def take(self):
        self.begin()
        self.later.run()
        self.server.snapshots._look()
        assert self.path.exists()


def everything(site):
    """What the server says to every question that may be asked, but for how it runs."""

    def ask(path, **query):
        answer = site.get(path, **query)
        return answer.status_code, answer.json()

    pages = {
        f"/clusters {sort}": site.pages("/clusters", sort=sort, limit=7)
        for sort in ("size", "growth", "drift", "born_at")
    }
    pages |= {name: site.pages(name, limit=200) for name in ("/changes", "/lifecycle")}
    pages["/drift/alarms"] = site.pages("/drift/alarms")
    pages |= {path: ask(path) for path in ("/drift", "/model", "/models")}
    for window in ("5m", "1h", "24h"):
        pages[f"/flows {window}"] = ask("/flows", window=window)
        pages[f"/trending {window}"] = ask("/trending", window=window, limit=200)
    stats = site.ok("/stats")
    pages["/stats"] = {name: stats[name] for name in OF_THE_VIEW}
    live = {row["cluster"] for row in pages["/clusters size"]}
    for cluster in sorted(live | site.server.desk.view.lifecycle._origins.keys()):
        for path in ("", "/timeline"):
            pages[f"{cluster}{path}"] = ask(f"/clusters/{cluster}{path}")
        pages[f"{cluster} changes"] = ask("/changes", cluster=cluster, limit=200)
        if cluster in live:
            pages[f"{cluster} members"] = site.pages(f"/clusters/{cluster}/members", limit=5)
    for n, item in enumerate(items(site)):
        pages[item] = ask(f"/items/{item}")
        if n % 4 == 0:
            pages[f"{item} similar"] = ask(f"/items/{item}/similar", limit=50)
    return without_requests(pages)


def items(site):
    return sorted(key.decode() for key in site.server.desk.view.items)


def without_requests(found):
    """No ids of requests, which are never the same."""
    if isinstance(found, dict):
        left = found.keys() - {"request_id", "instance"}
        return {name: without_requests(found[name]) for name in left}
    if isinstance(found, list | tuple):
        return [without_requests(one) for one in found]
    return found


def differing(one, other):
    """The questions that are answered otherwise."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


# the law


def metadata(site):
    rows = site.server.desk.view.items
    return {name: rows.metadata.get(rows.find(name)) for name in rows}


def read_ahead(world, folder):
    """A site whose reader of the input is ahead of the assigners."""
    site = Place(world, folder)
    for i in range(6):
        put(world, 100 + i, CORNERS[i % 4])
    site.follow()
    assert any(site.server.follower._vectors._waiting.values())
    return site
