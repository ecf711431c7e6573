import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def toy_in_reach(monkeypatch):
    """Workers are new processes: they find the toy job through the environment."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    yield
    for name in ("toy", "others"):
        sys.modules.pop(name, None)


@pytest.fixture
def toys(tmp_path):
    """Makes a job without media over the given words."""

    def make(words, kind=None, **options):
        from helpers import write_plan
        from toy import ToyJob

        marks = tmp_path / "marks"
        marks.mkdir(exist_ok=True)
        return (kind or ToyJob)(plan_file=str(write_plan(tmp_path, words)), marks=str(marks), **options)

    return make
