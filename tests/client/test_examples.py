"""Every example of docs/client.md runs, in its order, against a real server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
URL, KAFKA = "http://127.0.0.1:8080", 'kafka={"bootstrap.servers": "localhost:9092"}'
IDLE = "idle_s=1.0"


def test_the_page_has_examples():
    page = "\n".join(EXAMPLES)
    assert len(EXAMPLES) >= 9
    assert page.count(URL) == page.count(KAFKA) == 2


def test_every_example_of_the_page_runs_against_a_real_server(living):
    pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
    names = {"broker": living.broker}
    here = f'broker=broker, input_topic="{living.topics.input}", topics_prefix="t."'

    for example in EXAMPLES:
        # the addresses are the test's own, and what is quiet is so at once
        code = example.replace(URL, living.url).replace(KAFKA, here).replace(IDLE, "idle_s=0.0")
        line = PAGE.read_text("utf-8").partition(example)[0].count("\n")
        exec(compile("\n" * line + code, PAGE, "exec"), names)

    names["client"].close()
