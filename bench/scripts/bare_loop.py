"""The clips job without the engine: the same operator and sink in one loop of one process, no plan, no ledger.

It syncs once a second, as the engine does: else the kernel writes back in its time, and that is CPU time too.

Command: ``python -m bench.scripts.bare_loop PAIRS CLIPS_DIR OUT``
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gpupipe.job import Work
from gpupipe.jobs.clips import ClipsJob
from gpupipe.jobs.pairs import read_pairs
from gpupipe.memory import HostSlots
from gpupipe.sinks.base import Place
from gpupipe.sinks.files import BatchSync, Checksum


def main() -> None:
    pairs, clips_dir, out = sys.argv[1:4]
    job = ClipsJob(pairs_json=pairs, clips_dir=clips_dir)
    items = list(read_pairs(Path(pairs)))
    staging = Path(out, ".staging")
    staging.mkdir(parents=True)
    place = Place(Path(out), Path(out), staging, len(items))
    sink, slots = job.sink(place), HostSlots(job.rows())
    operator = job.operator(place, None)

    def stream() -> Iterator[Work]:
        for ordinal, item in enumerate(items):
            yield Work(ordinal, item, slots.acquire(ordinal))

    sync, synced = BatchSync(place.out), time.monotonic()
    for completion in operator.run(stream()):
        if completion.error is not None:
            raise completion.error
        assert completion.sample is not None
        sink.commit(completion.work.ordinal, completion.sample, Checksum())
        slots.release(completion.work.slot)
        if time.monotonic() - synced > 1:
            sync()
            synced = time.monotonic()
    sync()
    sync.close()
    operator.close()


if __name__ == "__main__":
    main()
