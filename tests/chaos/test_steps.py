"""The supervisor killed before each of its steps, a step being a call that changes the disk; the next run continues."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys

import board
import cases
import checks
import pytest
from storm import HERE, Storm, environment

SEED = 5
SHARE = float(os.environ.get("GPUPIPE_CHAOS_STEPS", "0.015"))  # of all steps; `make chaos` takes more


def start(case, out, **how):
    words = {"output": str(out), "workers": 1, "commit_seconds": 0.02, **how}
    return subprocess.Popen(
        [sys.executable, HERE / "start.py", case.kind, json.dumps(case.options), json.dumps(words)],
        env=environment(),
    )


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("form", cases.FORMATS)
def test_a_kill_before_any_step_changes_nothing(tmp_path, form):
    """Planning, locks, ledger, commits, publishing, index files: whatever the supervisor writes, and in its order."""
    case = cases.toy(tmp_path / "case", form, 70, random.Random(SEED), delay=0.001, several={"fail": 2})
    Storm(case, tmp_path / "case", random.Random(SEED)).run(kills=0, each=1)
    calm, out = tmp_path / "case/calm", tmp_path / "out"
    process = start(case, out, die_at=0)
    assert process.wait(60) == 3
    steps = board.of(case.marks, process.pid).count
    assert steps > 25  # few commits of a quick run
    chosen = sorted(random.Random(SEED).sample(range(1, steps + 1), max(1, int(steps * SHARE))))
    killed = 0
    for number in chosen:
        shutil.rmtree(out)
        process = start(case, out, die_at=number)
        killed += process.wait(60) < 0  # the number of commits varies, and so that of steps
        assert start(case, out).wait(60) == 3, f"after a kill at step {number} of {steps}"
        assert checks.faults(case, out, calm) == [], f"after a kill at step {number} of {steps}"
    assert killed >= len(chosen) // 2
    print(f"steps {form} {killed}")
