"""One broker, or three that hold three copies of everything, behind proxies."""

from __future__ import annotations

import base64
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.streams.broker import RunningBroker, start_broker
from pipeline.streams.node import Node
from tests.chaos.proxy import Network, free_port
from tests.conftest import FAST_GROUPS

SESSION_S = 3.0
"""A member that is silent for so long is out of its group; in both protocols."""

_GROUPS = {
    **FAST_GROUPS,
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": f"{SESSION_S * 1000:.0f}",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",
}
_SAFE = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # a heartbeat is given up after its interval, and three brokers share two cores with everybody
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
}
"""Of three brokers one may be away."""
_IN_SYNC_LIMIT_S = 60.0


def _uuid() -> str:
    """As Kafka writes one; a dash at its beginning would be read as an option."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


def at_once(works: Sequence[Callable[[], object]]) -> None:
    """All of them in threads; raises what the first that failed raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Cluster:
    """Brokers that are controllers too; a context manager that ends them.

    Attributes
    ----------
    direct
        Where the judge asks, past the proxies.
    bootstrap
        Where everybody else asks.
    """

    def __init__(self, folder: Path, network: Network) -> None:
        self.network = network
        self.brokers: list[RunningBroker] = []
        self._folder = folder
        n = len(network.proxies)
        self._ports = [free_port() for _ in range(n)]
        self._controllers = [free_port() for _ in range(n)]
        self.direct = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        self.bootstrap = ",".join(f"127.0.0.1:{proxy.port}" for proxy in network.proxies)

    @property
    def n_brokers(self) -> int:
        return len(self.network.proxies)

    def __enter__(self) -> Cluster:
        voters = [f"{n + 1}@127.0.0.1:{port}" for n, port in enumerate(self._controllers)]
        initial = ",".join(f"{voter}:{_uuid()}" for voter in voters)
        cluster_id, found = _uuid(), {}

        def start(n: int) -> None:
            node = Node(
                self._controllers[n], cluster_id, ("--initial-controllers", initial)
            )  # fmt: skip
            found[n] = start_broker(
                self._folder / f"broker-{n + 1}", port=free_port(),
                extra=self._properties(n), heap="384m", node=node,
            )  # fmt: skip

        try:
            # none of three comes up alone
            at_once([lambda n=n: start(n) for n in range(self.n_brokers)])
        finally:
            self.brokers = [found[n] for n in sorted(found)]
            if len(found) < self.n_brokers:
                self.__exit__()
        for broker, proxy in zip(self.brokers, self.network.proxies, strict=True):
            proxy.target = int(broker.bootstrap_servers.rpartition(":")[2])
        self._admin = AdminClient({"bootstrap.servers": self.direct, "log_level": 0})
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            broker.kill()

    def _properties(self, n: int) -> dict[str, str]:
        direct = f"DIRECT://127.0.0.1:{self._ports[n]}"
        listen = "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"
        return {
            "node.id": str(n + 1),
            "listeners": f"{listen},{direct}",
            "advertised.listeners":
                f"PLAINTEXT://127.0.0.1:{self.network.proxies[n].port},{direct}",
            "inter.broker.listener.name": "DIRECT",
            "listener.security.protocol.map":
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT",
            "controller.quorum.bootstrap.servers":
                ",".join(f"127.0.0.1:{port}" for port in self._controllers),
            **_GROUPS,
            **(_SAFE if self.n_brokers > 1 else {}),
        }  # fmt: skip

    # --- what it looks like ---------------------------------------------------------

    def leader(self, topic: str, partition: int) -> int:
        """The place in `brokers` of a partition's leader; -1 if it has none now."""
        try:
            found = self._admin.list_topics(topic, timeout=5.0).topics[topic]
        except KafkaException:
            return -1
        return max(-1, found.partitions[partition].leader - 1)

    def is_in_sync(self) -> bool:
        """Whether every partition has all its copies, and a leader."""
        try:
            topics = self._admin.list_topics(timeout=5.0).topics.values()
        except KafkaException:
            return False
        return all(
            p.leader >= 0 and len(p.isrs) == len(p.replicas)
            for topic in topics
            for p in topic.partitions.values()
        )

    def wait_until_in_sync(self) -> None:
        deadline = time.monotonic() + _IN_SYNC_LIMIT_S
        while not self.is_in_sync():
            assert time.monotonic() < deadline, "copies are not in sync again"
            time.sleep(0.2)

    def elect_preferred(self, topic: str) -> None:
        """Leaders of a topic go back to where they belong."""
        topics = self._admin.list_topics(topic, timeout=5.0).topics
        places = [TopicPartition(topic, p) for p in topics[topic].partitions]
        self._admin.elect_leaders(ElectionType.PREFERRED, places).result(30.0)
