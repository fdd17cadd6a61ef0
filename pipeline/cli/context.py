"""What one call of ``eddy`` was given, and what it opens with it: the place that picks twins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

# Imported where they are used: `eddy --help` and a wrong option need none of it.
if TYPE_CHECKING:
    from pipeline.config import Config, Loaded
    from pipeline.kernels.contract import Kernels
    from pipeline.streams.contract import Broker

BROKER_LIMIT_S: Final = 10.0
"""How long a command waits for a broker to answer."""


OnError = Callable[[str, str], None]
"""Told what a client survives by itself: the broker's name for it, and a sentence."""


def open_kafka(config: Config, on_error: OnError) -> Broker:
    """The real broker, as the configuration names it."""
    from pipeline.streams.kafka.broker import KafkaBroker

    limit = config.limits.max_record_bytes
    return KafkaBroker(config.kafka, max_record_bytes=limit, on_error=on_error)


def open_device(config: Config) -> Kernels:
    """The kernels of ``device.kind``; who has to wait for their compilation is told so."""
    from pipeline.cli.output import err
    from pipeline.kernels.choose import make_kernels
    from pipeline.kernels.compiling import tell_of_compiling

    tell_of_compiling(err.print)
    return make_kernels(config.device)


@dataclass(frozen=True, slots=True)
class Twins:
    """Who stands for the broker and the device; tests bring their own."""

    broker: Callable[[Config, OnError], Broker] = open_kafka
    kernels: Callable[[Config], Kernels] = open_device


@dataclass
class Invocation:
    """One call of ``eddy``; configuration and broker are read and opened when first asked for."""

    environ: Mapping[str, str] = field(default_factory=dict)
    twins: Twins = field(default_factory=Twins)
    config_path: Path | None = None
    sets: tuple[str, ...] = ()

    @cached_property
    def loaded(self) -> Loaded:
        """The configuration, and where each value came from; `ConfigError` if it is wrong."""
        from pipeline.config import load

        return load(self.config_path, self.environ, self.sets)

    def set(self, key: str, value: str) -> None:
        """One more ``--set``; what is opened from now on, children included, obeys it."""
        self.sets += (f"{key}={value}",)
        self.__dict__.pop("loaded", None)

    @property
    def config(self) -> Config:
        return self.loaded.config

    def broker(self) -> Broker:
        """The broker, once it answers; `UnreachableError` when it does not."""
        broker = self.service_broker(lambda code, message: None)
        broker.wait(BROKER_LIMIT_S)
        return broker

    def service_broker(self, on_error: OnError) -> Broker:
        """The broker, not asked for anything yet: a service has more patience, and tells more."""
        return self.twins.broker(self.config, on_error)

    def kernels(self) -> Kernels:
        """The kernels; `ConfigError` where the device is missing."""
        return self.twins.kernels(self.config)

    @property
    def flags(self) -> list[str]:
        """The words before the verb that give a child process the same configuration."""
        path = [] if self.config_path is None else ["--config", str(self.config_path)]
        return path + [word for given in self.sets for word in ("--set", given)]


def invocation(ctx: typer.Context) -> Invocation:
    """What `pipeline.cli.main.main` put into Typer's context."""
    found = ctx.obj
    assert isinstance(found, Invocation)
    return found
