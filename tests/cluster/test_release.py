"""A release on a real Kubernetes, from its image to what stays of it: ``K8S=1 make cluster-test``.

One story; each test goes on where the one before it ended, so the first failure ends it (`-x`).
Users write all the while. After each change they rest, and ``eddy verify`` reads all topics; at the
end a second judge, which shares nothing with it, reads the whole log.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from websockets.sync.client import connect

from pipeline.services.server.routes.page import POLICY
from pipeline.streams.broker import RunningBroker
from tests.cluster.stage import (
    HERE,
    IMAGE,
    WAIT_S,
    Cluster,
    Release,
    browse,
    container,
    folder,
    start_s,
    values_of,
)
from tests.kafka.audit import audit
from tests.kafka.site import Site, site_at, until
from tests.upgrade.roll import N_DIMS, SETTINGS, Writer

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.environ.get("K8S") != "1", reason="asked for by K8S=1 make cluster-test"),
]

NAMESPACE = "eddy-test"
TOKEN = "eddy_0123456789abcdef0123456789abcdef"  # of this test alone
FIRST, SECOND = "0.1.0", "0.1.0-second"
N_PODS = 5
OUTAGE_S = 75.0  # longer than it takes a liveness probe to lose its patience
N_AGAIN = 500  # records for all partitions, in many transactions
PAUSE_S = 0.1  # 80 records a second: five pods, Kafka and Kubernetes share two cores
HOG = (
    # children that each take less than the service, so that it is the service that the node ends
    "import os, time\n"
    "for _ in range(40):\n"
    "    if os.fork() == 0:\n"
    "        held = bytearray(os.urandom(1) * 2**25)\n"
    "        time.sleep(60)\n"
    "    time.sleep(0.1)\n"
)


@dataclass
class Story:
    """What the tests share, and what they tell at the end."""

    cluster: Cluster
    release: Release
    broker: RunningBroker
    site: Site
    values: Path
    writer: Writer
    told: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str) -> Iterator[Callable[[str], None]]:
        """A line of the report; the word that it gives may say more."""
        began, more = time.monotonic(), []
        yield more.append
        line = f"{time.monotonic() - began:5.0f} s  {'; '.join([what, *more])}"
        self.told.append(line)
        print(line, flush=True)

    def verify(self, say: Callable[[str], None]) -> None:
        """Users rest; all that they wrote is applied, and the topics keep every promise."""
        with self.writer.held():
            self.site.wait_until_applied(WAIT_S)
            done = self.site.run("verify", "--timeout", "150")
            assert done.returncode == 0, done.stdout + done.stderr
            say(f"verify is clean at {self.writer.n_written} records")

    def helm(self, verb: str, *words: str | Path) -> None:
        self.release.helm(verb, *words, "--wait", "--timeout", f"{WAIT_S:.0f}s")

    def said_starts(self) -> str:
        """How long each pod took from the start of its container to ready."""
        starts = {
            pod["metadata"]["labels"]["app.kubernetes.io/component"]: start_s(pod)
            for pod in self.release.pods()
        }
        return ", ".join(
            f"{name} ready {taken:.0f} s after its start" for name, taken in starts.items()
        )


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A cluster with the image, a namespace, a broker, users; all of it ends with the story."""
    place, scratch = folder(), tmp_path_factory.mktemp("cluster")
    cluster = Cluster(place)
    cluster.up()
    if not (place / "image.tar").exists():
        subprocess.run([HERE / "image.sh", place, f"{IMAGE}:{FIRST}"], check=True)
    cluster.import_image(place / "image.tar", SECOND)
    cluster.fresh_namespace(NAMESPACE)
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    cluster.apply(
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "eddy-tokens"},
            "stringData": {"tokens": f"test:read,write:{digest}"},
        },
        namespace=NAMESPACE,
    )  # fmt: skip
    with (
        cluster.kafka(scratch / "broker", NAMESPACE) as broker,
        site_at(broker.bootstrap_servers, scratch, calm()) as site,
    ):
        values = scratch / "values.yaml"
        values.write_text(yaml.safe_dump(values_of(site, FIRST)))
        told = Story(
            cluster,
            Release(cluster, NAMESPACE, scratch),
            broker,
            site,
            values,
            Writer(site, 1, PAUSE_S),
        )
        yield told
        print("\nWhat the cluster showed:\n" + "\n".join(told.told))
        (place / "report.txt").write_text("\n".join(told.told) + "\n")
        if told.writer.is_alive():
            told.writer.finish()
    if not os.environ.get("K8S_KEEP"):
        cluster.down()


def calm() -> dict[str, object]:
    """Sessions as long as by default: a pod comes back within one."""
    return {key: value for key, value in SETTINGS.items() if not key.startswith("kafka.")}


def test_a_pod_that_is_not_restricted_is_refused_here(story):
    with story.timed("Pod Security restricted is enforced: a plain pod is refused"):
        said = story.release.kubectl("run", "plain", f"--image={IMAGE}:{FIRST}", check=False)

        assert 'violates PodSecurity "restricted' in said


