"""Apache Kafka in a container, for a machine that has Docker and nothing else."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, Final

from pipeline.streams.jars import KAFKA_VERSION, cluster_id, optional
from pipeline.streams.node import Node

_IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"
_STOP_LIMIT_S: Final = 30.0


class ContainerHost:
    """A container of Kafka's own image; testcontainers' reaper ends it with this process."""

    # of the container: only loopback of the machine leads there
    listen_address = "0.0.0.0"  # nosec B104

    def __init__(self, heap: str) -> None:
        self._heap = heap
        self._container: Any = None

    @property
    def pid(self) -> int:
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return int(wrapped.attrs["State"]["Pid"])

    def start(self, directory: Path, log: Path, port: int, node: Node) -> None:
        self.kill()
        folder = str(directory)
        tools, properties = "/opt/kafka/bin", f"{folder}/server.properties"
        script = (
            f"exec >>{log} 2>&1; {tools}/kafka-storage.sh format {shlex.join(node.format_with)} "
            f"--ignore-formatted -t {node.cluster_id or cluster_id()} -c {properties} && "
            f"exec {tools}/kafka-server-start.sh {properties}"
        )
        containers: Any = optional("testcontainers.core.container")
        user = f"{os.getuid()}:{os.getgid()}"
        self._container = (
            containers.DockerContainer(_IMAGE, user=user, entrypoint="/bin/bash")
            .with_command(["-c", script])
            .with_env("KAFKA_HEAP_OPTS", f"-Xmx{self._heap}")
            .with_env("LOG_DIR", f"{folder}/logs")
            .with_volume_mapping(folder, folder, "rw")
            .with_bind_ports(port, ("127.0.0.1", port))
        )
        log.touch()
        self._container.start()

    def is_running(self) -> bool:
        if self._container is None:
            return False
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return bool(wrapped.status == "running")

    def kill(self) -> None:
        if self._container is not None:
            self._container.stop(force=True)
            self._container = None

    def stop(self) -> None:
        if self._container is not None:
            self._container.get_wrapped_container().stop(timeout=int(_STOP_LIMIT_S))
            self.kill()


def docker_answers() -> bool:
    docker = optional("docker")
    if docker is None or optional("testcontainers.core.container") is None:
        return False
    try:
        docker.from_env(timeout=5).ping()
    except (docker.errors.DockerException, OSError):
        return False
    return True
