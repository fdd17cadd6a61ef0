"""The faults, one function each; what they draw comes from the seed of the run."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer

from tests.chaos.cluster import SESSION_S
from tests.chaos.proxy import Way
from tests.chaos.stage import Stage, send

CLOCK_JUMPS_S: Final = (-86_400.0, -3600.0, -5.0, 5.0, 3000.0, 86_400.0)


# --- processes ------------------------------------------------------------------------------------


def kill(stage: Stage) -> None:
    """kill -9 of an assigner or the reclusterer."""
    send(stage.anybody(), signal.SIGKILL)


def terminate(stage: Stage) -> None:
    """SIGTERM: it ends in order, and another begins."""
    send(stage.anybody(), signal.SIGTERM)


def stop(stage: Stage) -> None:
    """SIGSTOP for longer than the session; it wakes believing that nothing happened."""
    stage.sleep(stage.anybody())


def nap(stage: Stage) -> None:
    """SIGSTOP inside a commit: records or offsets are sent, the commit is not."""
    request = stage.folder / "nap.new"
    request.write_text(str(stage.rng.choice(["written", "offsets"])))
    request.rename(stage.folder / "nap")
    ends_at = time.monotonic() + SESSION_S
    while (stage.folder / "nap").exists() and time.monotonic() < ends_at:
        stage.wait(0.05)


def storm(stage: Stage) -> None:
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

    def join_and_leave() -> None:
        for stays_s in stays:
            member = Consumer(settings)
            member.subscribe([stage.site.topics.input])
            ends_at = time.monotonic() + stays_s
            while time.monotonic() < ends_at:
                member.consume(1, 0.05)
            member.close()

    stays = [stage.uniform(0.1, 1.2) for _ in range(5)]
    stage.aside(join_and_leave)


def fight(stage: Stage) -> None:
    """A second reclusterer under the id of the first one: they fence each other in turn."""
    stage.rival("reclusterer", stage.uniform(3.0, 5.0))


def recluster(stage: Stage) -> None:
    """A forced fit: a new epoch, and every item is judged again."""
    stage.ask_for_a_fit()


# --- brokers --------------------------------------------------------------------------------------


def broker(stage: Stage) -> None:
    """kill -9 of a broker in the middle of transactions; it comes back on the same data."""
    victim = stage.cluster.brokers[int(stage.rng.integers(stage.cluster.n_brokers))]
    victim.kill()
    stage.wait(stage.uniform(0.0, 1.0))
    stage.aside(victim.start)
    stage.aside(stage.cluster.wait_until_in_sync)


def rolling(stage: Stage) -> None:
    """Every broker is restarted in order, one after the other, as an upgrade does."""
    for one in stage.cluster.brokers:
        stage.aside(one.restart)
        stage.aside(stage.cluster.wait_until_in_sync)


def leader(stage: Stage) -> None:
    """The leader of a partition of the input dies; when it is back it is elected again."""
    topic = stage.site.topics.input
    partition = int(stage.rng.integers(stage.site.topics.partitions))
    at = stage.cluster.leader(topic, partition)
    if at < 0:
        return
    victim = stage.cluster.brokers[at]
    victim.kill()
    stage.wait(stage.uniform(2.0, 4.0))
    stage.aside(victim.start)
    stage.aside(stage.cluster.wait_until_in_sync)
    stage.aside(lambda: stage.cluster.elect_preferred(topic))


# --- the network ----------------------------------------------------------------------------------


def _way(stage: Stage, way: Way, duration_s: float, *, delay_s: float = 0.0) -> None:
    proxies = stage.cluster.network.proxies
    proxy = proxies[int(stage.rng.integers(len(proxies)))]
    proxy.set(way, delay_s=delay_s)
    stage.later(duration_s, lambda: proxy.set(Way.OPEN))
    stage.wait(duration_s)


def drop(stage: Stage) -> None:
    """All connections of a broker's clients end at once; new ones are welcome."""
    for proxy in stage.cluster.network.proxies:
        proxy.drop()


def cut(stage: Stage) -> None:
    """No way from any client to a broker."""
    _way(stage, Way.CUT, stage.uniform(0.5, SESSION_S + 2.0))


def half_open(stage: Stage) -> None:
    """Connections to a broker are accepted, and nobody answers."""
    _way(stage, Way.HALF_OPEN, stage.uniform(1.0, SESSION_S + 2.0))


def one_way(stage: Stage) -> None:
    """Requests reach a broker, its answers are lost: was it committed?"""
    _way(stage, Way.ONE_WAY, stage.uniform(0.5, SESSION_S + 1.0))


def delay(stage: Stage) -> None:
    """Every piece of data on the way to and from a broker is late."""
    delay_s = stage.uniform(0.02, 0.4)
    _way(stage, Way.OPEN, stage.uniform(2.0, 4.0), delay_s=delay_s)


# --- the machine ----------------------------------------------------------------------------------


def disk(stage: Stage) -> None:
    """The disk of the state folder is full; without one of its own: no file may grow."""
    lasts_s = stage.uniform(2.0, 5.0)
    if stage.disk.is_mounted:
        stage.disk.fill()
        stage.later(lasts_s, stage.disk.empty)
    else:
        for name, pid in stage.services.pids.items():
            if name.startswith("assigner") and pid:
                _limit_files(pid, 4096)
                stage.later(lasts_s, lambda pid=pid: _limit_files(pid, resource.RLIM_INFINITY))
    stage.wait(lasts_s)


def _limit_files(pid: int, n_bytes: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself meanwhile
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def clock(stage: Stage) -> None:
    """The wall clock of all services jumps, and comes back after a while."""
    stage.clock.shift(float(stage.rng.choice(CLOCK_JUMPS_S)))
    lasts_s = stage.uniform(1.0, 3.0)
    stage.later(lasts_s, lambda: stage.clock.shift(0.0))
    stage.wait(lasts_s)


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


class Fault(NamedTuple):
    """What is done, and why it cannot be done here, if so."""

    do: Callable[[Stage], None]
    why_not: Callable[[Stage], str | None] = _always


FAULTS: Final = {
    "kill": Fault(kill, _wants_signals),
    "term": Fault(terminate, _wants_signals),
    "stop": Fault(stop, _wants_signals),
    "nap": Fault(nap, _wants_signals),
    "storm": Fault(storm),
    "fight": Fault(fight),
    "recluster": Fault(recluster),
    "broker": Fault(broker),
    "rolling": Fault(rolling),
    "leader": Fault(leader, _wants_three),
    "drop": Fault(drop),
    "cut": Fault(cut),
    "half-open": Fault(half_open),
    "one-way": Fault(one_way),
    "delay": Fault(delay),
    "disk": Fault(disk, _wants_disk),
    "clock": Fault(clock, _wants_clock),
}
