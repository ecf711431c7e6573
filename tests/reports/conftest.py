import os
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "engine"


@pytest.fixture
def toy_in_reach(monkeypatch):
    """The engine's toy job, here, in workers, and by its name."""
    monkeypatch.syspath_prepend(str(ENGINE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ENGINE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setitem(__import__("gpupipe.jobs", fromlist=["JOBS"]).JOBS, "toy", "toy:ToyJob")
    yield
    for name in ("toy", "helpers"):
        sys.modules.pop(name, None)
