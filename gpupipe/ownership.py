"""Who owns what: run shards on one output, their locks, and the marker that one is complete.

Run shard I of N owns the output shards k with ``k % N == I`` and keeps its ledger, lock and staging in
``.gpupipe/shard-I/``. All runs on one output agree on N: it stands in ``layout.json`` and every run holds
a shared lock on ``.gpupipe/lock`` as long as it works. Continuing with another N takes that lock alone,
for a moment, and starts a new epoch; so rows of an older layout are told from newer ones without clocks.

Locks are ``flock``: they go with the process, however it dies, and Linux carries them over NFS.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gpupipe.closing import Closing
from gpupipe.errors import LockedError, UsageError
from gpupipe.sinks.files import output_errors, publish, remove_tree

LOCKS = ("lock", "layout.lock")
"""Files of the bookkeeping that outlive everything else in it: a lock may not be removed while it can be held."""

MAX_SHARDS = 1 << 20  # run shards: more are a mistake
MAX_EPOCH = 1 << 30


class Ownership(Closing):
    """The right to write one run shard of an output, held from construction to :meth:`close`.

    Parameters
    ----------
    bookkeeping : Path
        ``OUT/.gpupipe``.
    shard, total : int
        Run shard I of N.

    Raises
    ------
    LockedError
        Another live run holds this run shard, or the output with another N; the message says who.
    UsageError
        See :func:`refuse_links`.
    """

    def __init__(self, bookkeeping: Path, shard: int, total: int) -> None:
        self.bookkeeping, self.shard, self.total = bookkeeping, shard, total
        self.folder = bookkeeping / f"shard-{shard}"
        refuse_links(bookkeeping)
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._locks: list[IO[str]] = []
        try:
            self._hold_shard()
            self._hold_layout()
        except BaseException:
            self.close()
            raise

    def _hold_shard(self) -> None:
        lock = self._open(self.folder / "lock")
        if not _try_lock(lock, fcntl.LOCK_EX, patience=0.5):
            raise LockedError(f"{self.folder}: held by {_holder(lock)}. Wait for that run, or stop it.")
        name = json.dumps({"host": os.uname().nodename, "pid": os.getpid(), "since": time.time()})
        with output_errors(self.folder):  # unbuffered: what a full disk refuses would be tried again at the closing
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), name.encode())

    def _hold_layout(self) -> None:
        # The guard is held for this block only, so that runs starting together agree on the layout.
        with output_errors(self.bookkeeping), open_lock(self.bookkeeping / "layout.lock") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            lock = self._open(self.bookkeeping / "lock")
            layout = read_layout(self.bookkeeping)
            nobody_else = _try_lock(lock, fcntl.LOCK_EX)
            if nobody_else:
                self._sweep()
            if layout["total"] != self.total:
                if not nobody_else:
                    raise LockedError(
                        f"{self.bookkeeping}: a run with --total-shards {layout['total']} is at work, {self.total} "
                        "asked. Use the same number, or wait for it."
                    )
                layout = {"total": self.total, "epoch": layout["epoch"] + 1}
                publish(self.bookkeeping / "layout.json", [json.dumps(layout).encode()])
            fcntl.flock(lock, fcntl.LOCK_SH)
            self.epoch: int = layout["epoch"]

    def _sweep(self) -> None:
        """Drop what killed runs left half-made; it may be of another host, another plan, another number of shards."""
        shards = [folder for folder in self.bookkeeping.glob("shard-*") if not folder.is_symlink()]
        for folder in (self.bookkeeping, *shards):
            for path in [*folder.glob("*.partial"), folder / "staging"]:
                remove_tree(path)

    def _open(self, path: Path) -> IO[str]:
        with output_errors(path):
            lock = open_lock(path)
        self._locks.append(lock)
        return lock

    @property
    def staging(self) -> Path:
        """Folder of half-written blobs: this run shard's alone, emptied when a run starts."""
        return self.folder / "staging"

    def clear_staging(self) -> None:
        """Drop what a killed run left half-written."""
        for path in [self.staging, *self.folder.glob("*.partial")]:
            remove_tree(path)
        with output_errors(self.staging):
            self.staging.mkdir()

    def owns(self, output_shard: int) -> bool:
        """True where output shard k belongs to this run shard."""
        return output_shard % self.total == self.shard

    def mark(self, plan_hash: str) -> None:
        """Say that every item of this run shard has an outcome."""
        publish(self.folder / "complete", [json.dumps(self._marker(plan_hash)).encode()])

    def unmark(self) -> None:
        """Take the marker back, before work starts."""
        with output_errors(self.folder):
            (self.folder / "complete").unlink(missing_ok=True)

    def all_complete(self, plan_hash: str) -> bool:
        """True where all N run shards of this layout are complete."""
        return all(
            _read_json(self.bookkeeping / f"shard-{shard}" / "complete") == self._marker(plan_hash)
            for shard in range(self.total)
        )

    def _marker(self, plan_hash: str) -> dict[str, Any]:
        return {"plan": plan_hash, "epoch": self.epoch, "total": self.total}

    def close(self) -> None:
        """Give the locks back."""
        for lock in self._locks:
            lock.close()
        self._locks = []


