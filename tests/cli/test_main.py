"""The outermost frame: exit codes, one line on stderr, and help that costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main

from pipeline.cli import main as frame
from pipeline.cli.main import VERBS, find_app, main
from pipeline.errors import (
    ConfigError,
    FatalError,
    FencedError,
    PipelineError,
    TopicError,
    TransientError,
    UnreachableError,
    UsageError,
)


@pytest.fixture
def verb_raises(monkeypatch):
    """Makes `eddy doctor` raise what it is given."""

    def arrange(error: BaseException) -> None:
        app = typer.Typer()

        @app.command()
        def doctor() -> None:
            raise error

        monkeypatch.setattr(frame, "_load", lambda name: typer.main.get_command(app))

    return arrange


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FatalError("x"), 1),
        (FencedError("x"), 1),
        (UsageError("x"), 2),
        (ConfigError("x"), 3),
        (TopicError("x"), 3),
        (UnreachableError("x"), 4),
        (TransientError("x"), 4),
        (AssertionError("x"), 70),
        (ZeroDivisionError("x"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_who_can_act_decides_the_exit_code(verb_raises, error, code):
    verb_raises(error)

    assert main(["doctor"]) == code


def test_an_error_is_one_line_whatever_its_message_brings(verb_raises, capsys):
    verb_raises(PipelineError("first\n  second \n\n[bold]third[/] \x1b[31m"))

    main(["doctor"])

    assert capsys.readouterr().err == "eddy: first second [bold]third[/] \\x1b[31m\n"


def test_verbose_adds_the_traceback_wherever_it_stands(verb_raises, capsys):
    verb_raises(FatalError("x"))

    main(["doctor", "--verbose"])

    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.endswith("eddy: x\n")


def test_a_defect_says_that_it_is_one(verb_raises, capsys):
    verb_raises(ZeroDivisionError("division by zero"))

    main(["doctor"])

    said = capsys.readouterr().err
    assert said.startswith("eddy: a defect: ZeroDivisionError: division by zero; --verbose")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tpoics"], "eddy: no such command 'tpoics'. Did you mean 'topics'?; see eddy --help\n"),
        (["topics", "create", "--jsn"], "see eddy topics create --help\n"),
        (["topics"], "see eddy topics --help\n"),
        (["produce"], "eddy: missing argument 'FILE'; see eddy produce --help\n"),
        (["--set"], "requires an argument"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_help(capsys, arguments, sentence):
    assert main(arguments) == 2

    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_nothing_at_all_is_answered_by_the_help(capsys):
    assert main([]) == 2

    assert "Usage: eddy" in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_and_its_first_line_is_the_one_in_the_table(capsys, name):
    assert main([name, "--help"]) == 0

    assert f"Usage: eddy {name}" in capsys.readouterr().out
    command = typer.main.get_command(find_app(name))
    assert (command.help or "").partition("\n")[0] == VERBS[name].help


def test_no_verb_has_an_option_that_stands_before_verbs():
    moved = {"--config", "--set", "--verbose"}

    def options(command: object) -> set[str]:
        subcommands = getattr(command, "commands", {}).values()
        own = {word for param in command.params for word in param.opts}  # type: ignore[attr-defined]
        return own.union(*map(options, subcommands))

    for name in VERBS:
        assert not options(typer.main.get_command(find_app(name))) & moved


def test_help_and_version_need_nothing_heavy():
    code = (
        "import sys; from pipeline.cli.main import main; main(['--help']); main(['--version']);"
        "heavy = {'numpy', 'numba', 'confluent_kafka', 'pydantic', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.endswith("[]\n")


def test_the_package_runs_as_a_module():
    for module in ("pipeline.cli", "pipeline.cli.main"):
        command = [sys.executable, "-m", module, "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert said.stdout.startswith("eddy ")
