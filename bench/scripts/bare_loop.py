"""The clips job without the engine: the same operator and sink in one loop of one process, no plan, no ledger, no sync.

Command: ``python -m bench.scripts.bare_loop PAIRS CLIPS_DIR OUT``
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from gpupipe.job import Work
from gpupipe.jobs.clips import ClipsJob
from gpupipe.jobs.pairs import read_pairs
from gpupipe.memory import HostSlots
from gpupipe.sinks.base import Place
from gpupipe.sinks.files import Checksum
from gpupipe.stages import Stages


def main() -> None:
    pairs, clips_dir, out = sys.argv[1:4]
    job = ClipsJob(pairs_json=pairs, clips_dir=clips_dir)
    items = list(read_pairs(Path(pairs)))
    staging = Path(out, ".staging")
    staging.mkdir(parents=True)
    place = Place(Path(out), Path(out), staging, len(items))
    sink, slots = job.sink(place), HostSlots(job.rows())
    operator = job.operator(place, Stages())

    def stream() -> Iterator[Work]:
        for ordinal, item in enumerate(items):
            yield Work(ordinal, item, slots.acquire(ordinal))

    for completion in operator.run(stream()):
        if completion.error is not None:
            raise completion.error
        assert completion.sample is not None
        sink.commit(completion.work.ordinal, completion.sample, Checksum())
        slots.release(completion.work.slot)
    operator.close()


if __name__ == "__main__":
    main()
