"""A real cluster with a real Kafka beside it: what the scenario asks and orders."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.streams.broker import RunningBroker, start_broker
from tests.chart.chart import CHART, ROOT
from tests.kafka.site import Site, until
from tests.upgrade.roll import SETTINGS

HERE: Final = Path(__file__).parent
NODE: Final = "10.90.0.1"
"""Of up.sh: the node's address, and the only one from which pods reach what is outside."""
KAFKA_PORT: Final = 9092
IMAGE: Final = "localhost/eddy"
WAIT_S: Final = 600.0
"""For what takes seconds where nobody else uses the machine."""
LIMITS: Final = {"assigner": "768Mi", "reclusterer": "1Gi", "server": "1Gi"}
KAFKA_KEYS: Final = ("kafka.", "topics.", "device.")

Object = dict[str, Any]


def folder() -> Path:
    """Where the cluster's programs and the image lie: K8S_DIR, or within ``.venv``."""
    return Path(os.environ.get("K8S_DIR") or ROOT / ".venv" / "k8s")


class Cluster:
    """The node, as its administrator sees it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.kube = place / "bin" / "kube"
        self.config = place / "kubeconfig"

    def up(self) -> None:
        """Build what is missing, and start it; nothing where all of it is up."""
        subprocess.run([HERE / "up.sh", self.place], check=True)

    def down(self) -> None:
        subprocess.run([HERE / "down.sh", self.place], check=True)

    def kubectl(
        self, *words: str | Path, given: str | None = None, check: bool = True, limit_s: float = 120
    ) -> str:
        """What kubectl says; where it may fail, its error, too."""
        done = subprocess.run(
            [self.kube, "kubectl", "--kubeconfig", self.config, *words],
            input=given, capture_output=True, text=True, check=False, timeout=limit_s,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"kubectl {words}: {done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def get(self, *words: str) -> Object:
        found = json.loads(self.kubectl("get", *words, "--output", "json"))
        assert isinstance(found, dict)
        return found

    def apply(self, *objects: Object, namespace: str = "default") -> None:
        text = yaml.safe_dump_all(objects)
        self.kubectl("apply", "--namespace", namespace, "--filename", "-", given=text)

    def import_image(self, archive: Path, *tags: str) -> None:
        """Hand the node an image, which it cannot pull, under more names."""
        ctr = ["ctr", "-a", self.place / "run" / "containerd.sock", "-n", "k8s.io", "images"]
        subprocess.run([*ctr, "import", archive], check=True, capture_output=True)
        for tag in tags:
            source = f"{IMAGE}:0.1.0"
            tagging = [*ctr, "tag", "--force", source, f"{IMAGE}:{tag}"]
            subprocess.run(tagging, check=True, capture_output=True)

    def fresh_namespace(self, name: str) -> None:
        """An empty one that takes restricted pods only, and volumes that nobody holds."""
        self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait", limit_s=WAIT_S)
        for volume in self.get("persistentvolumes")["items"]:
            if volume["status"]["phase"] == "Released":  # with what others left on it
                path = Path(volume["spec"]["local"]["path"])
                shutil.rmtree(path)
                path.mkdir()
                free = '{"spec": {"claimRef": null}}'
                self.kubectl("patch", "pv", volume["metadata"]["name"], "--patch", free)
        level = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": name, "labels": level}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    @contextmanager
    def kafka(self, data: Path, namespace: str) -> Iterator[RunningBroker]:
        """A broker outside, which pods know as ``kafka:9092`` and we on the loopback address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ours, pods = "PLAINTEXT://127.0.0.1:{port}", f"PODS://127.0.0.1:{port}"
        protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PODS:PLAINTEXT"
        extra = {
            "listeners": f"{ours},{pods},CONTROLLER://127.0.0.1:{{controller_port}}",
            "advertised.listeners": f"{ours},PODS://kafka:{KAFKA_PORT}",
            "listener.security.protocol.map": protocols,
            # as long as by default: it shares two cores with pods, and may be late by seconds
            "broker.session.timeout.ms": "9000",
            "broker.heartbeat.interval.ms": "2000",
        }
        metadata = {"name": "kafka", "labels": {"kubernetes.io/service-name": "kafka"}}
        door = {"name": "kafka", "port": KAFKA_PORT, "protocol": "TCP"}
        self.apply(
            {
                "apiVersion": "v1", "kind": "Service",
                "metadata": metadata, "spec": {"ports": [door]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": metadata, "addressType": "IPv4", "ports": [door],
                "endpoints": [{"addresses": [NODE], "conditions": {"ready": True}}],
            },
            namespace=namespace,
        )  # fmt: skip
        network = (self.place / "run" / "netns").read_text().strip()
        way = f"in:{NODE}:{KAFKA_PORT}=127.0.0.1:{port}"
        with start_broker(data, extra=extra, heap="256m") as broker:
            leading = [self.kube, "forward", f"/run/netns/{network}", way]
            forward = subprocess.Popen(leading, stderr=subprocess.DEVNULL)  # while Kafka is away
            try:
                yield broker
            finally:
                forward.kill()
                forward.wait()
                broker.kill()


class Release:
    """An installation, by somebody who may do no more than ``helm/rbac/installer.yaml`` says."""

    def __init__(self, cluster: Cluster, namespace: str, scratch: Path) -> None:
        self.cluster, self.namespace, self.scratch = cluster, namespace, scratch
        self.name = "eddy"
        self.role = list(yaml.safe_load_all((CHART / "rbac" / "installer.yaml").read_text()))
        self.config = scratch / "installer.kubeconfig"
        self.allow(self.role)
        account = ("token", "eddy-installer", "--namespace", namespace, "--duration", "4h")
        token = cluster.kubectl("create", *account).strip()
        config = yaml.safe_load(cluster.config.read_text())
        config["users"] = [{"name": "u", "user": {"token": token}}]
        self.config.write_text(yaml.safe_dump(config))

    def allow(self, role: list[Object]) -> None:
        """What the installer may do from now on."""
        self.cluster.apply(*role, namespace=self.namespace)

    def helm(self, verb: str, *words: str | Path, check: bool = True) -> str:
        """What helm says, and its error."""
        done = subprocess.run(
            [
                self.cluster.place / "bin" / "helm", "--kubeconfig", self.config,
                "--namespace", self.namespace, verb, *words,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == 0 or not check, f"helm {verb}: {said}\n{self.state()}"
        assert done.returncode != 0 or check, f"helm {verb} is not refused: {said}"
        return said

    def kubectl(self, *words: str, check: bool = True) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *words, check=check)

    def pods(self, component: str = "") -> list[Object]:
        """Those of the services that are not on their way out."""
        chosen = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component"
        chosen += f"={component}" if component else " notin (tests, topics)"
        found = self.cluster.get("pods", "--namespace", self.namespace, "--selector", chosen)
        return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    def ask(self, path: str, token: str, expect: int = 200) -> str:
        """What the server answers to another pod that asks by the name of the Service.

        Who is told "not now" asks again, as any client does.
        """
        program = (
            "import sys, urllib.request as u, urllib.error as e\n"
            "r = u.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]})\n"
            "try: a = u.urlopen(r, timeout=60)\n"
            "except e.HTTPError as error: a = error\n"
            "print(a.status); print(a.read().decode())"
        )
        url = f"http://{self.name}-server:8080{path}"
        words = ("exec", f"{self.name}-assigner-0", "--", "python", "-c", program, url, token)
        deadline = time.monotonic() + WAIT_S
        while True:
            status, _, body = self.kubectl(*words).partition("\n")
            if int(status) != 503 or time.monotonic() > deadline:
                break
        assert int(status) == expect, f"{path}: {status} {body}"
        return body

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """The port of this machine's loopback address at which kubectl leads to a service."""
        words = ["--namespace", self.namespace, "port-forward", f"service/{service}", f":{port}"]
        leading = subprocess.Popen(
            [self.cluster.kube, "kubectl", "--kubeconfig", self.cluster.config, *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert leading.stdout is not None
        try:
            said = leading.stdout.readline()  # it waits a minute at most for a pod that runs
            found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> ", said)
            assert found, said + self.state()
            yield int(found[1])
        finally:
            leading.kill()
            leading.communicate()

    def until_ready(self, n_pods: int, limit_s: float = WAIT_S) -> float:
        """Wait until so many pods, and no others, are ready; in how many seconds."""
        began = time.monotonic()

        def is_ready() -> bool:
            pods = self.pods()
            return len(pods) == n_pods and all(condition(pod, "Ready") for pod in pods)

        until(is_ready, f"{n_pods} pods are ready", limit_s)
        return time.monotonic() - began

    def state(self) -> str:
        """For a person who wonders why something failed."""
        pods = self.kubectl("get", "pods", "--output", "wide", check=False)
        return pods + self.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False)[-6000:]


def values_of(site: Site, tag: str) -> dict[str, object]:
    """The site's settings as values of the chart, in pods that fit on two cores."""
    config: dict[str, dict[str, object]] = {}
    for key, value in SETTINGS.items():
        if not key.startswith(KAFKA_KEYS):
            section, _, name = key.partition(".")
            config.setdefault(section, {})[name] = value
    small = {
        name: {
            "resources": {
                "requests": {"cpu": "100m", "memory": "256Mi"},
                "limits": {"memory": most},
            }
        }
        for name, most in LIMITS.items()
    }
    little = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    topics = site.topics
    return {
        "image": {"repository": IMAGE, "tag": tag},
        "kafka": {"bootstrapServers": f"kafka:{KAFKA_PORT}"},
        "topics": {
            "prefix": topics.prefix,
            "input": {"name": topics.input, "partitions": topics.partitions},
            "replicationFactor": 1,
            "job": {"resources": little},
        },
        "config": {**config, "telemetry": {"log_format": "json"}},
        "assigner": {**small["assigner"], "persistence": {"size": "1Gi"}},
        "reclusterer": small["reclusterer"],
        "server": {**small["server"], "auth": {"existingSecret": "eddy-tokens"}},
        "tests": {"resources": little},
    }


def browse(
    port: int, path: str, body: str | None = None, **headers: str
) -> tuple[HTTPResponse, str]:
    """A reply over a port-forward, and its text; who is told "not now" asks again."""
    method = "POST" if body else "GET"
    deadline = time.monotonic() + WAIT_S
    while True:
        with closing(HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as connection:
            given = {"Content-Type": "application/json", **headers}
            connection.request(method, path, body, headers=given)
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status != 503 or time.monotonic() > deadline:
            return answer, text


def condition(pod: Object, name: str) -> datetime | None:
    """Since when a pod is that; None: it is not."""
    for one in pod["status"].get("conditions", []):
        if one["type"] == name and one["status"] == "True":
            return moment(one["lastTransitionTime"])
    return None


def container(pod: Object) -> Object:
    """The state of its only container."""
    (status,) = pod["status"]["containerStatuses"]
    assert isinstance(status, dict)
    return status


def start_s(pod: Object) -> float:
    """Seconds from the start of the pod's container until it was ready."""
    ready = condition(pod, "Ready")
    assert ready is not None
    return (ready - moment(container(pod)["state"]["running"]["startedAt"])).total_seconds()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
