"""The chart as its tests see it: rendered by Helm's own library, parsed, found by kind and name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import helm_python
import yaml

ROOT: Final = Path(__file__).parent.parent.parent
CHART: Final = ROOT / "helm"
SETS: Final = tuple(
    sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
)
RELEASE: Final = "rel"
NAMESPACE: Final = "ns"

REQUIRED: Final = {
    "kafka": {"bootstrapServers": "kafka:9092"},
    "server": {"auth": {"existingSecret": "eddy-tokens"}},
}
"""What every installation has to say."""

Object = dict[str, Any]


def given(name: str) -> Object:
    """The values of a set in ``ci/``."""
    values = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def merged(*trees: Mapping[str, Any]) -> Object:
    """Trees of values, later ones over earlier ones."""
    result: Object = {}
    for tree in trees:
        for key, value in tree.items():
            old = result.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                result[key] = merged(old, value)
            else:
                result[key] = value
    return result


def nested(path: str, value: object) -> Object:
    """``a.b`` and a value as a tree; a dot inside a name is written ``\\.``."""
    tree: Any = value
    for word in reversed(path.replace("\\.", "\0").split(".")):
        tree = {word.replace("\0", "."): tree}
    assert isinstance(tree, dict)
    return tree


class Rendered:
    """The objects of one rendering."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = files
        self.notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
        self.texts = {p: text for p, text in sorted(files.items()) if p.endswith(".yaml")}

    @cached_property
    def objects(self) -> list[Object]:
        """All of them, parsed; shared by those who ask for the same values."""
        return [
            one
            for text in self.texts.values()
            for one in yaml.load_all(text, Strict)
            if one is not None
        ]

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        """The object of that kind, and of that name where there are several."""
        found = [o for o in self.all(kind) if name in (None, o["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def has(self, kind: str, name: str | None = None) -> bool:
        """Whether there is such an object."""
        return any(name in (None, o["metadata"]["name"]) for o in self.all(kind))

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Every pod that this would make: its owner, and its spec."""
        for one in self.objects:
            name = f"{one['kind']}/{one['metadata']['name']}"
            if one["kind"] == "Pod":
                yield name, one["spec"]
            elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield name, one["spec"]["template"]["spec"]

    def template(self, component: str) -> Object:
        """The pod template of a component."""
        for one in self.objects:
            if one["kind"] in ("Deployment", "StatefulSet", "Job"):
                labels = one["spec"]["template"]["metadata"]["labels"]
                if labels["app.kubernetes.io/component"] == component:
                    template = one["spec"]["template"]
                    assert isinstance(template, dict)
                    return template
        raise AssertionError(f"no {component}")

    def container(self, component: str) -> Object:
        """The component's own container: the first."""
        container = self.template(component)["spec"]["containers"][0]
        assert isinstance(container, dict)
        return container

    def env(self, component: str) -> dict[str, Any]:
        """Its environment: name -> value, or where it is from."""
        return {
            one["name"]: one.get("value", one.get("valueFrom"))
            for one in self.container(component)["env"]
        }

    def config(self, name: str | None = None) -> Object:
        """The configuration that the pods read."""
        text = self.one("ConfigMap", name or f"{RELEASE}-eddy")["data"]["eddy.yaml"]
        tree = yaml.safe_load(text)
        assert isinstance(tree, dict)
        return tree


class Strict(yaml.CSafeLoader):
    """A key that stands twice is an error: templates make such mistakes."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{sorted(twice)} twice, {node.start_mark}"
        return super().construct_mapping(node, deep)


@cache
def loaded() -> helm_python.Chart:
    """The chart, read once."""
    return helm_python.Chart.load(CHART)


def render(values: Mapping[str, Any], **options: Any) -> Rendered:
    """Render as an installation would: the schema first, then the templates; objects are shared."""
    return _rendered(json.dumps(values, sort_keys=True), tuple(options.items()))


@cache
def _rendered(values: str, options: tuple[tuple[str, Any], ...]) -> Rendered:
    named: dict[str, Any] = {"name": RELEASE, "namespace": NAMESPACE, **dict(options)}
    return Rendered(loaded().render(json.loads(values), **named))


def rendered(*trees: Mapping[str, Any]) -> Rendered:
    """Of what every installation has to say, and more."""
    return render(merged(REQUIRED, *trees))


def refusal(*trees: Mapping[str, Any]) -> str:
    """What Helm says to such values; empty where it takes them."""
    try:
        render(merged(REQUIRED, *trees))
    except (helm_python.HelmValuesError, helm_python.HelmRenderError) as error:
        return str(error)
    return ""
