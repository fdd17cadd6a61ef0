"""A whole Eddy on a broker with passwords, certificates and permissions: exactly those printed."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from pipeline.cli.acls import granted
from pipeline.cli.main import main
from pipeline.errors import FatalError, UnreachableError
from pipeline.messages.codec import encode_vector
from pipeline.messages.records import Outgoing
from pipeline.streams.acls import Role
from pipeline.streams.contract import TopicSettings
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.topics import TopicPolicy, expected_topics
from tests.kafka.secure import Installation, password, start_secure
from tests.kafka.site import Process, until

pytestmark = pytest.mark.kafka

LIMIT_S = 60.0
SERVICES = (Role.ASSIGNER, Role.RECLUSTERER)


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """The one broker of this module."""
    broker = start_secure(tmp_path_factory.mktemp("secure"))
    yield broker
    broker.process.kill()


@pytest.fixture
def as_user(monkeypatch):
    """Become a user: `eddy` in this process then takes the name and the password's file."""

    def become(installation, user):
        for name, value in installation.environment(user).items():
            monkeypatch.setenv(name, value)

    return become


def eddy(installation, *words):
    """`eddy` in this process: exit code, and what it said. One that does not end is told to."""
    out, err = io.StringIO(), io.StringIO()
    end = threading.Timer(LIMIT_S, os.kill, (os.getpid(), signal.SIGTERM))
    end.start()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--config", str(installation.file), *words])
    finally:
        end.cancel()
    return code, out.getvalue() + err.getvalue()


def printed(installation, role, user=None):
    """What `eddy topics acls --json` prints."""
    principal = f"User:{user or role}"
    code, said = eddy(
        installation, "topics", "acls", "--principal", principal, "--role", role, "--json"
    )
    assert code == 0, said
    return json.loads(said)


def records(installation, ids, x):
    """Good records, one to an item."""
    topics = installation.config.topics
    rng = np.random.default_rng(1)
    for n in ids:
        vector = np.array([x, *rng.normal(0, 0.05, 3)], np.float32)
        yield Outgoing(topics.input, n % 2, b"item-%d" % n, encode_vector(vector))


def write(installation, outgoing):
    producer = installation.broker.client().producer()
    for record in outgoing:
        producer.write(record)
    producer.flush()


def make_topics(installation):
    """An input that is not compacted, so that item-vectors are written and read back."""
    config = installation.config
    wanted = expected_topics(config.topics, config.limits.max_record_bytes)
    kept = {"cleanup.policy": "delete", "retention.ms": "-1"}
    first = TopicSettings(wanted[0].name, wanted[0].n_partitions, kept)
    installation.broker.client().create_topics([first, *wanted[1:]])


@pytest.fixture(scope="module")
def whole(secure, tmp_path_factory):
    """An Eddy whose users have exactly what is printed for their roles."""
    installation = Installation(secure, tmp_path_factory.mktemp("whole"), "whole.")
    for role in Role:
        secure.grant(printed(installation, role))
    make_topics(installation)
    return installation


@pytest.fixture
def process(tmp_path):
    """Start `eddy` beside the test, as a user; it ends with the test."""
    running = []

    def start(installation, user, *words):
        command = [
            "env", *(f"{k}={v}" for k, v in installation.environment(user).items()),
            "python", "-m", "pipeline.cli.main", "--config", str(installation.file), *words,
        ]  # fmt: skip
        command[command.index("python")] = os.sys.executable
        running.append(Process(command, tmp_path / f"{len(running)}.log"))
        return running[-1]

    yield start
    for one in running:
        one.kill()


def committed(installation):
    group = f"{installation.config.topics.prefix}assigner"
    return installation.broker.client().committed(group, installation.config.topics.input)


def wait_until_applied(installation):
    client, topic = installation.broker.client(), installation.config.topics.input
    group = f"{installation.config.topics.prefix}assigner"

    def is_applied():
        done = client.committed(group, topic)
        return all((done[p] or 0) >= r.high for p, r in client.ranges(topic).items())

    until(is_applied, "all of the input is applied", 30.0)


# The whole of it


