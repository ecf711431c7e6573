"""What a library prints on C's standard output, read instead of shown."""

from __future__ import annotations

import ctypes
import functools
import os
import threading

DAMAGE = b"Decode Error occurred"
_LINE_BUFFERED = 1


class Complaints:
    """Counts the lines of this process's C standard output that speak of damaged pictures.

    PyNvVideoCodec asks the driver for the status of every picture, and prints what it hears; nothing else tells. So
    glibc's ``stdout``, through which ``printf`` writes, is turned to memory for good, the lines are read there, and
    those that speak of anything else go on to where they were meant to go. Python's own output does not pass there, nor
    does C++'s. A line does not say which decoder it is about: whoever was decoding meanwhile takes it for its own.

    Threads may share it. :func:`complaints` gives the process's one.

    Raises
    ------
    OSError
        The C library is not glibc.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        try:
            stdout = ctypes.c_void_p.in_dll(libc, "stdout")  # of the program itself where that refers to it
            fdopen, setvbuf, flush = libc.fdopen, libc.setvbuf, libc.fflush
        except (ValueError, AttributeError) as error:
            raise OSError(f"this C library has no stdout that can be turned: {error}") from error
        fdopen.restype = ctypes.c_void_p
        fdopen.argtypes = (ctypes.c_int, ctypes.c_char_p)
        setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
        flush.argtypes = (ctypes.c_void_p,)
        flush(None)
        self._memory = os.memfd_create("complaints")
        self._stream = fdopen(os.dup(self._memory), b"a")
        if not self._stream:
            raise OSError("no stream onto memory")
        setvbuf(self._stream, None, _LINE_BUFFERED, 1 << 12)
        self._flush = flush
        self._lock = threading.Lock()
        self._read = self._count = 0
        self._rest = b""
        stdout.value = self._stream

    def count(self) -> int:
        """Lines that spoke of damage so far."""
        with self._lock:
            self._flush(self._stream)
            while piece := os.pread(self._memory, 1 << 16, self._read):
                self._read += len(piece)
                *lines, self._rest = (self._rest + piece).split(b"\n")
                for line in lines:
                    if DAMAGE in line:
                        self._count += 1
                    else:
                        _pass_on(line + b"\n")
            return self._count


@functools.cache
def complaints() -> Complaints:
    """The process's one; ``stdout`` is turned when it is first asked for."""
    return Complaints()


def _pass_on(line: bytes) -> None:
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:  # nobody reads standard output: printf would not have told either
        return
