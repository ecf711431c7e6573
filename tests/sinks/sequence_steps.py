"""A sink's life, ended before each of its steps (a call that changes the disk): ``sequence_steps.py FOLDER``.

Each step has a process of its own that kills itself there. What it leaves is verified against the ledger, read by
:func:`item_rows`, and completed by the next run, which must come to the bytes of a run that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from sequence_toy import SPECS, arrays, sample

from gpupipe.sinks.base import Expected, Place
from gpupipe.sinks.files import BatchSync, Checksum
from gpupipe.sinks.sequences import SequenceSink, item_rows

COUNT, SHARD_SIZE = 7, 4
STEPS = ("rename", "unlink", "mkdir", "rmdir", "fsync", "pwritev", "open")


class Life:
    """What the engine does with a sink, in short: `failing` items fail, the ledger is a JSON file."""

    def __init__(self, folder: Path, failing: set[int]) -> None:
        self.out, self.failing = folder / "out", failing
        self.place = Place(self.out, self.out / ".gpupipe", self.out / ".gpupipe/staging", COUNT, SHARD_SIZE)
        self._file = self.out / ".gpupipe/ledger.json"

    @property
    def ledger(self) -> dict[int, str]:
        """Checksum of each item with an outcome; empty where it failed."""
        return {int(key): value for key, value in json.loads(self._file.read_text()).items()}

    def write(self, ledger: dict[int, str]) -> None:
        with self._file.with_name("new").open("w") as file:
            json.dump(ledger, file)
        os.replace(self._file.with_name("new"), self._file)  # noqa: PTH105 - a ledger's commit is no step

    def make(self) -> Life:
        self.place.bookkeeping.mkdir(parents=True)
        self.write({})
        return self

    def run(self) -> None:
        shutil.rmtree(self.place.staging, ignore_errors=True)
        self.place.staging.mkdir()
        sink, ledger = SequenceSink(self.place, SPECS), self.ledger
        shards = range(self.place.shards)
        for shard in shards:
            if all(ordinal in ledger for ordinal in self.place.shard_items(shard)):
                self.publish(sink, shard, ledger)
            else:
                sink.reopen(shard)
        for ordinal in (5, 1, 0, 6, 3, 2, 4):
            if ordinal in ledger:
                continue
            checksum = Checksum()
            if ordinal in self.failing:
                sink.void(ordinal, None)
            else:
                sink.commit(ordinal, sample(ordinal), checksum)
            ledger[ordinal] = "" if ordinal in self.failing else checksum.hexdigest()
            self.write(ledger)
            shard = ordinal // SHARD_SIZE
            if all(ordinal in ledger for ordinal in self.place.shard_items(shard)):
                self.publish(sink, shard, ledger)

    def publish(self, sink: SequenceSink, shard: int, ledger: dict[int, str]) -> None:
        if not sink.published(shard):
            sink.publish(shard, np.array([ledger[ordinal] != "" for ordinal in self.place.shard_items(shard)]))

    def check(self) -> None:
        sink, ledger = SequenceSink(self.place, SPECS), self.ledger
        for shard in range(self.place.shards):
            items = [ordinal for ordinal in self.place.shard_items(shard) if ordinal in ledger]
            expected = [Expected(ordinal, f"{ordinal:06d}", ledger[ordinal]) for ordinal in items]
            assert list(sink.verify(shard, expected)) == []
        assert list(sink.extra(set())) == []
        for ordinal, checksum in ledger.items():
            found, due = item_rows(self.place, ordinal, SPECS), arrays(ordinal)
            if not checksum or not len(due["pts"]):
                assert found is None
            else:
                assert found is not None
                assert all((found[name] == array).all() for name, array in due.items())

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.out.iterdir()) if path.is_file()}


def killed_at(number: int, life: Life) -> bool:
    """Run in a process that ends itself before its n-th step; False where it has not so many."""
    child = os.fork()
    if child == 0:
        count = 0

        def before(name: str) -> None:
            function = getattr(os, name)

            def step(*arguments, **words):
                nonlocal count
                count += name != "open" or bool(arguments[1] & os.O_CREAT)
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **words)

            setattr(os, name, step)

        for name in STEPS:
            before(name)
        life.run()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


def all_steps(folder: Path, before: Life | None, wanted: dict[str, bytes], failing: set[int], pending: set[int]) -> int:
    """Steps of a run that begins with `before` (None: with nothing), `pending` of its items pending."""
    number = 0
    while True:
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        if before is None:
            life = Life(folder, failing).make()
        else:
            shutil.copytree(before.out, folder / "out")
            life = Life(folder, failing)
            life.write({key: value for key, value in life.ledger.items() if key not in pending})
        killed = killed_at(number, life)
        try:
            life.check()
            life.run()
            life.check()
            assert life.files() == wanted
            assert not list((life.place.bookkeeping / "blobs").iterdir())
        except BaseException:
            print(f"after a kill at step {number}", file=sys.stderr)
            raise
        if not killed:
            return number - 1


def main() -> None:
    folder = Path(sys.argv[1])
    os.fsync = lambda fd: None  # they take most of the time, and a kill loses nothing that was written
    BatchSync.__call__ = lambda self: None
    first, second = {2, 5}, {3}  # that fail; item 0 has no rows
    wanted = []
    for failing in (first, second):
        life = Life(folder / f"calm{len(wanted)}", failing).make()
        life.run()
        wanted.append(life)
    steps = [
        all_steps(folder / "killed", None, wanted[0].files(), first, set()),
        all_steps(folder / "killed", wanted[0], wanted[1].files(), second, {2, 3, 5, 6}),
    ]
    print(json.dumps(steps))


if __name__ == "__main__":
    main()
