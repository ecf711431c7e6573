"""From the card's memory to a file: copy out to pinned memory, pwrite from there; one after the other, and overlapped.

Blocks of one batch of rows. Overlapped: while one block is written the next is copied, in a ring of pinned buffers;
with several writers each has a ring of its own, as the lanes of a worker do. The file is written from its start
again before it grows beyond a share of what is free, and then takes pages that are there already.
"""

from __future__ import annotations

import os
import queue
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_parts.board import Board, Unavailable, wait
from bench.gpu_parts.child import Tell
from bench.harness import interleave, ratio
from gpupipe.cuda.card import Card, DeviceBuffer, Event
from gpupipe.sinks.files import write_at

_BLOCK = 64 * 160 * 256 * 3
_TOTAL = 768 << 20
_FILE = 1 << 30
_RING = 3
_WRITERS = 4


def measure(board: Board, options: dict[str, Any], tell: Tell) -> None:
    card = board.card()
    folder = Path(options.get("write") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()))
    nbytes, rounds = options.get("block", _BLOCK), options["rounds"]
    system = os.statvfs(folder)
    room = min(_FILE, system.f_bavail * system.f_frsize // 4) // nbytes
    if not room:
        raise Unavailable(f"{folder}: no room for {4 * nbytes} bytes; name another folder: --write DIR")
    blocks = max(_RING * _WRITERS, options.get("total", _TOTAL) // nbytes)
    source = card.empty(nbytes)
    tell({"folder": str(folder), "block_bytes": nbytes}, "setting")
    with tempfile.TemporaryFile(dir=folder) as file:
        path = _Path(card, source, nbytes, file.fileno(), room)
        path.write_only(room)  # the file's pages are made now
        ways = {
            "copy out": lambda: path.copy_only(blocks),
            "write": lambda: path.write_only(blocks),
            "one after the other": lambda: path.in_turn(blocks),
            "overlapped": lambda: path.overlapped(blocks, 1),
            f"overlapped, {_WRITERS} writers": lambda: path.overlapped(blocks, _WRITERS),
        }
        for way in ways.values():
            way()
        path.waited = 0.0
        times = interleave(ways, rounds)
    for name, found in times.items():
        tell(blocks * nbytes / statistics.median(found), "bytes_per_second", name)
    tell(ratio(times["one after the other"], times["overlapped"]), "overlap_gain")
    # The writer is the slower side: whatever it waits for the copy is not overlapped.
    tell(path.waited / sum(times["overlapped"]), "waiting_for_copy")


class _Path:
    """One block of the card, again and again, into a file."""

    def __init__(self, card: Card, source: DeviceBuffer, nbytes: int, descriptor: int, room: int) -> None:
        self._card, self._source, self._descriptor, self._room = card, source, descriptor, room
        self._rings = [[card.pinned(nbytes) for _ in range(_RING)] for _ in range(_WRITERS)]
        self._streams = [card.stream() for _ in range(_WRITERS)]
        self.waited = 0.0

    def copy_only(self, blocks: int) -> float:
        began = time.perf_counter()
        for number in range(blocks):
            self._copy(0, number)
        wait(self._streams[0])
        return time.perf_counter() - began

    def write_only(self, blocks: int) -> float:
        began = time.perf_counter()
        for number in range(blocks):
            self._write(self._rings[0][0], number)
        return time.perf_counter() - began

    def in_turn(self, blocks: int) -> float:
        began = time.perf_counter()
        for number in range(blocks):
            self._copy(0, number)
            wait(self._streams[0])
            self._write(self._rings[0][number % _RING], number)
        return time.perf_counter() - began

    def overlapped(self, blocks: int, writers: int) -> float:
        began = time.perf_counter()
        shares = [range(place, blocks, writers) for place in range(writers)]
        with ThreadPoolExecutor(writers) as pool:
            waited = list(pool.map(self._ring, range(writers), shares))
        if writers == 1:
            self.waited += sum(waited)
        return time.perf_counter() - began

    def _ring(self, place: int, numbers: range) -> float:
        """Copy ahead in a thread of its own, and write; the seconds that the writing waited."""
        free: queue.SimpleQueue[int] = queue.SimpleQueue()
        copied: queue.SimpleQueue[tuple[int, int, Event] | BaseException] = queue.SimpleQueue()
        stream = self._streams[place]
        for slot in range(_RING):
            free.put(slot)

        def ahead() -> None:
            try:
                for number in numbers:
                    slot = free.get()
                    self._card.copy_out(self._source, 0, self._rings[place][slot], stream)
                    copied.put((number, slot, stream.record()))
            except BaseException as error:  # raised by who writes
                copied.put(error)

        thread = threading.Thread(target=ahead, daemon=True)
        thread.start()
        waited = 0.0
        for _ in numbers:
            began = time.perf_counter()
            found = copied.get()
            if isinstance(found, BaseException):
                raise found
            number, slot, event = found
            event.wait()
            waited += time.perf_counter() - began
            self._write(self._rings[place][slot], number)
            free.put(slot)
        thread.join()
        return waited

    def _copy(self, place: int, number: int) -> None:
        self._card.copy_out(self._source, 0, self._rings[place][number % _RING], self._streams[place])

    def _write(self, block: np.ndarray, number: int) -> None:
        write_at(self._descriptor, [block], number % self._room * block.nbytes)
