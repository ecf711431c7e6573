"""The kernel: 1920x1080 NV12 to small RGB, one launch a batch, against what the card can copy and its peers.

Device time between two CUDA events, the host's part taken out of the way (Board.seconds); `resize` is what the package
enqueues, `gpupipe` its kernel alone. The pictures of a batch lie apart, together larger than the card's cache; batches
are used in turn.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from bench.gpu_parts.board import Board
from bench.gpu_parts.child import Tell
from bench.gpu_parts.peers import IMAGENET_MEAN, IMAGENET_STD, Peer, makers
from bench.harness import interleave, ratio
from gpupipe.cuda.pixels import PixelFormat, convert
from gpupipe.transform import Resizer
from gpupipe.types import Colour, DeviceSurface, Size, Surface, SurfaceFormat

CASES: dict[str, tuple[Size, PixelFormat]] = {
    "256x160 uint8": ((160, 256), PixelFormat()),
    "224x224 float16": ((224, 224), PixelFormat("float16", True, IMAGENET_MEAN, IMAGENET_STD)),
}
LIKE = 3.0
"""Mean absolute difference from ours, levels of 255; filters differ by less on these pictures."""
_COLOUR = Colour("smpte170m")  # the one that all peers know
_COPY_BYTES = 512 << 20
_BASES = 8  # drawing costs 0.1 s
_LAUNCHES = 6  # between two events; the runtime keeps room for eight


def measure(board: Board, options: dict[str, Any], tell: Tell) -> None:
    height, width = options.get("picture", (1080, 1920))
    count, batches = options.get("batch", 64), options.get("batches", 2)
    rounds = options["rounds"]
    copied = _copy_rate(board, options.get("copy_bytes", _COPY_BYTES), rounds)
    tell(copied, "copy_bytes_per_second")
    bases = [draw(height, width, number) for number in range(min(_BASES, count * batches))]
    drawn = [np.roll(bases[at % len(bases)], 2 * at, 1) for at in range(count * batches)]  # even: U stays U
    sources = [board.put(np.stack(drawn[at : at + count])) for at in range(0, len(drawn), count)]
    for name, (size, pixels) in CASES.items():
        case = _Case(board, sources, (height, width), size, pixels)
        case.measure(copied, rounds, lambda value, *names, name=name: tell(value, "cases", name, *names))


def draw(height: int, width: int, number: int) -> np.ndarray:
    """An NV12 picture of soft waves, uint8 ``[H * 3 / 2, W]``; another one for every number."""
    y = np.arange(height, dtype=np.float32)[:, None] / height
    x = np.arange(width, dtype=np.float32) / width
    waves = np.sin(9 * x + 0.7 * number) + np.sin(7 * y - 0.3 * number) + np.sin(40 * (x + y))
    luma = 126 + 35 * waves
    chroma = np.stack([128 + 60 * np.sin(5 * x[::2] + number) * np.cos(3 * y[::2]), 128 + 60 * (y[::2] - x[::2])], -1)
    return np.concatenate([luma, chroma.reshape(height // 2, width)]).astype(np.uint8)


class _Case:
    """One output format: ours, and its peers."""

    def __init__(self, board: Board, sources: list[Any], picture: Size, size: Size, pixels: PixelFormat) -> None:
        self._board, self._sources, self._picture, self._size, self._pixels = board, sources, picture, size, pixels
        count = sources[0].shape[0]
        self._count = count
        self._row_nbytes = 3 * size[0] * size[1] * pixels.element_nbytes
        self._out = board.put(np.zeros((count, self._row_nbytes), np.uint8))
        format = SurfaceFormat(*picture, "nv12", _COLOUR)
        resizer = Resizer(size)
        self._batches = [
            [
                (
                    _surface(board.pointer(source) + number * picture[0] * picture[1] * 3 // 2, format),
                    resizer,
                    board.target(self._out, number * self._row_nbytes),
                )
                for number in range(count)
            ]
            for source in sources
        ]
        self._truth = np.empty((*size, 3), np.uint8)
        resizer.resize(_on_host(board.get(sources[0])[0], format), self._truth)

    def measure(self, copied: float, rounds: int, tell: Tell) -> None:
        read = self._picture[0] * self._picture[1] * 3 // 2
        tell({"read": read, "written": self._row_nbytes}, "picture_bytes")
        board, batches, pixels = self._board, self._batches, self._pixels
        replays = [board.replay(batch, pixels) for batch in batches]
        runs: dict[str, Any] = {
            "gpupipe": lambda: self._spread(lambda number: replays[number % len(replays)]()),
            "resize": lambda: self._spread(lambda number: board.resize(batches[number % len(batches)], pixels)),
        }
        board.resize(batches[0], pixels)
        ours = board.get(self._out)[0].copy()
        right = np.array_equal(ours, convert(self._truth, pixels).reshape(-1).view(np.uint8))
        tools: dict[str, dict[str, Any]] = {"gpupipe": {"same_as_cpu": right}, "resize": {}}
        tell(tools["gpupipe"], "tools", "gpupipe")
        peers: dict[str, Peer] = {}
        for name, make in makers(board, self._sources, self._picture, self._size, pixels).items():
            try:
                peer = make()
                peer.run(0)
                difference = float(np.abs(peer.fetch().astype(np.float32) - self._truth).mean())
                peer.seconds(board, self._spread)  # warm, as ours below; one that waits for the card cannot be measured
            except Exception as error:  # whatever a library raises where it does not fit
                tools[name] = {"unavailable": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
                tell(tools[name], "tools", name)
                continue
            peers[name], tools[name] = peer, {"difference": difference}
            if difference > LIKE:
                tools[name]["unlike"] = f"differs by {difference:.1f} levels"
            runs[name] = lambda peer=peer: peer.seconds(board, self._spread)
        for name in ("gpupipe", "resize"):  # warm: clocks, caches
            runs[name]()
        times = interleave(runs, rounds)
        for name, found in times.items():
            seconds = statistics.median(found)
            rate = self._count * (read + self._row_nbytes) / seconds
            tools[name] |= {
                "us_a_picture": seconds / self._count * 1e6,
                "bytes_per_second": rate,
                "share_of_copy": rate / copied,
                "theirs_over_ours": None if name == "gpupipe" else ratio(found, times["gpupipe"]),
            }
            tell(tools[name], "tools", name)
        like = {name: tools[name] for name in peers if "unlike" not in tools[name]}
        for library in dict.fromkeys(name.partition("-")[0] for name in like):
            best = min(tool["theirs_over_ours"] for name, tool in like.items() if name.startswith(library))
            tell(best, "times_as_fast_as", library)

    def _spread(self, enqueue: Any) -> float:
        """Device seconds of one batch, of several in a row."""

        def several() -> None:
            for number in range(_LAUNCHES):
                enqueue(number)

        return self._board.seconds(several) / _LAUNCHES


def _copy_rate(board: Board, nbytes: int, rounds: int) -> float:
    """Bytes read and written a second by a copy within the card."""
    source, to = (board.put(np.zeros(nbytes, np.uint8)) for _ in range(2))

    def several() -> None:
        for _ in range(_LAUNCHES):
            board.copy(source, to)

    board.seconds(several)
    return 2 * nbytes * _LAUNCHES / statistics.median(board.seconds(several) for _ in range(rounds))


def _surface(pointer: int, format: SurfaceFormat) -> DeviceSurface:
    return DeviceSurface(format, [pointer, pointer + format.height * format.width], [format.width, format.width])


def _on_host(picture: np.ndarray, format: SurfaceFormat) -> Surface:
    planes = [np.ascontiguousarray(picture[: format.height]), np.ascontiguousarray(picture[format.height :])]
    return Surface(format, [plane.reshape(-1) for plane in planes], [format.width, format.width])
