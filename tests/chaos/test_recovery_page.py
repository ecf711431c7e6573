"""docs/recovery.md promises nothing that no test stands for."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "recovery.md"
WITH_TESTS = 4  # tables whose last column names tests
NUMBER = re.compile(r"\| (\d+) (?=\|)")


def known() -> set[str]:
    """Names of all test functions."""
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_is_named_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert len(named) > 40
    assert named - known() == set()


def test_every_row_names_its_tests():
    tables = [part for part in re.split(r"\n\n", PAGE.read_text()) if part.startswith("|")]
    promises = [table.splitlines() for table in tables if table.splitlines()[0].endswith("| Tests |")]
    assert len(promises) == WITH_TESTS
    for _, _, *rows in promises:
        for row in rows:
            assert re.search(r"\| `test_\w+`[^|]* \|$", row), row


def test_the_figures_are_those_of_the_results():
    result = json.loads((TESTS.parent / "bench/results/chaos-epyc-2core.json").read_text())
    kills, phases = Counter(), Counter()
    for storm in result["storms"]:
        kills.update(storm["kills"])
        phases.update(storm["phases"])
    steps, items = sum(result["steps"].values()), sum(storm["items"] for storm in result["storms"])
    text = PAGE.read_text()
    assert f"supervisor {kills['supervisor']}, worker {kills['worker']}, whole group {kills['group']}" in text
    assert f"before a step {steps} |" in text
    assert f"of {items:,} items" in text
    told = [int(number) for line in text.partition("died while")[2].splitlines() for number in NUMBER.findall(line)]
    assert sorted(told) == sorted(phases.values())
