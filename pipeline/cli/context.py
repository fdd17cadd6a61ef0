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


def open_kafka(config: Config) -> Broker:
    """The real broker, as the configuration names it."""
    from pipeline.streams.kafka.broker import KafkaBroker

    return KafkaBroker(config.kafka, max_record_bytes=config.limits.max_record_bytes)


def open_device(config: Config) -> Kernels:
    """The kernels of ``device.kind``."""
    from pipeline.kernels.choose import make_kernels

    return make_kernels(config.device)


@dataclass(frozen=True, slots=True)
class Twins:
    """Who stands for the broker and the device; tests bring their own."""

    broker: Callable[[Config], Broker] = open_kafka
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

    def broker(self, *, timeout_s: float = BROKER_LIMIT_S) -> Broker:
        """The broker, once it answers; `UnreachableError` when it does not."""
        broker = self.twins.broker(self.config)
        broker.wait(timeout_s)
        return broker

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
