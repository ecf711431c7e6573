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
    for name in ("toy",):
        sys.modules.pop(name, None)
