"""Every option of a process, gathered once: file, then environment, then flags.

An option is a field of the policy beside what obeys it; here they only come together. Its
path is the field's path: ``clustering.clusters`` in the file, ``EDDY_CLUSTERING__CLUSTERS``
in the environment, ``--set clustering.clusters=500`` on the command line. Unknown keys are
errors, types are strict, and where a value came from is remembered.

The policies are plain dataclasses; the one thing asked of pydantic is whether a value has
the type of its field.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.batching import BatchPolicy
from pipeline.clustering.centroids import CentroidPolicy
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.kmeans import ClusteringPolicy
from pipeline.clustering.schedule import ReclusterPolicy
from pipeline.errors import ConfigError, UsageError
from pipeline.kernels.contract import DevicePolicy
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy
from pipeline.plain_yaml import YAMLError, problem_of, read_yaml, shortened
from pipeline.state.policy import StatePolicy
from pipeline.streams.topics import TopicPolicy
from pipeline.telemetry.policy import TelemetryPolicy

PREFIX: Final = "EDDY_"
SECRET: Final = re.compile(r"password|secret|key\.pem|token|oauthbearer\.config")
_ENDS_SECRET: Final = re.compile(r"(?:password|secret|key\.pem)$")
_NO_OPTION: Final = re.compile(r"EDDY_CONFIG$|EDDY_TEST_")
_STRICT: Final = ConfigDict(strict=True, allow_inf_nan=False)
_BROKERS_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """Who may ask the server."""

    mode: Literal["none", "bearer"] = "none"
    """none is for the loopback address only."""
    file: str | None = None
    """Lines of `name:scopes:sha256`, one per token; scopes: read, write."""
    allow_unauthenticated: bool = False
    """Whether mode none may be used on any other address, where strangers may ask as well."""


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """The read-only view over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on."""
    root_path: str = ""
    """Path under which a proxy publishes it."""
    vectors: Literal["all", "none"] = "all"
    """Whether vectors are kept, for what asks after similar items."""
    search: Literal["auto", "exact", "faiss"] = "auto"
    """What finds similar items: a scan of all vectors, or an index by faiss, which finds 99 % of
    the nearest; auto: faiss where it is installed and faster."""
    max_vector_bytes: int = 8 * 2**30
    """Memory that vectors and their index may take; if vectors alone would take more, none are
    kept."""
    snapshot_directory: str | None = None
    """Where a copy of the view is kept, vectors included: a server that starts goes on from it;
    null: nowhere, and all is read from the topics. Servers on one machine may share it."""
    snapshot_interval_s: float = 300.0
    """Time between two of them."""
    auth: AuthPolicy = field(default_factory=AuthPolicy)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"server.port is {self.port}, but must be 0 to 65535")
        if self.root_path and not self.root_path.startswith("/"):
            raise ConfigError(f"server.root_path is {self.root_path!r}, but must begin with /")
        if self.max_vector_bytes < 0:
            raise ConfigError(
                f"server.max_vector_bytes is {self.max_vector_bytes}, but must not be negative"
            )
        if self.snapshot_interval_s < 1:
            raise ConfigError(
                f"server.snapshot_interval_s is {self.snapshot_interval_s:g}, but must be at "
                "least 1"
            )


KAFKA_DEFAULTS: Final = {"bootstrap.servers": "localhost:9092"}


@dataclass(frozen=True, slots=True)
class Config:
    """Every policy of a process; read by the command line, and by nobody else."""

    instance: str | None = None
    """Stable name of this process among its group, part of its transactional id; null: the name
    of the host."""
    kafka: Mapping[str, str] = field(default_factory=lambda: dict(KAFKA_DEFAULTS), repr=False)
    """Anything that librdkafka knows, passed through; null is the default."""
    topics: TopicPolicy = field(default_factory=TopicPolicy)
    embedding: EmbeddingPolicy = field(default_factory=EmbeddingPolicy)
    clustering: ClusteringPolicy = field(default_factory=ClusteringPolicy)
    device: DevicePolicy = field(default_factory=DevicePolicy)
    batching: BatchPolicy = field(default_factory=BatchPolicy)
    centroids: CentroidPolicy = field(default_factory=CentroidPolicy)
    recluster: ReclusterPolicy = field(default_factory=ReclusterPolicy)
    drift: DriftPolicy = field(default_factory=DriftPolicy)
    state: StatePolicy = field(default_factory=StatePolicy)
    limits: LimitPolicy = field(default_factory=LimitPolicy)
    events: EventPolicy = field(default_factory=EventPolicy)
    telemetry: TelemetryPolicy = field(default_factory=TelemetryPolicy)
    server: ServerPolicy = field(default_factory=ServerPolicy)

    def __post_init__(self) -> None:
        if self.instance is not None and not _BROKERS_NAME.fullmatch(self.instance):
            # the broker holds group.instance.id to the rules of a topic's name
            raise ConfigError(
                f"instance is {self.instance!r}, but must be 1 to 249 of A-Z a-z 0-9 . _ -"
            )
        n_dims = max(self.embedding.dimensions, self.embedding.next.dimensions or 0)
        least = 4 * n_dims + 4096  # a key, headers and metadata beside it
        if self.limits.max_record_bytes < least:
            raise ConfigError(
                f"limits.max_record_bytes is {self.limits.max_record_bytes}, but must be at least "
                f"{least} for {n_dims} dimensions"
            )
        if self.embedding.dtype != self.state.dtype:
            noted = replace(self.embedding, dtype=self.state.dtype)
            object.__setattr__(self, "embedding", noted)  # frozen from here on


class Option(NamedTuple):
    """One key of the configuration."""

    key: str
    policy: type
    type: Any
    default: object


class Given(NamedTuple):
    """A value as somebody wrote it."""

    value: object
    origin: str
    is_text: bool = False  # of the environment or a flag: no type yet


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where each of its values came from."""

    config: Config
    origins: Mapping[str, str]
    """Key -> ``default``, ``file eddy.yaml``, ``environment EDDY_X`` or ``--set``."""

    def is_set(self, key: str) -> bool:
        """Whether anybody named the key: its value is not just the default."""
        return self.origins.get(key, "default") != "default"