def test_a_bad_value_is_refused_with_its_sentence_and_nothing_is_made(story):
    with story.timed("assigner.replicas above the partitions is refused by its sentence"):
        words = ("--values", story.values, "--set", "assigner.replicas=7")
        said = story.release.helm("install", "eddy", "helm", *words, check=False)

        assert "assigner.replicas is 7, but topics.input.partitions is 6" in said
        assert not story.release.pods()


def test_who_lacks_one_right_is_told_which(story):
    with story.timed("an installer without the right to budgets is refused, and told which right"):
        lacking = [
            one | {"rules": [r for r in one["rules"] if r["apiGroups"] != ["policy"]]}
            if one["kind"] == "Role"
            else one
            for one in story.release.role
        ]
        story.release.allow(lacking)
        words = ("--values", story.values, "--no-hooks")
        said = story.release.helm("install", "eddy", "helm", *words, check=False)
        story.release.allow(story.release.role)

        assert 'cannot get resource "poddisruptionbudgets"' in said or (
            'cannot create resource "poddisruptionbudgets"' in said
        ), said
        story.release.helm("uninstall", "eddy", "--ignore-not-found", "--no-hooks")


def test_installs_and_waits_and_its_hook_made_the_topics(story):
    with story.timed("helm install --wait: 2 assigners, 1 reclusterer, 2 servers") as say:
        story.helm("install", "eddy", "helm", "--values", story.values)
        say(story.said_starts())

    story.release.until_ready(N_PODS)
    assert not any(container(pod)["restartCount"] for pod in story.release.pods())
    checked = story.site.run("topics", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # what it may write is what the chart mounts, and what it may do is nothing
    words = ("exec", "eddy-assigner-0", "--", "python", "-c")
    assert story.release.kubectl(*words, "import os; print(os.getuid())").strip() == "65532"
    said = story.release.kubectl(*words, "open('/opt/eddy/x', 'w')", check=False)
    assert "Read-only file system" in said


def test_records_go_in_and_changes_come_out(story):
    story.writer.start()
    with story.timed("from the first record to the first change event, a first fit between") as say:
        until(lambda: story.site.values(story.site.topics.changes), "a change event", WAIT_S)
        say(f"{story.writer.n_written} records were written by then")


def test_the_server_answers_over_its_service(story):
    with story.timed("the Service answers: clusters, the model, and 401 without a token"):
        story.release.ask("/api/v1/clusters", "eddy_nobody", expect=401)
        until(lambda: items(story, "/api/v1/clusters"), "clusters at the server", WAIT_S)
        first = items(story, "/api/v1/clusters")[0]
        cluster = json.loads(story.release.ask(f"/api/v1/clusters/{first['cluster']}", TOKEN))
        assert cluster["cluster"] == first["cluster"]
        assert items(story, "/api/v1/changes?limit=5")


def items(story, path):
    return json.loads(story.release.ask(path, TOKEN))["items"]


def test_the_page_comes_where_the_notes_say_and_takes_a_token(story):
    notes = story.release.helm("get", "notes", "eddy")
    assert f"kubectl --namespace {NAMESPACE} port-forward service/eddy-server 8080:8080" in notes
    assert "http://127.0.0.1:8080/\n" in notes
    with (
        story.timed("the page over kubectl port-forward: files, login, stream") as say,
        story.release.forwarded("eddy-server", 8080) as port,
    ):
        answer, page = browse(port, "/")
        assert (answer.status, answer.headers["content-security-policy"]) == (200, POLICY)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        named = set(re.findall(r'(?:src|href)="(web/[^"#]+)"', page))
        assert "web/main.js" in named
        for path in named:
            answer, _ = browse(port, f"/{path}")
            assert (answer.status, answer.headers["content-security-policy"]) == (200, POLICY)
        say(f"{len(named)} files")

        assert browse(port, "/api/v1/clusters")[0].status == 401
        answer, _ = browse(port, "/login", json.dumps({"token": TOKEN}))
        assert answer.status == 204
        known = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        answer, clusters = browse(port, "/api/v1/clusters", **known)
        assert answer.status == 200 and json.loads(clusters)["items"]
        stream = f"ws://127.0.0.1:{port}/api/v1/stream"
        own = f"http://127.0.0.1:{port}"
        with connect(stream, additional_headers=known, origin=own, proxy=None) as ws:
            assert json.loads(ws.recv(timeout=WAIT_S))["type"] == "hello"


def test_the_changes_are_watched_as_the_notes_say(story):
    notes = story.release.helm("get", "notes", "eddy")
    command = f"kubectl --namespace {NAMESPACE} exec statefulset/eddy-assigner -- eddy watch"
    assert command in notes
    with story.timed("eddy watch in a pod sees three changes"):
        words = (*command.split()[3:], "--json", "--count", "3")
        said = story.release.kubectl(*words, "--timeout", f"{WAIT_S / 10:.0f}")
        assert len([json.loads(line) for line in said.splitlines()]) == 3


def test_helm_test_passes(story):
    with story.timed("helm test"):
        said = story.release.helm("test", "eddy", "--timeout", "10m", "--logs")

        assert "Succeeded" in said
        _, _, logs = said.partition("POD LOGS")
        assert "ok    broker" in logs
        assert '{"ok": true' in logs


def test_an_upgrade_under_load_loses_nothing(story):
    with story.timed("helm upgrade to another image and other settings, under load") as say:
        words = ("--values", story.values, "--set", f"image.tag={SECOND}")
        more = ("--set-json", "config.centroids.min_interval_s=0.7")
        story.helm("upgrade", "eddy", "helm", *words, *more)
        say(story.said_starts())
    assert {pod["spec"]["containers"][0]["image"] for pod in story.release.pods()} == {
        f"{IMAGE}:{SECOND}"
    }
    with story.timed("after it") as say:
        story.verify(say)


def test_a_rollback_under_load_loses_nothing(story):
    with story.timed("helm rollback, under load"):
        story.helm("rollback", "eddy", "1")
    assert {pod["spec"]["containers"][0]["image"] for pod in story.release.pods()} == {
        f"{IMAGE}:{FIRST}"
    }
    with story.timed("after it") as say:
        story.verify(say)


def test_a_pod_that_is_killed_comes_back_and_nothing_is_lost(story):
    with story.timed("an assigner deleted with no grace; all ready again"):
        words = ("delete", "pod", "eddy-assigner-0", "--grace-period=0", "--force")
        story.release.kubectl(*words)
        story.release.until_ready(N_PODS)
    with story.timed("after it") as say:
        story.verify(say)


def test_a_container_that_the_node_ends_for_memory_comes_back_and_nothing_is_lost(story):
    def ended():
        pod = story.release.kubectl("get", "pod", "eddy-assigner-1", "--output", "json")
        return container(json.loads(pod)).get("lastState", {}).get("terminated", {})

    with story.timed("an assigner at its limit of memory is OOMKilled; all ready again"):
        words = ("exec", "eddy-assigner-1", "--", "python", "-c", HOG)
        story.release.kubectl(*words, check=False)
        until(ended, "the container ends", WAIT_S)
        assert ended()["reason"] == "OOMKilled", ended()
        story.release.until_ready(N_PODS)
    with story.timed("after it") as say:
        story.verify(say)


def test_a_kafka_that_was_away_finds_all_again_and_nothing_is_lost(story):
    """What it forgot of a transaction ends the process that had it; the next one goes on."""

    def restarts():
        return {p["metadata"]["name"]: container(p)["restartCount"] for p in story.release.pods()}

    before = restarts()
    with story.timed(f"no Kafka for {OUTAGE_S:.0f} s, and back") as say:
        with story.writer.held():
            story.broker.kill()
            time.sleep(OUTAGE_S)
            story.broker.start()
        say(f"all ready {story.release.until_ready(N_PODS):.0f} s after it was back")
        # whose transaction was forgotten learns it from the next one
        enough = story.writer.n_written + N_AGAIN
        until(lambda: story.writer.n_written > enough, "records flow again", WAIT_S)
        with story.writer.held():
            story.site.wait_until_applied(WAIT_S)
        story.release.until_ready(N_PODS)
        again = [name for name, n in restarts().items() if n > before.get(name, 0)]
        say(f"started anew: {', '.join(again) or 'nobody'}")
    with story.timed("after it") as say:
        story.verify(say)


def test_the_whole_log_keeps_every_promise(story):
    story.writer.finish()
    with story.timed("the second judge reads the whole log") as say:
        story.site.wait_until_applied(WAIT_S)
        done = story.site.run("verify", "--timeout", "150")
        assert done.returncode == 0, done.stdout + done.stderr
        n_events = audit(story.site)
        say(f"{story.writer.n_written} records of {N_DIMS} dimensions, {n_events} change events")
        assert n_events > 0


def test_uninstalling_leaves_volumes_and_topics_and_nothing_else(story):
    with story.timed("helm uninstall --wait; volumes of the assigners and all topics stay"):
        story.helm("uninstall", "eddy")
        until(lambda: not story.release.pods(), "no pod is left", WAIT_S)

        kinds = (
            "statefulsets,deployments,services,configmaps,poddisruptionbudgets,networkpolicies,jobs"
        )
        chosen = ("--selector", "app.kubernetes.io/instance=eddy", "--output", "name")
        left = story.release.kubectl("get", kinds, *chosen).split()
        volumes = story.release.kubectl("get", "pvc", *chosen).split()
        assert left == []
        assert volumes == [f"persistentvolumeclaim/data-eddy-assigner-{n}" for n in range(2)]
        assert story.site.run("topics", "check").returncode == 0
