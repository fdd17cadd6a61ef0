"""An assigner on a card: the image, the device, the node, and nothing else differs."""

from __future__ import annotations

import pytest

from tests.chart.chart import given, render, rendered

GPU = {"assigner": {"gpu": {"enabled": True}}}


def test_card_selects_image_device_and_node():
    chart = rendered(GPU, {"assigner": {"gpu": {"product": "NVIDIA-H200"}}})
    spec = chart.template("assigner")["spec"]

    assert chart.container("assigner")["image"].endswith("-gpu")
    assert chart.env("assigner")["EDDY_DEVICE__KIND"] == "cuda"
    assert chart.container("assigner")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec[
        "tolerations"
    ]
    assert "runtimeClassName" not in spec


def test_the_others_stay_without():
    chart = rendered(GPU)

    for component in ("reclusterer", "server", "topics"):
        assert not chart.container(component)["image"].endswith("-gpu")
        assert "EDDY_DEVICE__KIND" not in chart.env(component)


@pytest.mark.parametrize("name", ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"])
def test_a_slice_is_a_resource_like_any_other(name):
    chart = rendered(GPU, {"assigner": {"gpu": {"resourceName": name, "count": 2}}})
    resources = chart.container("assigner")["resources"]

    assert resources["limits"][name] == 2
    assert not any("nvidia" in key for key in resources["requests"])
    assert chart.template("assigner")["spec"]["tolerations"][0]["key"] == name
    assert sum("nvidia" in key for key in resources["limits"]) == 1


def test_toleration_and_runtime_class_are_values():
    gpu = {"gpu": {"toleration": False, "runtimeClassName": "nvidia"}}
    spec = rendered(GPU, {"assigner": gpu}).template("assigner")["spec"]

    assert "tolerations" not in spec
    assert spec["runtimeClassName"] == "nvidia"


def test_claims_stand_instead_of_a_resource():
    chart = render(given("gpu"))
    spec = chart.template("reclusterer")["spec"]
    resources = chart.container("reclusterer")["resources"]

    assert spec["resourceClaims"] == [{"name": "card", "resourceClaimTemplateName": "one-gpu"}]
    assert resources["claims"] == [{"name": "card"}]
    assert not any("nvidia" in key for key in resources["limits"])