def load(path: Path | None, environ: Mapping[str, str], sets: Sequence[str] = ()) -> Loaded:
    """Gather the configuration: ``sets``, each ``key=value``, over ``environ`` over the file.

    Parameters
    ----------
    path
        The file; None: the one ``EDDY_CONFIG`` names, if it does.

    Raises
    ------
    ConfigError
        It names the key, what was got and where, and what was expected.
    UsageError
        One of ``sets`` has no ``=``.
    """
    if path is None and environ.get("EDDY_CONFIG"):
        path = Path(environ["EDDY_CONFIG"])
    given: dict[str, Given] = {}
    if path is not None:
        given |= _from_file(path)
    given |= _from_environment(environ)
    given |= _from_flags(sets)

    known = options()
    values: dict[str, object] = {key: option.default for key, option in known.items()}
    values |= {f"kafka.{name}": value for name, value in KAFKA_DEFAULTS.items()}
    for key, one in given.items():
        values[key] = _kafka_value(key, one) if is_kafka(key) else _checked(known[key], one)
    origins = {key: given[key].origin if key in given else "default" for key in values}
    try:
        config = _build(Config, values, "")
    except ConfigError as error:
        origin = origins.get(str(error).partition(" ")[0], "default")
        raise error if origin == "default" else ConfigError(f"{error} ({origin})") from error
    return Loaded(config, origins)


def assigner_group(config: Config) -> str:
    """The group whose members share the partitions."""
    return config.kafka.get("group.id") or f"{config.topics.prefix}assigner"


def reclusterer_group(config: Config) -> str:
    """The reclusterer's group, and its transactional id: a second one fences the first."""
    return f"{config.topics.prefix}reclusterer"


def instance(config: Config) -> str:
    """The stable name of this process."""
    return config.instance or socket.gethostname()


def option_fields(policy: Any) -> list[Field[Any]]:
    """The fields of a policy that are options or sections; what is derived is neither."""
    return [one for one in fields(policy) if one.metadata.get("is_option", True)]


@cache
def options() -> Mapping[str, Option]:
    """Every key, in the order of the file."""
    return {option.key: option for option in _walk(Config, "")}


def _walk(policy: type, path: str) -> Iterator[Option]:
    hints = get_type_hints(policy)
    for one in option_fields(policy):
        key, hint = f"{path}{one.name}", hints[one.name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _walk(hint, f"{key}.")
        elif key == "kafka":
            for name in ("bootstrap.servers", "group.id"):
                yield Option(f"kafka.{name}", Config, str | None, KAFKA_DEFAULTS.get(name))
        else:
            default = one.default if one.default_factory is MISSING else one.default_factory()
            yield Option(key, policy, hint, default)


# What was given, by whom


def _from_file(path: Path) -> dict[str, Given]:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
        if not isinstance(tree, dict | None):
            raise ConfigError(f"{path} holds {shortened(tree)}, but must hold options by name")
        origin = f"file {path}"
        return {key: Given(value, origin) for key, value in _flattened(tree or {}, "", origin)}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the configuration file {path} cannot be read: {error}; "
            "`eddy config init` prints one to start from"
        ) from error
    except YAMLError as error:
        # not from it: it quotes the line, in which a password may stand
        raise ConfigError(f"{path}, {problem_of(error)}") from None
    except RecursionError as error:  # brackets without end, or an alias inside what it names
        raise ConfigError(f"{path} is nested too deeply") from error


