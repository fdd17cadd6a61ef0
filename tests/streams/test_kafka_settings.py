"""What the options under ``kafka:`` may say, and what a broker that is not there looks like."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError, FatalError, UnreachableError
from pipeline.streams.contract import GroupMember
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.kafka.client import OWNED, ClientSettings, Watch

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.mark.parametrize("name", OWNED)
@pytest.mark.parametrize("kind", ["", "consumer.", "producer.", "admin."])
def test_a_setting_that_a_promise_hangs_on_is_refused(kind, name):
    with pytest.raises(ConfigError, match=f"kafka.{kind}{name} is not for you to set"):
        KafkaBroker({**NOWHERE, kind + name: "x"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "kafka.bootstrap.servers is empty"),
        ({**NOWHERE, "consumer.group.id": "g"}, "must be kafka.group.id"),
        ({**NOWHERE, "bootstrap.serverz": "x"}, "bootstrap.serverz"),
        ({**NOWHERE, "socket.timeout.ms": "soon"}, "socket.timeout.ms"),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_named(settings, said):
    with pytest.raises(ConfigError, match=said):
        KafkaBroker(settings)


def test_membership_is_static_unless_the_instance_is_taken_away():
    def member(**settings):
        watch = Watch(lambda code, message: None)
        return ClientSettings({**NOWHERE, **settings}, 4096).member("g", "slot-0", watch)

    assert member()["group.instance.id"] == "slot-0"
    assert "group.instance.id" not in member(**{"group.instance.id": ""})


def test_idle_connections_end_twice_within_a_transaction_unless_somebody_wants_them_kept():
    def idle_ms(transactional_id="id", **settings):
        watch = Watch(lambda code, message: None)
        made = ClientSettings({**NOWHERE, **settings}, 4096).producer(watch, transactional_id)
        timeout_ms = int(made.get("transaction.timeout.ms", 0))
        return int(made.get("connections.max.idle.ms", -1)), timeout_ms

    found_ms, timeout_ms = idle_ms()
    assert 0 < 2 * found_ms < timeout_ms
    assert idle_ms(**{"producer.connections.max.idle.ms": "0"})[0] == 0
    assert idle_ms(transactional_id=None)[0] == -1


def test_a_setting_of_one_kind_of_client_reaches_only_that_kind():
    broker = KafkaBroker({**NOWHERE, "producer.nonsense": "1"})  # an admin client has no such

    with pytest.raises(ConfigError, match="nonsense"):
        broker.producer()


def test_a_broker_that_is_away_is_waited_for_only_so_long():
    said: list[str] = []
    broker = KafkaBroker(
        NOWHERE, on_error=lambda code, message: said.append(code), reach_limit_s=0.3
    )

    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1.*Connection refused"):
        broker.wait(0.3)
    with pytest.raises(UnreachableError, match="starting transactions as g.a"):
        broker.stream(GroupMember("in", "g", "g.a"))

    assert "_TRANSPORT" in said


@pytest.mark.kafka
def test_a_broker_that_does_not_let_us_in_is_not_waited_for(kafka_cluster):
    broker = KafkaBroker(
        {
            "bootstrap.servers": kafka_cluster.bootstrap_servers,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "somebody",
            "sasl.password": "a-secret",
        }
    )

    with pytest.raises(FatalError, match=r"does not let us in.*kafka\.sasl") as raised:
        broker.wait(30)

    assert "a-secret" not in str(raised.value)