def test_a_whole_eddy_works_with_exactly_what_is_printed(whole, as_user, process):
    file = whole.folder / "feed.jsonl"
    vectors = [[1.0 if n % 3 else -1.0, n / 900, 0.1, 0.0] for n in range(300)]
    rows = [{"item": f"item-{n}", "vector": vector} for n, vector in enumerate(vectors)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    as_user(whole, Role.ADMIN)
    assert eddy(whole, "topics", "check")[0] == 0
    assigner = process(whole, Role.ASSIGNER, "assigner")
    reclusterer = process(whole, Role.RECLUSTERER, "reclusterer")

    as_user(whole, Role.PRODUCER)
    code, said = eddy(whole, "produce", str(file))
    assert code == 0, said
    as_user(whole, Role.OPERATOR)
    code, said = eddy(whole, "recluster", "--force", "--wait", "--timeout", "50")
    assert code == 0, said
    write(whole, [Outgoing(whole.config.topics.input, 0, b"bad", b"no vector")])
    wait_until_applied(whole)
    code, said = eddy(whole, "verify", "--json")
    assert code == 0, said
    for verb in (["model", "show"], ["doctor"]):
        code, said = eddy(whole, *verb)
        assert code == 0, said
    assert assigner.terminate() == 0, assigner.said
    assert reclusterer.terminate() == 0, reclusterer.said
    as_user(whole, Role.READER)
    code, said = eddy(whole, "watch", "--from-beginning", "--json", "--count", "300")
    assert code == 0, said
    assert len(said.splitlines()) == 300
    for user in Role:
        assert password(user) not in assigner.said + reclusterer.said + said


# One grant fewer


def cases():
    policy = Installation.__new__(Installation)  # names only: no broker yet
    policy.config = type("Named", (), {"topics": TopicPolicy("few.in", "few.", 2), "kafka": {}})()
    return [(role, grant) for role in SERVICES for grant in granted(policy.config, role)]


@pytest.fixture(scope="module")
def few(secure, tmp_path_factory):
    """An Eddy whose services are refused again and again, with a model and records to work on."""
    installation = Installation(secure, tmp_path_factory.mktemp("few"), "few.")
    for role in SERVICES:
        secure.grant(printed(installation, role))
    make_topics(installation)
    write(installation, records(installation, range(50), 1.0))
    return installation


@pytest.mark.parametrize(
    ("role", "grant"), cases(), ids=lambda v: "-".join(v[:3]) if isinstance(v, tuple) else v
)
def test_a_grant_that_is_missing_is_named_and_nothing_is_written(few, as_user, role, grant):
    lost = [
        acl
        for acl in printed(few, role)
        if (acl["resource"], acl["name"], acl["operation"])
        == (grant.resource, grant.name, grant.operation)
    ]
    assert len(lost) == 1
    before = committed(few)
    as_user(few, role)
    few.broker.revoke(lost)
    try:
        code, said = eddy(few, role, "--verbose")
    finally:
        few.broker.grant(lost)

    last = said.strip().splitlines()[-1]
    assert code not in (0, 70), said
    assert last.startswith("eddy: ")
    assert grant.name in last
    assert "eddy topics acls" in last
    assert committed(few) == before


# Other ways in


def test_a_certificate_is_enough_of_a_name(whole):
    tls, broker = whole.broker.folder / "tls", whole.broker
    whole.broker.grant(printed(whole, Role.PRODUCER, "CN=client"))
    settings = {
        "bootstrap.servers": broker.mutual,
        "security.protocol": "SSL",
        "ssl.ca.location": str(tls / "ca.pem"),
    }
    own = {
        "ssl.certificate.location": str(tls / "client.crt"),
        "ssl.key.location": str(tls / "client.key"),
    }

    producer = KafkaBroker(settings | own).producer()
    for record in records(whole, range(3), 1.0):
        producer.write(record)
    producer.flush()

    with pytest.raises(UnreachableError, match="certificate"):
        KafkaBroker(settings).wait(1.0)


def test_a_bearer_of_a_token_comes_in_and_may_do_what_is_granted_to_its_subject(whole):
    whole.broker.grant(printed(whole, Role.PRODUCER, "bearer"))
    bearer = {
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": "principal=bearer",
    }
    broker = KafkaBroker(whole.broker.settings("nobody", **bearer))

    producer = broker.producer()
    for record in records(whole, range(3), 1.0):
        producer.write(record)
    producer.flush()

    assert list(broker.topics(whole.config.topics.names)) == [whole.config.topics.input]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sasl.password": "a-wrong-one"}, "invalid credentials.*look at kafka.sasl"),
        ({"ssl.ca.location": "stranger.pem"}, "certificate verify failed.*look at kafka.sasl"),
    ],
)
def test_who_is_not_let_in_is_told_why_at_once(secure, wrong, said):
    right = secure.settings("assigner", **{"sasl.password": password("assigner")})
    wrong = {k: str(secure.folder / "tls" / v) if "loc" in k else v for k, v in wrong.items()}

    with pytest.raises(FatalError, match=said) as raised:
        KafkaBroker(right | wrong).wait(10)

    assert "a-wrong-one" not in str(raised.value)
