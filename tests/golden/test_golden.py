"""The wire is what it was: today's bytes are the golden ones, and every version stays readable."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import RecordError
from tests.golden.__main__ import main
from tests.golden.files import FOLDER, files, load, versions
from tests.golden.forms import FORMS, VERSION, agrees, golden, told

CASES = [
    pytest.param(case, id=f"{version} {case.form} {case.name}")
    for version in versions()
    for case in load(version)
]
OURS = [param for param in CASES if FORMS[param.values[0].form].is_open]


def test_today_s_code_writes_the_bytes_of_its_version():
    written = {path.name: path.read_text("utf-8") for path in (FOLDER / VERSION).glob("*")}

    assert files(golden()) == written


def test_this_version_is_the_newest():
    assert versions()[-1] == VERSION


@pytest.mark.parametrize("case", CASES)
def test_every_version_is_read_to_the_same_facts(case):
    read = told(FORMS[case.form].read(case.records))

    assert agrees(read, case.facts), read


@pytest.mark.parametrize("case", CASES)
def test_control_another_bit_is_another_fact_or_an_error(case):
    record = case.records[-1]
    if record.value is None:
        return
    spoilt = record.value[:-1] + bytes([record.value[-1] ^ 1])
    records = (*case.records[:-1], record._replace(value=spoilt))
    try:
        read = told(FORMS[case.form].read(records))
    except (RecordError, AssertionError):
        return
    assert not agrees(read, case.facts)


def changed(case, change):
    """The records of a case, every JSON value of them changed."""
    records = []
    for record in case.records:
        if record.value is None or not record.value.startswith(b"{"):
            records.append(record)
            continue
        value = json.loads(record.value)
        change(value)
        for name, inner in value.items():
            if isinstance(inner, dict) and name != "metadata":  # whose names are the users'
                change(inner)
        told_anew = json.dumps(value, ensure_ascii=False).encode()
        records.append(record._replace(value=told_anew))
    return tuple(records)


@pytest.mark.parametrize("case", OURS)
def test_a_field_that_a_later_version_adds_is_passed_over(case):
    def add(place):
        place["something_new"] = [{"a": 1}]

    read = told(FORMS[case.form].read(changed(case, add)))

    assert agrees(read, case.facts)


@pytest.mark.parametrize("case", CASES)
def test_a_header_that_a_later_version_adds_is_passed_over(case):
    records = tuple(
        one._replace(headers=(*one.headers, ("eddy-something-new", b"\xff")))
        for one in case.records
    )
    if case.form in ("dead-letter", "letter"):
        return  # its headers are what is read

    assert agrees(told(FORMS[case.form].read(records)), case.facts)


@pytest.mark.parametrize("case", OURS)
def test_an_optional_field_may_be_missing(case):
    form = FORMS[case.form]

    def take(place):
        for name in form.optional:
            place.pop(name, None)

    read = told(form.read(changed(case, take)))

    place = read["newest"]["manifest"] if case.form == "model" else read
    wanted = case.facts["newest"]["manifest"] if case.form == "model" else case.facts
    others = {"half_life_s", "landmark_ms", *form.optional}
    assert {n: v for n, v in place.items() if n not in others} == {
        n: v for n, v in wanted.items() if n not in others
    }
    assert not any(place[name] for name in others & place.keys())


@pytest.mark.parametrize("case", [p for p in CASES if p.values[0].form == "command"])
def test_a_field_that_people_misspell_is_refused(case):
    with pytest.raises(RecordError):
        FORMS[case.form].read(changed(case, lambda place: place.update(something_new=1)))


def test_the_generator_overwrites_nothing_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.golden.__main__.FOLDER", tmp_path)
    assert main([]) == 0
    file = tmp_path / VERSION / "head.jsonl"
    whole = file.read_text("utf-8")
    file.write_text("changed\n")
    capsys.readouterr()

    assert main([]) == 1
    assert file.read_text() == "changed\n"
    assert "head.jsonl" in capsys.readouterr().out
    assert main(["--version", VERSION]) == 0
    assert file.read_text("utf-8") == whole


def test_facts_that_differ_do_not_agree():
    assert agrees({"a": 1, "later": None}, {"a": 1})
    for read, written in (({"a": 2}, {"a": 1}), ({"a": 1, "b": 2}, {"a": 1}), ({}, {"a": 1})):
        assert not agrees(read, written)
