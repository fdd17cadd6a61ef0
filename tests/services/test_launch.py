"""What every service does first and last."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from urllib.request import urlopen

import pytest
import structlog

from pipeline.batching import BatchPolicy
from pipeline.config import Config
from pipeline.errors import ConfigError, TopicError
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.kernels.devices import DeviceMemory, device_memory
from pipeline.kernels.hybrid import HybridKernels
from pipeline.services.launch import starting, telling
from pipeline.services.reclusterer.reports import ReclustererReports
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.policy import TelemetryPolicy


class Card:
    """What a service reads of its kernels before it has any work."""

    name = "cuda"
    memory = DeviceMemory(3 * 2**30, 2**37)
    device = 'A card "of" two\\words'

    def device_memory(self):
        return self.memory


class Silent(Card):
    """A card that does not say."""

    memory = None


CONFIG = Config(telemetry=TelemetryPolicy(metrics_port=0, log_format="json"))


@pytest.fixture
def untouched_process():
    """Logs and the collector belong to the process, not to one test."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    structlog.reset_defaults()


@pytest.mark.parametrize("service", ["assigner", "reclusterer"])
def test_a_service_says_which_kernels_compute_and_on_what(service, untouched_process, capsys):
    with telling(service, CONFIG, Card()):
        started = json.loads(capsys.readouterr().out)
        with urlopen(f"http://127.0.0.1:{started['metrics_port']}/metrics") as answer:
            text = answer.read().decode()

    assert started["device"] == "cuda"
    assert r'eddy_device_info{kernel="cuda",name="A card \"of\" two\\words"} 1.0' in text


def test_processes_that_obey_the_same_have_one_digest(untouched_process, capsys):
    digests = []
    for name, size in (("a-0", 10), ("a-1", 10), ("a-0", 11)):
        config = replace(CONFIG, instance=name, batching=BatchPolicy(max_records=size))
        with telling("assigner", config, Card()):
            digests.append(json.loads(capsys.readouterr().out)["config_digest"])

    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("card", "expected"), [(Card, [3.0 * 2**30, 2.0**37]), (Silent, []), (object, [])]
)
def test_memory_of_a_card_is_told_where_there_is_one(card, expected, untouched_process, capsys):
    with telling("reclusterer", CONFIG, Card()) as (metrics, health):
        reports = ReclustererReports(get_logger(), metrics, health)
        reports.tell_device(card())
        text = metrics.exposition()[0].decode()

    lines = [line for line in text.splitlines() if line.startswith("eddy_device_memory_bytes{")]
    assert sorted(float(line.split()[-1]) for line in lines) == expected


def test_two_twins_as_one_tell_of_the_card():
    assert device_memory(HybridKernels(Silent(), Card(), {})) == Card.memory
    assert device_memory(HybridKernels(Card(), Silent(), {})) is None
    assert device_memory(CpuKernels(threads=1)) is None


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (
            ConfigError("limits.max_record_bytes is 1, but must be at least 2"),
            "limits.max_record_bytes",
        ),
        (ConfigError("kafka.isolation.level cannot be set"), "kafka.isolation.level"),
        (TopicError("embedding-changes: there are 3 partitions"), "embedding-changes"),
        (TopicError("nobody knows what of"), None),
    ],
)
def test_what_cannot_be_obeyed_is_logged_with_its_key(error, key, untouched_process, capsys):
    with pytest.raises(type(error)), telling("assigner", CONFIG, Card()):
        raise error

    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["event"], line["level"]) == ("config_rejected", "error")
    assert (line["key"], line["problem"]) == (key, str(error))


def test_a_configuration_that_cannot_be_read_is_logged_too(untouched_process, capsys):
    with pytest.raises(ConfigError), starting("assigner"):
        raise ConfigError("clustering.clusters is 'many', but must be a number")

    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["event"], line["key"]) == ("config_rejected", "clustering.clusters")
    assert line["service"] == "assigner"