def _flattened(tree: dict[Any, Any], path: str, origin: str) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        key = f"{path}{name}"
        if is_kafka(key) or key in options():
            if not (is_kafka(key) and isinstance(value, dict)):
                yield key, value
                continue
            if _ENDS_SECRET.search(key):
                raise ConfigError(f"{key} must be text: put it in quotes ({origin})")
        elif key not in _sections():
            raise _unknown(key, origin)
        if isinstance(value, dict):
            yield from _flattened(value, f"{key}.", origin)
        elif value is not None:  # a section whose every line is a comment
            got = "no section" if key == "kafka" else shortened(value)  # perhaps a password
            raise ConfigError(f"{key} is {got}, but must hold options ({origin})")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or _NO_OPTION.match(name) or not text:
            continue  # an empty variable is what is left of one that was unset
        origin, key = f"environment {name}", name.removeprefix(PREFIX).lower().replace("__", ".")
        if key not in options() and key.endswith("_file"):
            key = key.removesuffix("_file")
            try:
                text = Path(text).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{name}: the file {text} cannot be read: {error}") from error
        if not is_kafka(key) and key not in options():
            raise _unknown(key, origin, written=variable)
        if key in given:
            raise ConfigError(f"{key} is set twice: {given[key].origin} and {origin}")
        given[key] = Given(text, origin, is_text=True)
    return given


def _from_flags(sets: Sequence[str]) -> dict[str, Given]:
    given = {}
    for one in sets:
        key, equals, text = one.partition("=")
        if not equals:
            raise UsageError(f"--set takes key=value, but was given {one!r}")
        if not is_kafka(key) and key not in options():
            raise _unknown(key, "--set")
        given[key] = Given(text, "--set", is_text=True)
    return given


def variable(key: str) -> str:
    """The environment's name of a key."""
    return PREFIX + key.upper().replace(".", "__")


def is_kafka(key: str) -> bool:
    """Whether librdkafka, and not we, knows the key."""
    return key.startswith("kafka.") and key != "kafka."


@cache
def _sections() -> frozenset[str]:
    keys = [key.split(".") for key in options()]
    return frozenset(".".join(words[:n]) for words in keys for n in range(1, len(words)))


def _unknown(key: str, origin: str, written: Callable[[str], str] = str) -> ConfigError:
    if key in _sections():
        inside = ", ".join(written(k) for k in options() if k.startswith(f"{key}."))
        return ConfigError(f"{written(key)} is a section: set one of {inside} ({origin})")
    same_name = [k for k in options() if k.rpartition(".")[2] == key.rpartition(".")[2]]
    meant = get_close_matches(key, same_name, n=1, cutoff=0.0)  # in another section, or in none
    others = [k for k in (*options(), *_sections()) if not key.startswith(f"{k}.")]
    meant = meant or get_close_matches(key, others, n=1, cutoff=0.5)
    hint = f"did you mean {written(meant[0])}?" if meant else "`eddy config init` lists them all"
    return ConfigError(f"{written(key)} is not an option; {hint} ({origin})")


# From what was given to a policy


def _checked(option: Option, given: Given) -> object:
    """The value in the option's own type; text may be read as YAML or as it stands."""
    adapter: TypeAdapter[object] = TypeAdapter(option.type, config=_STRICT)
    problem = ""
    for value in _readings(option, given):
        try:
            return adapter.validate_python(tuple(value) if isinstance(value, list) else value)
        except ValidationError as error:
            problem = problem or error.errors()[0]["msg"].removeprefix("Input should be ")
    raise ConfigError(
        f"{option.key} is {shortened(given.value)}, but must be {problem} ({given.origin})"
    )


def _readings(option: Option, given: Given) -> Iterator[object]:
    if not given.is_text:
        yield given.value
        return
    text = str(given.value)
    # a cron schedule begins with a star, in YAML an alias
    with suppress(YAMLError, RecursionError):
        yield read_yaml(text)
    yield text
    if get_origin(option.type) is tuple:
        yield [word.strip() for word in text.split(",")]


def _kafka_value(key: str, given: Given) -> str | None:
    value = given.value
    if given.is_text:
        return None if value == "null" else str(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float) or SECRET.search(key):
        # a password of digits would lose its zeros
        raise ConfigError(f"{key} must be text: put it in quotes ({given.origin})")
    return str(value)


def _build(policy: Any, values: Mapping[str, object], path: str) -> Any:
    hints, arguments = get_type_hints(policy), {}
    for one in option_fields(policy):
        key, hint = f"{path}{one.name}", hints[one.name]
        if is_dataclass(hint):
            arguments[one.name] = _build(hint, values, f"{key}.")
        elif key == "kafka":
            ours = {k.removeprefix("kafka."): v for k, v in values.items() if is_kafka(k)}
            given = {name: value for name, value in ours.items() if value is not None}
            arguments[one.name] = KAFKA_DEFAULTS | given
        else:
            arguments[one.name] = values[key]
    try:
        return policy(**arguments)
    except ValueError as error:  # of the ground floor, which does not know our errors
        raise ConfigError(str(error)) from error


def _at_least(key: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(f"{key} is {value}, but must be at least {least}")
