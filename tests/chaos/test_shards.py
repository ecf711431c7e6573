"""Several run shards at work on one output, killed one after another while the others go on."""

from __future__ import annotations

import random
import time

import board
import cases
import checks
from storm import Storm
from test_steps import start

SEED = 11
KILLS = 6
TOTAL = 3
PHASES = ("first leases", "working", "syncing", "committing", "publishing", "ending")


def test_kills_of_run_shards_side_by_side_change_nothing(tmp_path):
    """Each is continued by its own command; the last to end writes the index."""
    chance = random.Random(SEED)
    case = cases.toy(tmp_path / "case", "webdataset", 200, chance, 0.01, several={"fail": 3})
    Storm(case, tmp_path / "case", chance).run(kills=0, each=1)
    out = tmp_path / "out"

    def begin(shard):
        return start(case, out, shard=shard, total_shards=TOTAL)

    runs = {shard: begin(shard) for shard in range(TOTAL)}
    try:
        for _ in range(KILLS):
            shard, phase = chance.randrange(TOTAL), chance.choice(PHASES)
            deadline = time.monotonic() + 60
            while runs[shard].poll() is None:
                shown = board.of(case.marks, runs[shard].pid)
                if shown is not None and shown.phase == phase:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.0005)
            runs[shard].kill()
            runs[shard].wait()
            runs[shard] = begin(shard)
        assert {process.wait(120) for process in runs.values()} <= {0, 3}
    finally:
        for process in runs.values():
            process.kill()
    assert checks.faults(case, out, tmp_path / "case/calm") == []
