"""A service, put together from its configuration and turned until it is told to stop."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from pipeline.config import Config, assigner_group, instance, options, reclusterer_group
from pipeline.engine.cluster_engine import ClusterEngine
from pipeline.engine.setting import EngineSettings
from pipeline.errors import ConfigError, TopicError
from pipeline.kernels.contract import Kernels
from pipeline.kernels.devices import device_name
from pipeline.services.allocator import collect_seldom
from pipeline.services.assigner.checks import Checks
from pipeline.services.assigner.process import Assigner
from pipeline.services.assigner.reports import AssignerReports
from pipeline.services.assigner.snapshots import Snapshots
from pipeline.services.lifecycle import require_topics, serve
from pipeline.services.reclusterer.process import Reclusterer, ReclustererSettings
from pipeline.services.reclusterer.reports import ReclustererReports
from pipeline.services.room import memory_bytes, shortage
from pipeline.services.spans import BatchTraces
from pipeline.streams.acls import Role
from pipeline.streams.contract import Broker, GroupMember
from pipeline.telemetry.health import Health, HealthServer
from pipeline.telemetry.logs import Throttle, configure, get_logger
from pipeline.telemetry.metrics import Metrics
from pipeline.telemetry.tracing import Tracing

COMPACT = "compact"
"""The cleanup policy of an input that stores the vectors."""


def new_assigner(
    config: Config,
    broker: Broker,
    kernels: Kernels,
    *,
    input_policy: str,
    name: str,
    clock: Callable[[], float],
    reports: AssignerReports,
    writes_dead_letters: bool = True,
    tracing: Tracing | None = None,
) -> Assigner:
    """An assigner of that name, which has joined its group."""
    engine = ClusterEngine(
        EngineSettings(
            topics=config.topics,
            embedding=config.embedding,
            limits=config.limits,
            events=config.events,
            input_is_compacted=input_policy == COMPACT,
            writes_dead_letters=writes_dead_letters,
        ),
        kernels,
    )
    group = assigner_group(config)
    snapshots = None
    if config.state.directory is not None:
        snapshots = Snapshots(config.state, broker, engine, group, clock, reports)
        snapshots.check()
    return Assigner(
        broker=broker,
        stream=broker.stream(GroupMember(config.topics.input, group, f"{group}.{name}", name)),
        engine=engine,
        batching=config.batching,
        centroids=config.centroids,
        clock=clock,
        reports=reports,
        snapshots=snapshots,
        checks=Checks(np.random.default_rng()),  # others than before the restart
        traces=None
        if tracing is None
        else BatchTraces(tracing, config.topics.input, config.topics.changes, group),
    )


def new_reclusterer(
    config: Config,
    broker: Broker,
    kernels: Kernels,
    *,
    input_policy: str,
    executor: Executor,
    clock: Callable[[], float],
    steady: Callable[[], float],
    reports: ReclustererReports,
) -> Reclusterer:
    """The reclusterer, which has fenced the one before it."""
    group = reclusterer_group(config)
    return Reclusterer(
        broker=broker,
        stream=broker.stream(GroupMember(config.topics.commands, group, group, group)),
        settings=ReclustererSettings(
            topics=config.topics,
            embedding=config.embedding,
            limits=config.limits,
            events=config.events,
            clustering=config.clustering,
            centroids=config.centroids,
            recluster=config.recluster,
            drift=config.drift,
            assigner_group=assigner_group(config),
            input_policy=input_policy,
        ),
        kernels=kernels,
        executor=executor,
        clock=clock,
        steady=steady,
        reports=reports,
    )


def run_assigner(
    config: Config,
    broker: Broker,
    kernels: Kernels,
    *,
    stop: threading.Event,
    on_health: Callable[[Health], None] = lambda health: None,
) -> None:
    """Be one of the assigners until ``stop`` is set; ``on_health`` is given what probes read.

    Raises
    ------
    UnreachableError, TopicError, FencedError, FatalError
    """
    with (
        telling("assigner", config, kernels) as (metrics, health),
        traced("assigner", config) as tracing,
    ):
        on_health(health)
        input_policy = _input_policy(config, broker, Role.ASSIGNER, metrics, health, stop)
        if input_policy is None:
            return
        problem = shortage(config, memory_bytes())
        if problem is not None:
            get_logger().warning("memory_short", problem=problem)
        reports = AssignerReports(
            get_logger(),
            metrics,
            health,
            kernel=kernels.name,
            log_item_ids=config.telemetry.log_item_ids,
            max_items_per_partition=config.limits.max_items_per_partition,
        )
        assigner = new_assigner(
            config,
            broker,
            kernels,
            input_policy=input_policy,
            name=instance(config),
            clock=time.monotonic,
            reports=reports,
            tracing=tracing,
        )
        serve(assigner, stop=stop, reports=reports)


def run_reclusterer(
    config: Config,
    broker: Broker,
    kernels: Kernels,
    *,
    stop: threading.Event,
    on_health: Callable[[Health], None] = lambda health: None,
) -> None:
    """Be the reclusterer until ``stop`` is set; ``on_health`` is given what probes read.

    Raises
    ------
    UnreachableError, TopicError, FencedError, FatalError
    """
    with (
        telling("reclusterer", config, kernels) as (metrics, health),
        traced("reclusterer", config) as tracing,
    ):
        on_health(health)
        input_policy = _input_policy(config, broker, Role.RECLUSTERER, metrics, health, stop)
        if input_policy is None:
            return
        reports = ReclustererReports(get_logger(), metrics, health, tracing=tracing)
        with ThreadPoolExecutor(2, "fit") as executor:
            reclusterer = new_reclusterer(
                config,
                broker,
                kernels,
                input_policy=input_policy,
                executor=executor,
                clock=time.time,
                steady=time.monotonic,
                reports=reports,
            )
            serve(reclusterer, stop=stop, reports=reports)


def _input_policy(
    config: Config,
    broker: Broker,
    role: Role,
    metrics: Metrics,
    health: Health,
    stop: threading.Event,
) -> str | None:
    """The cleanup policy of the input, once every topic is as it must be; None: told to stop."""
    policy = require_topics(
        broker, config.topics, role, max_record_bytes=config.limits.max_record_bytes, stop=stop
    )
    if policy is not None:
        _check_next(config, policy)
        health.set("broker", True)
        metrics.gauge("eddy_input_partitions").set(config.topics.partitions)
    return policy


def _check_next(config: Config, input_policy: str) -> None:
    """Vectors of two models at once need an input that stores them."""
    following = config.embedding.next.model
    if following is not None and input_policy != COMPACT:
        raise ConfigError(
            f"embedding.next.model is {following!r}, but the cleanup policy of "
            f"{config.topics.input} is {input_policy!r}, and a change of the embedding model needs "
            f"one that is exactly {COMPACT!r}: leave embedding.next.model null, or begin anew with "
            "another input and topics.prefix"
        )


@contextmanager
def telling(service: str, config: Config, kernels: Kernels) -> Iterator[tuple[Metrics, Health]]:
    """Logs, metrics and probes, from before the broker is asked for anything to the very end."""
    collect_seldom()
    policy = config.telemetry
    metrics = Metrics(
        service,
        version=_version(),
        slo_freshness_s=policy.slo_freshness_s,
        thresholds=asdict(policy.thresholds),
    )
    configure(
        service=service,
        instance=instance(config),
        version=_version(),
        log_format=policy.log_format,
        count=metrics.log_event,
    )
    health = Health(service, poll_timeout_s=config.batching.max_wait_s)
    health.set("configuration", True)
    with rejecting(config), _health_server(health, metrics, policy.metrics_port) as server:
        name = device_name(kernels)
        metrics.gauge("eddy_device_info", kernel=kernels.name, name=name).set(1)
        get_logger().info(
            "service_started",
            device=kernels.name,
            config_digest=_digest(config),
            metrics_port=server.port,
        )
        yield metrics, health


@contextmanager
def traced(service: str, config: Config) -> Iterator[Tracing | None]:
    """The way to the collector of traces, if there is to be one; inside of `telling`."""
    policy = config.telemetry.tracing
    if policy.endpoint is None:
        yield None
        return
    throttle = Throttle()

    def complain(problem: str) -> None:
        suppressed = throttle.suppressed("traces", time.monotonic())
        if suppressed is not None:
            get_logger().warning("traces_not_sent", problem=problem, suppressed=suppressed)

    try:
        tracing = Tracing(
            policy,
            {
                "service.namespace": "eddy",
                "service.name": f"eddy-{service}",
                "service.instance.id": instance(config),
                "service.version": _version(),
            },
            complain=complain,
        )
    except ModuleNotFoundError as error:
        problem = f"telemetry.tracing.endpoint is {policy.endpoint!r}, but {error.name} is missing"
        raise ConfigError(
            f"{problem}: pip install 'eddy-stream[otel]', or set it to null"
        ) from error
    try:
        yield tracing
    finally:
        tracing.close()


def _health_server(health: Health, metrics: Metrics, port: int) -> HealthServer:
    try:
        return HealthServer(health, metrics.exposition, port=port)
    except OSError as error:
        raise ConfigError(
            f"telemetry.metrics_port is {port}, but cannot be listened on "
            f"({error.strerror}); 0 takes a free one"
        ) from error


@contextmanager
def starting(service: str) -> Iterator[None]:
    """While there is no configuration yet: what is wrong with it is a line of the log as well."""
    configure(service=service, instance=socket.gethostname(), version=_version())
    with rejecting(Config()):
        yield


@contextmanager
def rejecting(config: Config) -> Iterator[None]:
    """Log what somebody has to set differently, and which option or topic it is about."""
    try:
        yield
    except (ConfigError, TopicError) as error:
        problem = str(error)
        known = {*options(), *config.topics.names}
        words = (word.rstrip(".") for word in re.findall(r"[\w.-]+", problem))
        key = next((word for word in words if word in known or word.startswith("kafka.")), None)
        get_logger().error("config_rejected", key=key, problem=problem)
        raise


def _digest(config: Config) -> str:
    """The same for processes that obey the same options; what Kafka is told stays out of it."""
    return hashlib.blake2b(repr(replace(config, instance=None)).encode(), digest_size=6).hexdigest()


def _version() -> str:
    try:
        return version("eddy-stream")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