@contextmanager
def alone(bookkeeping: Path) -> Iterator[None]:
    """Hold the output against every run, for the length of the block; one that nobody here may write needs no holding.

    Raises
    ------
    LockedError
        A run is at work.
    UsageError
        See :func:`refuse_links`.
    """
    refuse_links(bookkeeping)
    if not os.access(bookkeeping, os.W_OK):
        yield
        return
    with output_errors(bookkeeping), open_lock(bookkeeping / "layout.lock") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        with open_lock(bookkeeping / "lock") as lock:
            if not _try_lock(lock, fcntl.LOCK_EX):
                held = "; ".join(holders(bookkeeping)) or "another gpupipe verify"
                raise LockedError(f"{bookkeeping}: held by {held}. Wait for it, or stop it.")
            yield


def refuse_links(bookkeeping: Path) -> None:
    """Raise :class:`UsageError` where the bookkeeping is, or holds, a symbolic link, a pipe or a device.

    What is written there, removed or waited for would be somewhere else. Looks at the folders whose names are known in
    advance; what is made under names of items is opened so that no link is followed.
    """
    if bookkeeping.is_symlink():
        raise UsageError(_strange(bookkeeping))
    if not bookkeeping.is_dir():
        return
    folders = [bookkeeping, bookkeeping / "plan", *bookkeeping.glob("shard-*")]
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():  # the first is found in the bookkeeping itself
            continue
        try:
            with os.scandir(folder) as entries:
                odd = [e.path for e in entries if not e.is_file(follow_symlinks=False)]
        except FileNotFoundError:  # --overwrite, in another process, just took it away
            continue
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read ({error.strerror})") from error
        for path in map(Path, odd):
            if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
                raise UsageError(_strange(path))


def _strange(path: Path) -> str:
    what = "a symbolic link" if path.is_symlink() else "no plain file"
    return f"{path}: is {what}; gpupipe makes none there. Remove it, or choose another output folder."


def read_layout(bookkeeping: Path) -> dict[str, int]:
    """``{"total": N, "epoch": e}`` of the output; N is 0 where no run ever started.

    Raises
    ------
    UsageError
        The file is there and says something else.
    """
    path = bookkeeping / "layout.json"
    if not path.exists():
        return {"total": 0, "epoch": -1}
    found = _read_json(path)
    if (
        not isinstance(found, dict)
        or found.keys() != {"total", "epoch"}
        or not all(type(value) is int for value in found.values())
        or not (1 <= found["total"] <= MAX_SHARDS and 0 <= found["epoch"] <= MAX_EPOCH)
    ):
        raise UsageError(f"{path}: is altered. Put it back from a copy, or make the dataset anew in another folder.")
    return found


def holders(bookkeeping: Path) -> list[str]:
    """The live runs on this output, as ``host, pid, since``; raises :class:`UsageError` like :func:`refuse_links`."""
    refuse_links(bookkeeping)
    found = []
    for path in sorted(bookkeeping.glob("shard-*/lock")):
        with path.open("r", encoding="utf-8") as lock:
            if not _try_lock(lock, fcntl.LOCK_SH):
                found.append(f"{path.parent.name}: {_holder(lock)}")
    return found


def open_lock(path: Path) -> IO[str]:
    """Open a lock file, made if absent; an ``OSError`` where it is a symbolic link."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(fd, "a+", encoding="utf-8")


def _try_lock(lock: IO[str], kind: int, patience: float = 0.0) -> bool:
    # A `status` looks at a lock by taking it for an instant: `patience` seconds outlast that.
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    try:
        held = json.loads(lock.read(4096))
        return f"process {held['pid']} on {held['host']} since {time.strftime('%F %T', time.localtime(held['since']))}"
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, OSError):
        return "a process that has not written its name yet"


def _read_json(path: Path) -> Any:
    """None where there is no file, or no JSON in it."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
