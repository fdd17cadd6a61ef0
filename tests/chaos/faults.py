"""The faults, one function each; what they draw comes from the seed of the run.

Each says whether it met anything: one that hit nobody is not counted, and tried again.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from tests.chaos.cluster import SESSION_S
from tests.chaos.proxy import Way
from tests.chaos.stage import Stage, send

ORDER_LIMIT_S: Final = 2 * SESSION_S
"""Nobody may be at work for as long as a session: it sleeps, or its broker is away."""
LEADER_LIMIT_S: Final = 10.0
DISK_LIMIT_S: Final = 6.0
CLOCK_JUMPS_S: Final = (-86_400.0, -3600.0, -5.0, 5.0, 3000.0, 86_400.0)


# --- processes ------------------------------------------------------------------------------------


def kill(stage: Stage) -> bool:
    """kill -9 of an assigner, the reclusterer or a server."""
    return send(stage.anybody(), signal.SIGKILL)


def crash(stage: Stage) -> bool:
    """It dies inside a commit: records or offsets are sent, or all is committed and not heard."""
    return stage.order("crash", str(stage.rng.choice(stage.places)), ORDER_LIMIT_S)


def terminate(stage: Stage) -> bool:
    """SIGTERM: it ends in order, and another begins."""
    return send(stage.anybody(), signal.SIGTERM)


def stop(stage: Stage) -> bool:
    """SIGSTOP for longer than the session; it wakes believing that nothing happened."""
    return stage.sleep(stage.anybody())


def nap(stage: Stage) -> bool:
    """SIGSTOP inside a commit: records or offsets are sent, the commit is not."""
    place = str(stage.rng.choice(["written", "offsets"]))
    return stage.order("nap", place, ORDER_LIMIT_S)


def storm(stage: Stage) -> bool:
    """Members join the group and leave it at once: rebalance upon rebalance."""
    settings: dict[str, Any] = {
        "bootstrap.servers": stage.cluster.bootstrap,
        "group.id": f"{stage.site.topics.prefix}assigner",
        "enable.auto.commit": False,
        "auto.offset.reset": "latest",
    }
    if stage.site.config.kafka.get("consumer.group.protocol") == "consumer":
        settings["group.protocol"] = "consumer"
    else:
        settings["partition.assignment.strategy"] = "cooperative-sticky"
        settings["session.timeout.ms"] = round(SESSION_S * 1000)
    joined: list[int] = []

    def note(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        joined.append(len(partitions))

    def join_and_leave() -> None:
        for stays_s in stays:
            member = Consumer(settings)
            member.subscribe([stage.site.topics.input], on_assign=note)
            ends_at = time.monotonic() + stays_s
            while time.monotonic() < ends_at:
                member.consume(1, 0.05)
            member.close()

    # the last one stays until a rebalance has come to its end, if need be
    stays = [*(stage.uniform(0.1, 1.2) for _ in range(4)), stage.uniform(2.0, 4.0)]
    stage.aside(join_and_leave)
    return bool(joined)


def fight(stage: Stage) -> bool:
    """A second reclusterer under the id of the first one: they fence each other in turn."""
    return stage.rival("reclusterer", stage.uniform(3.0, 5.0))


def recluster(stage: Stage) -> bool:
    """A forced fit: a new epoch, and every item is judged again."""
    stage.ask_for_a_fit()
    return True  # one that is rejected is taken off at the end


# --- brokers --------------------------------------------------------------------------------------


def broker(stage: Stage) -> bool:
    """kill -9 of a broker in the middle of transactions; it comes back on the same data."""
    victim = stage.cluster.brokers[int(stage.rng.integers(stage.cluster.n_brokers))]
    was_running = victim.is_running()
    victim.kill()
    stage.wait(stage.uniform(0.0, 1.0))
    stage.aside(victim.start)
    stage.aside(stage.cluster.wait_until_in_sync)
    return was_running


def rolling(stage: Stage) -> bool:
    """Every broker is restarted in order, one after the other, as an upgrade does."""
    for one in stage.cluster.brokers:
        stage.aside(one.restart)
        stage.aside(stage.cluster.wait_until_in_sync)
    return True


def leader(stage: Stage) -> bool:
    """The leader of a partition of the input dies; when it is back it is elected again."""
    cluster, topic = stage.cluster, stage.site.topics.input
    partition = int(stage.rng.integers(stage.site.topics.partitions))
    at = cluster.leader(topic, partition)
    if at < 0:
        return False
    victim = cluster.brokers[at]
    victim.kill()
    stage.wait(stage.uniform(1.0, 3.0))
    found: list[int] = []

    def look() -> None:
        deadline = time.monotonic() + LEADER_LIMIT_S
        while time.monotonic() < deadline:
            found.append(cluster.leader(topic, partition))
            if found[-1] not in (-1, at):
                return
            time.sleep(0.1)

    stage.aside(look)
    stage.aside(victim.start)
    stage.aside(cluster.wait_until_in_sync)
    stage.aside(lambda: cluster.elect_preferred(topic))
    return found[-1] not in (-1, at)


# --- the network ----------------------------------------------------------------------------------


def _way(stage: Stage, way: Way, duration_s: float, *, delay_s: float = 0.0) -> bool:
    """Whether it did anything to anybody."""
    proxies = stage.cluster.network.proxies
    proxy = proxies[int(stage.rng.integers(len(proxies)))]
    before = proxy.n_ended, proxy.n_bytes_lost, proxy.n_bytes_late
    proxy.set(way, delay_s=delay_s)
    stage.wait(duration_s)
    after = proxy.n_ended, proxy.n_bytes_lost, proxy.n_bytes_late
    proxy.set(Way.OPEN)
    return after != before


def drop(stage: Stage) -> bool:
    """All connections of a broker's clients end at once; new ones are welcome."""
    proxies = stage.cluster.network.proxies
    before = sum(proxy.n_ended for proxy in proxies)
    for proxy in proxies:
        proxy.drop()
    return sum(proxy.n_ended for proxy in proxies) > before


