"""Writing to disk: whole writes at an offset, publication by rename, one sync for a batch.

Every failure of the file system becomes an :class:`~gpupipe.errors.OutputError`: it stops the run and
is never an item's fault.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from gpupipe.errors import GpupipeError, OutputError

Buffer = Any
"""Anything with the buffer protocol."""

_CHUNK = 1 << 22
_IOV_MAX = 512  # pieces a call; Linux takes 1024


@contextmanager
def output_errors(path: os.PathLike[str] | str) -> Iterator[None]:
    """Turn an ``OSError`` met while writing `path` into an :class:`OutputError` that names it."""
    try:
        yield
    except GpupipeError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        hint = {
            "ENOSPC": "The disk is full: make space and run the same command again.",
            "EDQUOT": "The quota is used up: make space and run the same command again.",
            "EFBIG": "A file-size limit was hit: raise it (ulimit -f) and run the same command again.",
            "EACCES": "The folder is not writable for this user.",
            "EROFS": "The file system is read-only.",
            "ELOOP": "It is a symbolic link, and nothing is written through one: put the file itself there.",
        }.get(errno_name(error), "Run the same command again once the storage is well.")
        raise OutputError(error.errno or 0, f"cannot write {path}: {error.strerror or error}. {hint}") from error


def errno_name(error: OSError) -> str:
    """``"ENOSPC"`` and the like; empty where the error carries no number."""
    return errno.errorcode.get(error.errno or 0, "")


class Checksum:
    """XXH3-128 of an item: of its members' names, lengths and XXH3-128, in the order of their names.

    Taken from the buffers before they are written; read back, the members may come in any order.
    """

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}
        self._nbytes: dict[str, int] = {}

    def begin(self, member: str) -> None:
        """A member begins, empty so far."""
        self._members[member] = xxhash.xxh3_128()
        self._nbytes[member] = 0

    def update(self, member: str, piece: Buffer) -> None:
        """Add one piece of a member that was begun, any contiguous buffer."""
        view = memoryview(piece).cast("B")
        self._members[member].update(view)
        self._nbytes[member] += len(view)

    @property
    def nbytes(self) -> int:
        """Bytes so far, of all members."""
        return sum(self._nbytes.values())

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        lines = [f"{name}\0{self._nbytes[name]}\0{self._members[name].hexdigest()}" for name in sorted(self._members)]
        return xxhash.xxh3_128_hexdigest("\n".join(lines).encode(errors="surrogateescape"))


def checksum_of(members: Mapping[str, Iterable[Buffer]]) -> str:
    """The checksum of members as they are, written nowhere."""
    checksum = Checksum()
    for name, pieces in members.items():
        checksum.begin(name)
        for piece in pieces:
            checksum.update(name, piece)
    return checksum.hexdigest()


def file_hash(path: Path) -> str:
    """XXH3-128 of a file's bytes, 32 hexadecimal digits."""
    state = xxhash.xxh3_128()
    for piece in file_pieces(path):
        state.update(piece)
    return state.hexdigest()


def file_pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a few megabytes at a time."""
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece


def write_at(fd: int, pieces: Iterable[Buffer], offset: int) -> int:
    """Write `pieces` one after another from `offset` on; returns the bytes written.

    A short write is continued: a full disk is an error here, never a hole.
    """
    start = offset
    views = [view for piece in pieces if len(view := memoryview(piece).cast("B"))]
    while views:
        written = os.pwritev(fd, views[:_IOV_MAX], offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
    return offset - start


def allocate(fd: int, nbytes: int) -> None:
    """Have the file be `nbytes` long, its space reserved where the file system can; what is in it stays.

    Not ``posix_fallocate``: where the file system has no such call, glibc writes zeros instead, also over what another
    process is writing at that moment.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "fallocate") and libc.fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(nbytes)) == 0:
        return
    number = ctypes.get_errno()
    if hasattr(libc, "fallocate") and number not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(number, os.strerror(number))
    os.ftruncate(fd, nbytes)


def write_file(path: Path, pieces: Iterable[Buffer], checksum: Checksum | None = None, mode: int = 0o644) -> int:
    """Make `path` from a stream of pieces, written as they come; returns its length in bytes.

    With a checksum, the file is the member of its name.
    """
    with output_errors(path):
        fd = create(path, mode)
    try:
        offset = 0
        if checksum is not None:
            checksum.begin(path.name)
        for piece in pieces:
            if checksum is not None:
                checksum.update(path.name, piece)
            with output_errors(path):
                offset += write_at(fd, [piece], offset)
        return offset
    finally:
        os.close(fd)


def create(path: Path, mode: int = 0o644) -> int:
    """Open `path` for writing, made or emptied; an ``OSError`` where it is a symbolic link."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the bytes of `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(path: Path, pieces: Iterable[Buffer], staging: Path | None = None) -> None:
    """Write `path` whole or not at all: write it in `staging`, fsync, rename, fsync the folder.

    Without a staging folder it is written beside its place; a kill then leaves a ``*.partial`` there.
    """
    with output_errors(path), staged(path, staging) as partial:
        write_file(partial, pieces)


@contextmanager
def staged(path: Path, staging: Path | None) -> Iterator[Path]:
    """Give a path to write to; what was written there is `path` at the end of the block, or gone on an error."""
    partial = (path.parent if staging is None else staging) / f"{path.name}.{os.getpid()}.partial"
    with _moved(partial, path):
        yield partial


@contextmanager
def staged_beside(path: Path) -> Iterator[Path]:
    """As :func:`staged`, in the path's own folder, which may be on another file system than all else of an output.

    The name there is always the same: what a kill leaves is taken over by the next that writes `path`. Who writes it at
    the same moment is waited for.
    """
    partial = path.with_name(f"{path.name}.gpupipe-partial")
    fd = _held(partial)
    try:
        with _moved(partial, path):
            yield partial
    finally:
        os.close(fd)


@contextmanager
def _moved(partial: Path, path: Path) -> Iterator[None]:
    """Move what the block wrote to its place, durably; remove it on an error."""
    try:
        yield
        sync_file(partial)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _held(path: Path) -> int:
    """Open a file, made where it is not there, that nobody else holds so; the lock goes with the descriptor."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):  # its holder has moved it to its place meanwhile
                if os.path.samestat(os.fstat(fd), path.lstat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a folder of our own and all in it; absent is well, a link is only unlinked."""
    with output_errors(path):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def remove_file(path: Path) -> None:
    """Remove a file of our own, or a link; absent is well. A folder is an error, and nothing in it is touched."""
    with output_errors(path):
        path.unlink(missing_ok=True)


class BatchSync:
    """One ``syncfs`` for everything written since the last: cheaper than an fsync a file.

    The system call is Linux's; elsewhere ``sync`` does the same for all file systems.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __call__(self) -> None:
        """Return once all that was written is durable; raises :class:`OutputError` where it is not."""
        with output_errors(self._folder):
            if not hasattr(self._libc, "syncfs"):
                os.sync()
            elif self._libc.syncfs(self._fd) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Give the folder's descriptor back."""
        os.close(self._fd)
