"""What runs here, in words."""

from __future__ import annotations

import pytest

from pipeline.kernels.choose import make_kernels, why
from pipeline.kernels.contract import DevicePolicy
from pipeline.kernels.devices import device_name, processor_name


class Card:
    name = "cuda"
    device = "a card"


def test_a_processor_has_a_name_of_one_line():
    assert processor_name().strip() == processor_name() != ""
    assert "\n" not in processor_name()


def test_a_twin_that_names_its_device_is_asked_for_it():
    assert device_name(Card()) == "a card"
    assert device_name(make_kernels(DevicePolicy("cpu", threads=1))) == processor_name()


@pytest.mark.parametrize("name", ["AVX-512 VNNI", "AVX512-BF16", "AMX"])
def test_what_the_processor_has_is_told(name):
    found = why(DevicePolicy("cpu"))

    assert f"{name} usable" in found or f"{name} missing" in found


def test_a_device_is_looked_for_unless_it_is_not_wanted(monkeypatch):
    monkeypatch.setattr("pipeline.kernels.choose.find_spec", lambda name: None)

    assert why(DevicePolicy("cpu")).endswith("no CUDA device looked for")
    assert why(DevicePolicy()).endswith("without the extra: pip install 'eddy-stream[gpu]'")
