"""What every service does first and last."""

from __future__ import annotations

import gc
import json
from urllib.request import urlopen

import pytest
import structlog

from pipeline.config import Config
from pipeline.services.launch import _telling
from pipeline.telemetry.policy import TelemetryPolicy


class Card:
    """What a service reads of its kernels before it has any work."""

    name = "cuda"
    device = 'A card "of" two\\words'


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
    config = Config(telemetry=TelemetryPolicy(metrics_port=0, log_format="json"))

    with _telling(service, config, Card()):
        started = json.loads(capsys.readouterr().out)
        with urlopen(f"http://127.0.0.1:{started['metrics_port']}/metrics") as answer:
            text = answer.read().decode()

    assert started["device"] == "cuda"
    assert r'eddy_device_info{kernel="cuda",name="A card \"of\" two\\words"} 1.0' in text