def cut(stage: Stage) -> bool:
    """No way from any client to a broker."""
    return _way(stage, Way.CUT, stage.uniform(0.5, SESSION_S + 2.0))


def half_open(stage: Stage) -> bool:
    """Connections to a broker are accepted, and nobody answers."""
    return _way(stage, Way.HALF_OPEN, stage.uniform(1.0, SESSION_S + 2.0))


def one_way(stage: Stage) -> bool:
    """Requests reach a broker, its answers are lost: was it committed?"""
    return _way(stage, Way.ONE_WAY, stage.uniform(0.5, SESSION_S + 1.0))


def delay(stage: Stage) -> bool:
    """Every piece of data on the way to and from a broker is late."""
    delay_s = stage.uniform(0.02, 0.4)
    return _way(stage, Way.OPEN, stage.uniform(2.0, 4.0), delay_s=delay_s)


# --- the machine ----------------------------------------------------------------------------------


def disk(stage: Stage) -> bool:
    """The disk of the state folder is full; without one of its own: no file may grow."""
    began, limited = len(stage.heard), []
    if stage.disk.is_mounted:
        stage.disk.fill()
    else:
        pids = stage.services.pids.items()
        limited = [pid for name, pid in pids if pid and name.startswith("assigner")]
        for pid in limited:
            _limit_files(pid, 4096)
    stage.wait(stage.uniform(2.0, 5.0))
    # who restores writes no snapshot
    met = stage.comes_true(lambda: stage.has_said("snapshot_failed", began), DISK_LIMIT_S)
    stage.disk.empty()
    for pid in limited:
        _limit_files(pid, resource.RLIM_INFINITY)
    return met


def _limit_files(pid: int, n_bytes: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself meanwhile
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def clock(stage: Stage) -> bool:
    """The wall clock of all services jumps, and comes back after a while."""
    stage.clock.shift(float(stage.rng.choice(CLOCK_JUMPS_S)))
    obeying = [pid for pid in stage.pids.values() if stage.clock.is_obeyed_by(pid)]
    stage.wait(stage.uniform(1.0, 3.0))
    stage.clock.shift(0.0)
    return bool(obeying)


# --- the table ------------------------------------------------------------------------------------


def _always(stage: Stage) -> str | None:
    return None


def _wants_three(stage: Stage) -> str | None:
    return None if stage.cluster.n_brokers > 1 else "one broker has nobody to lead instead"


def _wants_disk(stage: Stage) -> str | None:
    return None if stage.disk.is_mounted or hasattr(resource, "prlimit") else stage.disk.why_not


def _wants_clock(stage: Stage) -> str | None:
    return stage.clock.why_not


def _wants_signals(stage: Stage) -> str | None:
    return None if hasattr(os, "kill") else "no signals here"


def _so_long(seconds: float) -> Callable[[int], float]:
    return lambda n_brokers: seconds


class Fault(NamedTuple):
    """What is done, and why it cannot be done here, if so."""

    do: Callable[[Stage], bool]
    """Whether it met anything."""
    why_not: Callable[[Stage], str | None] = _always
    takes_s: Callable[[int], float] = lambda n_brokers: 5.0
    """With so many brokers, about: a run has an end, and none begins right before it."""


FAULTS: Final = {
    "kill": Fault(kill, _wants_signals, _so_long(1.0)),
    "crash": Fault(crash, _wants_signals),
    "term": Fault(terminate, _wants_signals, _so_long(1.0)),
    "stop": Fault(stop, _wants_signals, _so_long(SESSION_S + 3.0)),
    "nap": Fault(nap, _wants_signals, _so_long(SESSION_S + 3.0)),
    "storm": Fault(storm, takes_s=_so_long(8.0)),
    "fight": Fault(fight, takes_s=_so_long(12.0)),
    "recluster": Fault(recluster, takes_s=_so_long(1.0)),
    "broker": Fault(broker, takes_s=_so_long(8.0)),
    "rolling": Fault(rolling, takes_s=lambda n_brokers: 6.0 * n_brokers),
    "leader": Fault(leader, _wants_three, _so_long(12.0)),
    "drop": Fault(drop, takes_s=_so_long(1.0)),
    "cut": Fault(cut),
    "half-open": Fault(half_open),
    "one-way": Fault(one_way),
    "delay": Fault(delay),
    "disk": Fault(disk, _wants_disk),
    "clock": Fault(clock, _wants_clock),
}
