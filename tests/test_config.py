"""One configuration out of file, environment and flags; nothing is dropped in silence."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from pipeline.cli.explain import digest, explanation, sections, show, template, yaml_scalar
from pipeline.config import (
    Config,
    assigner_group,
    instance,
    load,
    options,
    reclusterer_group,
    variable,
)
from pipeline.errors import ConfigError, UsageError
from tests import generate_docs


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "eddy.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def value(key, environ=None, sets=(), path=None):
    rows = {row.key: row for row in show(load(path, environ or {}, sets))}
    return rows[key].value


# What is derived is no option


def test_how_vectors_are_held_is_an_option_of_the_state_that_the_embedding_policy_is_told():
    loaded = load(None, {}, ["state.dtype=float16", "embedding.dimensions=3"])

    assert loaded.config.state.dtype == loaded.config.embedding.dtype == "float16"
    assert "embedding.dtype" not in options()
    assert digest(loaded) != digest(load(None, {}, ["embedding.dimensions=3"]))
    assert Config().embedding.dtype == "float32"


def test_the_embedding_policy_has_no_dtype_of_its_own():
    with pytest.raises(ConfigError, match=r"embedding.dtype is not an option.*state.dtype"):
        load(None, {}, ["embedding.dtype=float16"])


def test_a_bound_that_float16_cannot_hold_is_refused_with_its_origin():
    sets = ["state.dtype=float16", "embedding.max_component=65536"]

    with pytest.raises(ConfigError, match=r"^embedding.max_component is 65536.*65504.*\(--set\)"):
        load(None, {}, sets)


# Precedence and origins


def test_nothing_given_gives_the_defaults():
    loaded = load(None, {"PATH": "/bin", "EDDY_TEST_BROKER": "x"}, [])

    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(options())


def test_flags_are_above_the_environment_above_the_file(file):
    path = file("clustering: {clusters: 1, seed: 1}\nbatching: {max_records: 1}\n")
    environ = {"EDDY_CLUSTERING__CLUSTERS": "2", "EDDY_CLUSTERING__SEED": "2"}

    loaded = load(path, environ, ["clustering.clusters=3"])

    assert loaded.config.clustering.clusters == 3
    assert loaded.config.clustering.seed == 2
    assert loaded.config.batching.max_records == 1
    assert loaded.origins["clustering.clusters"] == "--set"
    assert loaded.origins["clustering.seed"] == "environment EDDY_CLUSTERING__SEED"
    assert loaded.origins["batching.max_records"] == f"file {path}"
    assert loaded.is_set("clustering.seed")
    assert not loaded.is_set("batching.max_wait_s")


def test_the_environment_names_the_file(file):
    path = file("clustering: {clusters: 7}")

    loaded = load(None, {"EDDY_CONFIG": str(path)}, [])

    assert loaded.config.clustering.clusters == 7


def test_the_last_flag_wins():
    assert value("clustering.seed", sets=["clustering.seed=1", "clustering.seed=2"]) == 2


def test_an_empty_variable_counts_as_not_set():
    assert value("clustering.clusters", {"EDDY_CLUSTERING__CLUSTERS": ""}) == 500


@pytest.mark.parametrize("key", [key for key, o in options().items() if o.default is not None])
def test_every_default_can_be_given_back_in_every_way(key, file):
    option = options()[key]
    text = yaml_scalar(option.default)
    if key != "server.root_path":  # an empty variable is none
        environ = {variable(key): text}
        assert load(None, environ, []).config == Config()
        assert load(None, environ, []).is_set(key)
    assert load(None, {}, [f"{key}={text}"]).config == Config()


# Texts become values


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("recluster.schedule=*/5 * * * *", "*/5 * * * *"),
        ("recluster.schedule=null", None),
        ("embedding.model=3", "3"),
        ("embedding.model=2026-01-01", "2026-01-01"),
        ("embedding.model=no", "no"),
        ("events.metadata=[a, b]", ("a", "b")),
        ("events.metadata=a,b", ("a", "b")),
        ("events.metadata=a", ("a",)),
        ("events.metadata=[]", ()),
        ("centroids.tolerance=1e-3", 0.001),
        ("centroids.max_interval_s=30", 30.0),
        ("telemetry.log_item_ids=true", True),
        ("telemetry.thresholds.lag_records=5", 5),
        ("limits.max_record_bytes=2_000_000", 2_000_000),
        ("topics.prefix=a=b.", ConfigError),
    ],
)
def test_text_is_read_in_the_options_own_type(given, expected):
    key = given.partition("=")[0]
    if expected is ConfigError:
        with pytest.raises(ConfigError, match=re.escape(key.split(".")[0])):
            load(None, {}, [given])
        return

    assert value(key, sets=[given]) == expected


def test_a_section_of_comments_is_empty(file):
    assert load(file("drift:\n  # arl0: 3\nclustering:\n"), {}, []).config == Config()


def test_an_empty_file_is_fine(file):
    assert load(file("# nothing\n"), {}, []).config == Config()


# What is refused, and with which words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clustring: {clusters: 5}", "clustring is not an option; did you mean clustering?"),
        ("clustering: {cluster: 5}", "clustering.cluster is not an option; did you mean"),
        ("clusters: 5", "clusters is not an option; did you mean clustering.clusters?"),
        ("telemetry: {thresholds: {lag: 5}}", "did you mean telemetry.thresholds.lag_records?"),
        ("zzzzzz: 1", "zzzzzz is not an option; `eddy config init` lists them all"),
        ("clustering: 5", "clustering is 5, but must hold options"),
        ("clustering: {clusters: many}", "clustering.clusters is 'many', but must be a valid int"),
        ("clustering: {clusters: 5.5}", "clustering.clusters is 5.5, but must be a valid int"),
        ("clustering: {clusters: true}", "clustering.clusters is True, but must be a valid int"),
        ("clustering: {clusters: '5'}", "clustering.clusters is '5', but must be a valid int"),
        ("clustering: {clusters: null}", "clustering.clusters is None, but must be a valid int"),
        ("instance: 12", "instance is 12, but must be a valid string"),
        ("instance: a b", "instance is 'a b', but must be"),
        ("embedding: {metric: cos}", "embedding.metric is 'cos', but must be 'euclidean' or"),
        ("batching: {max_records: 0}", "batching.max_records is 0, but must be at least 1"),
        ("batching: {max_wait_s: .nan}", "batching.max_wait_s is '.nan', but must be a valid"),
        ("telemetry: {metrics_port: 99999}", "telemetry.metrics_port is 99999, but must be"),
        ("telemetry: {slo_freshness_s: 0}", "telemetry.slo_freshness_s is 0.0, but must be above"),
        ("limits: {max_record_bytes: 5000}", "limits.max_record_bytes is 5000, but must be at"),
        ("drift: {arl0: 1}", "drift.arl0 is 1, but must be at least 2"),
        ("clustering: {seed: 1, seed: 2}", "line 1: seed stands twice"),
        ("clustering: {", "line 1: "),
        ("a: b: c", "line 1: "),
        ("- a", "but must hold options by name"),
    ],
)
def test_a_bad_file_is_refused_with_the_key_and_the_place(text, said, file):
    path = file(text)

    with pytest.raises(ConfigError) as caught:
        load(path, {}, [])

    assert said in str(caught.value)
    assert "eddy.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("EDDY_CLUSTRING__CLUSTERS", "5", "did you mean EDDY_CLUSTERING__CLUSTERS?"),
        ("EDDY_CLUSTERS", "5", "did you mean EDDY_CLUSTERING__CLUSTERS?"),
        ("EDDY_BATCHING", "5", "EDDY_BATCHING is a section: set one of EDDY_BATCHING__MAX_RECORDS"),
        ("EDDY_DEVICE__KIND", "gpu", "(environment EDDY_DEVICE__KIND)"),
        ("EDDY_BATCHING__MAX_RECORDS", "-1", "(environment EDDY_BATCHING__MAX_RECORDS)"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(name, text, said):
    with pytest.raises(ConfigError) as caught:
        load(None, {name: text}, [])

    assert said in str(caught.value)


def test_a_flag_without_a_value_is_wrong_use():
    with pytest.raises(UsageError, match="key=value"):
        load(None, {}, ["clustering.clusters"])


def test_a_missing_file_is_said_with_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="eddy config init"):
        load(tmp_path / "none.yaml", {}, [])


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "eddy.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match=r"eddy\.yaml"):
        load(path, {}, [])


# Kafka's own settings, and secrets


def test_kafka_settings_pass_through_as_text(file):
    path = file(
        "kafka:\n  security.protocol: SASL_SSL\n  enable.ssl.certificate.verification: false\n"
        "  consumer: {fetch.min.bytes: 7}\n  client.id: null\n"
    )
    environ = {"EDDY_KAFKA__BOOTSTRAP__SERVERS": "a:1,b:2", "EDDY_KAFKA__CLIENT__RACK": "012"}

    config = load(path, environ, ["kafka.socket.timeout.ms=1000"]).config

    assert config.kafka == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "enable.ssl.certificate.verification": "false",
        "consumer.fetch.min.bytes": "7",
        "client.rack": "012",
        "socket.timeout.ms": "1000",
    }


def test_an_address_of_null_is_the_default():
    assert load(None, {}, ["kafka.bootstrap.servers=null"]).config == Config()


def test_a_secret_comes_from_a_file(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("0123\n")

    config = load(None, {"EDDY_KAFKA__SASL__PASSWORD_FILE": str(secret)}, []).config

    assert config.kafka["sasl.password"] == "0123"


def test_a_secret_given_twice_is_refused(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("0123\n")
    environ = {
        "EDDY_KAFKA__SASL__PASSWORD_FILE": str(secret),
        "EDDY_KAFKA__SASL__PASSWORD": "hunter2",
    }

    with pytest.raises(ConfigError, match="set twice") as caught:
        load(None, environ, [])

    assert "hunter2" not in str(caught.value)


def test_a_secret_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="EDDY_KAFKA__SASL__PASSWORD_FILE"):
        load(None, {"EDDY_KAFKA__SASL__PASSWORD_FILE": str(tmp_path / "none")}, [])


def test_a_key_that_ends_in_file_is_still_a_key():
    assert load(None, {"EDDY_SERVER__AUTH__FILE": "tokens"}, []).config.server.auth.file == "tokens"


def test_a_password_of_digits_has_to_be_quoted(file):
    with pytest.raises(ConfigError, match=r"kafka\.sasl\.password must be text") as caught:
        load(file("kafka: {sasl.password: 31337}"), {}, [])

    assert "31337" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "sasl.password",
        "ssl.key.pem",
        "ssl.key.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
    ],
)
def test_secrets_are_never_shown(key):
    loaded = load(None, {}, [f"kafka.{key}=hunter2"])

    assert {row.key: row.value for row in show(loaded)}[f"kafka.{key}"] == "***"
    assert "hunter2" not in repr(loaded)
    assert loaded.config.kafka[key] == "hunter2"


# What is shown and derived


def test_show_has_every_key_in_the_order_of_the_file():
    rows = show(load(None, {}, ["kafka.client.id=x"]))

    keys = [row.key for row in rows]
    assert [key for key in keys if key != "kafka.client.id"] == list(options())
    assert keys.index("kafka.client.id") == keys.index("kafka.group.id") + 1


def test_names_that_follow_from_others():
    assert assigner_group(Config()) == "eddy.assigner"
    assert reclusterer_group(Config()) == "eddy.reclusterer"
    assert instance(Config(instance="a-0")) == "a-0"
    assert instance(Config())

    config = load(None, {}, ["kafka.group.id=mine", "topics.prefix=two."]).config

    assert assigner_group(config) == "mine"
    assert reclusterer_group(config) == "two.reclusterer"


def test_the_digest_is_of_the_values_not_of_who_gave_them():
    plain = load(None, {}, [])

    assert digest(plain) == digest(load(None, {}, ["clustering.clusters=500"]))
    assert digest(plain) != digest(load(None, {}, ["clustering.clusters=501"]))
    assert digest(plain) != digest(load(None, {}, ["kafka.client.id=x"]))


# The file to start from, and the documentation


def test_every_option_and_section_is_explained():
    assert [key for key, option in options().items() if len(explanation(option)) < 10] == []
    assert [section for section, said in sections().items() if len(said) < 10] == []


def test_the_template_changes_nothing(file):
    loaded = load(file(template()), {}, [])

    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}


def test_the_template_with_every_line_in_force_is_the_default(file):
    in_force = re.sub(r"^( *)#(?=[a-z])", r"\1", template(), flags=re.MULTILINE)

    loaded = load(file(in_force), {}, [])

    assert loaded.config == Config()
    assert all(loaded.is_set(key) for key in options())
    assert max(map(len, in_force.splitlines())) <= 100
    assert yaml.safe_load(in_force)["recluster"]["keep_epochs"] == 10  # other readers agree


@pytest.mark.parametrize("name", generate_docs.PAGES)
def test_a_generated_page_says_what_the_code_says(name):
    committed = (generate_docs.DOCS / name).read_text(encoding="utf-8")

    assert committed == generate_docs.PAGES[name](), "python -m tests.generate_docs"


def test_the_import_is_cheap():
    """The command line reads the configuration before it knows which libraries it needs."""
    heavy = {"numba", "confluent_kafka", "scipy", "prometheus_client", "structlog", "sklearn"}
    code = "import sys, pipeline.config; print(*sys.modules)"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert heavy & set(run.stdout.split()) == set()
