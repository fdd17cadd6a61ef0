"""A broker that lets nobody in without a name, and nobody do what was not granted.

SASL_SSL with SCRAM-SHA-512 and OAUTHBEARER at one door, certificates of clients (mTLS) at another,
and Kafka's own authorizer, which denies what is not allowed. Keys and passwords are of this test
alone; the OAUTHBEARER validator is Kafka's unsecured one, for tests only.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pipeline.config import load
from pipeline.streams.acls import Role
from pipeline.streams.broker import RunningBroker, start_broker
from pipeline.streams.kafka.broker import KafkaBroker
from pipeline.streams.node import Node
from tests.conftest import FAST_GROUPS
from tests.kafka.site import until

ADMIN = "root"
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


def password(user: str) -> str:
    """Of a user of the test broker."""
    return f"pw-of-{user}-0123456789"


def make_certificates(folder: Path) -> None:
    """A CA, a key with its certificate for the server and one for a client; another CA."""
    folder.mkdir(parents=True)

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for ca in ("ca", "stranger"):
        subject = ("-days", "2", "-subj", f"/CN={ca}")
        openssl("req", "-x509", *curve, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", *subject)
    (folder / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("req", *curve, *request)
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        made = ("-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", "extensions")
        openssl("x509", "-req", *signed, *made)
    chain = ("server.key", "server.crt", "ca.pem")
    (folder / "server.pem").write_text("".join((folder / name).read_text() for name in chain))


@dataclass(frozen=True)
class SecureBroker:
    """A running one, with what its clients need."""

    process: RunningBroker
    folder: Path
    mutual: str
    """Address of the door that asks for a client's certificate."""

    def settings(self, user: str, **other: str) -> dict[str, str]:
        """What a client of a user is configured with, without the password."""
        return {
            "bootstrap.servers": self.process.bootstrap_servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "ssl.ca.location": str(self.folder / "tls/ca.pem"),
        } | other

    @property
    def _admin_settings(self) -> dict[str, str]:
        return self.settings(ADMIN, **{"sasl.password": password(ADMIN), "log_level": "0"})

    @cached_property
    def admin(self) -> Any:
        return AdminClient(self._admin_settings)

    def client(self) -> KafkaBroker:
        """Ours, as somebody who may do everything."""
        return KafkaBroker(self._admin_settings)

    def grant(self, acls: Iterable[Mapping[str, str]]) -> None:
        """Permit what `eddy topics acls --json` lists; returns once it holds."""
        bindings = [_binding(acl) for acl in acls]
        for future in self.admin.create_acls(bindings).values():
            future.result()
        self._await(bindings, are_there=True)

    def revoke(self, acls: Iterable[Mapping[str, str]]) -> None:
        """Take it away again; returns once it does not hold."""
        bindings = [_binding(acl) for acl in acls]
        for future in self.admin.delete_acls([_filter(b) for b in bindings]).values():
            future.result()
        self._await(bindings, are_there=False)

    def _await(self, bindings: list[Any], *, are_there: bool) -> None:
        def hold() -> bool:
            counts = [len(self.admin.describe_acls(_filter(b)).result()) for b in bindings]
            return all(bool(n) == are_there for n in counts)

        until(hold, "the permissions hold", 10.0)


def start_secure(folder: Path) -> SecureBroker:
    """Start it, with a user for every role; the caller closes ``process``."""
    make_certificates(folder / "tls")
    tls = folder / "tls"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        mutual = f"127.0.0.1:{probe.getsockname()[1]}"
    login = "org.apache.kafka.common.security"
    bearer = "listener.name.sasl_ssl.oauthbearer.sasl"
    extra = {
        "listeners": f"SSL://{mutual},SASL_SSL://127.0.0.1:{{port}},"
        "CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"SSL://{mutual},SASL_SSL://127.0.0.1:{{port}}",
        "listener.security.protocol.map": "SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            f"{login}.scram.ScramLoginModule required "
            f'username="{ADMIN}" password="{password(ADMIN)}";'
        ),
        f"{bearer}.jaas.config": (
            f"{login}.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="nobody";'
        ),
        f"{bearer}.server.callback.handler.class": (
            f"{login}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tls / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tls / "ca.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # the controller's door is a plain one on loopback
        "super.users": f"User:{ADMIN};User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }
    format_with = ["--standalone"]
    for user in (ADMIN, *Role):
        given = f"SCRAM-SHA-512=[name={user},password={password(user)}]"
        format_with += ["--add-scram", given]
    node = Node(format_with=tuple(format_with))
    process = start_broker(folder / "broker", extra=FAST_GROUPS | extra, node=node)
    return SecureBroker(process, folder, mutual)


class Installation:
    """One Eddy on a secure broker: a configuration file that holds no secret."""

    def __init__(self, broker: SecureBroker, folder: Path, prefix: str) -> None:
        self.broker = broker
        self.folder = folder
        self.file = folder / f"{prefix}yaml"
        kafka = broker.settings("somebody") | {
            "consumer.session.timeout.ms": "3000",
            "consumer.heartbeat.interval.ms": "300",
        }
        del kafka["sasl.username"]
        # JSON is YAML; an input that is not compacted needs every topic there is
        tree = {
            "kafka": kafka,
            "topics": {"input": f"{prefix}in", "prefix": prefix, "partitions": 2},
            "embedding": {"dimensions": 4},
            "clustering": {"clusters": 2},
            "recluster": {"bootstrap_items": 100, "min_interval_s": 1},
            "device": {"kind": "cpu", "threads": 1},
            "telemetry": {"metrics_port": 0, "log_format": "json"},
        }
        self.file.write_text(json.dumps(tree))
        self.config = load(self.file, {}).config

    def environment(self, user: str) -> dict[str, str]:
        """Variables that make a process that user; the password lies in a file."""
        path = self.folder / f"{user}.password"
        path.write_text(password(user) + "\n")
        return {
            "EDDY_KAFKA__SASL__USERNAME": user,
            "EDDY_KAFKA__SASL__PASSWORD_FILE": str(path),
        }


def _binding(acl: Mapping[str, str]) -> Any:
    pattern = {"literal": ResourcePatternType.LITERAL, "prefixed": ResourcePatternType.PREFIXED}
    return AclBinding(
        _RESOURCES[acl["resource"]], acl["name"], pattern[acl["pattern"]], acl["principal"],
        "*", _OPERATIONS[acl["operation"]], AclPermissionType.ALLOW,
    )  # fmt: skip


def _filter(binding: Any) -> Any:
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal,
        binding.host, binding.operation, binding.permission_type,
    )  # fmt: skip
