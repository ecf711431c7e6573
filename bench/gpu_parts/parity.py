"""CPU and GPU, byte for byte: random surfaces of every layout always; clips of every codec where the card decodes.

A launch mixes layouts, sizes and output sizes. Around each output lie bytes that must stay as they are. Of clips, the
pictures of the card's decoders are compared with FFmpeg's at their own size, then what the kernel makes of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from bench.gpu_parts import library
from bench.gpu_parts.board import Board, Unavailable, wait
from bench.gpu_parts.child import Tell
from bench.gpu_parts.surfaces import LAYOUTS, PIXELS, Drawn, draw
from bench.harness import SIZE
from gpupipe import decode
from gpupipe.cuda.card import Target
from gpupipe.cuda.device import Device
from gpupipe.cuda.pixels import PixelFormat, convert
from gpupipe.decode.nvdec import NvdecDecoder
from gpupipe.decode.pool import DecoderPool
from gpupipe.decode.sampling import uniform
from gpupipe.decode.session import Picture
from gpupipe.errors import GpupipeError, UnsupportedError
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface

_GUARD = 64
"""Bytes between outputs."""
_POISON = 0xCD
_FRAMES = 64
"""Of a clip at most."""


def measure(board: Board, options: dict[str, Any], tell: Tell) -> None:
    began = time.monotonic()
    rounds, batch = options.get("surfaces", 24), options.get("batch", 64)
    compared = Compared()
    for pixels, drawn in _batches(rounds, batch, options.get("layouts") or list(LAYOUTS)):
        if time.monotonic() - began > 0.4 * options["seconds"]:
            tell("out of time: fewer surfaces than planned", "synthetic", "note")
            break
        compared.batch(board, drawn, pixels)
        tell(compared.found(), "synthetic")
    try:
        device = board.device()
    except Unavailable as error:
        tell({"unavailable": str(error)}, "clips")
        return
    pool = DecoderPool(device.engine)
    files = library.kinds(Path(options["scratch"]), options.get("kinds"))
    if options.get("media"):
        files = {**files, **{path.name: path for path in library.videos(Path(options["media"]))}}
    for name, path in files.items():
        if time.monotonic() - began > 0.9 * options["seconds"]:
            tell({"unavailable": "out of time"}, "clips", name)
            continue
        tell({"unavailable": path} if isinstance(path, str) else clip(device, pool, path), "clips", name)


class Compared:
    """Surfaces compared so far."""

    def __init__(self) -> None:
        self.surfaces = self.different = 0
        self.layouts: set[str] = set()
        self.first: str | None = None

    def found(self) -> dict[str, Any]:
        return {
            "surfaces": self.surfaces,
            "layouts": len(self.layouts),
            "different": self.different,
            "first_different": self.first,
        }

    def batch(self, board: Board, drawn: Sequence[Drawn], pixels: PixelFormat) -> None:
        """One launch."""
        truths = [convert(each.truth, pixels).reshape(-1).view(np.uint8) for each in drawn]
        starts, end = [], _GUARD
        for truth in truths:
            starts.append(end)
            end += -(-len(truth) // 16) * 16 + _GUARD
        expected = np.full(end, _POISON, np.uint8)
        out = board.put(expected)
        pictures = []
        memories = [board.put(each.memory) for each in drawn]
        for each, memory, start in zip(drawn, memories, starts, strict=True):
            pointers = [board.pointer(memory) + offset for offset in each.offsets]
            surface = DeviceSurface(each.format, pointers, each.strides)
            pictures.append((surface, each.resizer, board.target(out, start)))
        for truth, start in zip(truths, starts, strict=True):
            expected[start : start + len(truth)] = truth
        self.surfaces += len(drawn)
        self.layouts |= {each.format.layout for each in drawn}
        try:
            board.resize(pictures, pixels)
        except GpupipeError as error:
            self._differs(len(drawn), f"refused: {error}")
            return
        found = board.get(out)
        for number, each in enumerate(drawn):
            stop = starts[number + 1] if number + 1 < len(starts) else end
            here = slice(starts[number] - (_GUARD if number == 0 else 0), stop)
            wrong = np.flatnonzero(found[here] != expected[here])
            if len(wrong):
                first = wrong[0] + here.start - starts[number]
                self._differs(1, f"{pixels.dtype}: {each.describe()}: {len(wrong)} bytes, the first {first}")

    def _differs(self, count: int, text: str) -> None:
        self.different += count
        self.first = self.first or text


def _batches(rounds: int, batch: int, layouts: list[str]) -> Iterator[tuple[PixelFormat, list[Drawn]]]:
    """Batches that have every layout in so many surfaces, most as bytes, each other pixel format as often."""
    random = np.random.default_rng(5)
    for number in range(rounds):
        pixels = PIXELS[0] if number % 2 == 0 else PIXELS[1 + number // 2 % (len(PIXELS) - 1)]
        names = [str(name) for name in random.permutation(layouts)]
        for at in range(0, len(names), batch):
            drawn = [draw(name, random) for name in names[at : at + batch]]
            if number % 4 == 0:
                drawn[-1] = draw(names[min(at + batch, len(names)) - 1], random, large=True)
            yield pixels, drawn


def clip(device: Device, pool: DecoderPool, path: Path) -> dict[str, Any]:
    """Compare a file's pictures, spread over it; what FFmpeg refuses is not compared."""
    with ExitStack() as stack:
        try:
            reference = stack.enter_context(decode.open(path, "ffmpeg"))
            chosen, valid = uniform(len(reference.index), _FRAMES)
            numbers = [int(number) for number in chosen[valid]]
            small, whole = Resizer(SIZE), Resizer(None)
            truths = {
                number: (_digest(whole, surface), _of(small, surface)) for number, surface in reference.frames(numbers)
            }
        except GpupipeError as error:
            return {"skipped": f"FFmpeg: {error}"}
        try:
            decoder = stack.enter_context(NvdecDecoder(path, pool=pool, only=True))
            planes = sum(_digest(whole, surface) != truths[number][0] for number, surface in decoder.frames(numbers))
            onboard = stack.enter_context(NvdecDecoder(path, pool=pool, only=True, on_device=True))
            rows = _kernel_rows(device, onboard, numbers, small)
        except UnsupportedError as error:
            return {"unavailable": str(error)}
        except GpupipeError as error:
            return {"frames": len(numbers), "error": str(error)}
        wrong = sum(not np.array_equal(rows[at], truths[number][1]) for at, number in enumerate(numbers))
        return {"frames": len(numbers), "planes_different": planes, "rows_different": wrong}


def _of(resizer: Resizer, surface: Any) -> np.ndarray:
    out = np.empty((*resizer.out_size(surface.format), 3), np.uint8)
    resizer.resize(surface, out)
    return out


def _digest(resizer: Resizer, surface: Any) -> bytes:
    return xxhash.xxh3_128_digest(_of(resizer, surface))


def _kernel_rows(device: Device, decoder: NvdecDecoder, numbers: Sequence[int], resizer: Resizer) -> np.ndarray:
    """What the card makes of the pictures, uint8 ``[T, H, W, 3]``."""
    nbytes = SIZE[0] * SIZE[1] * 3
    buffer = device.card.empty(len(numbers) * nbytes)
    out = device.card.pinned(len(numbers) * nbytes)
    for place, (_, surface) in enumerate(decoder.frames(numbers)):
        assert isinstance(surface, DeviceSurface)  # what `on_device` promises
        device.card.resize([(surface, resizer, Target(buffer, place * nbytes))], device.stream)
        wait(device.stream)
        assert isinstance(surface.owner, Picture)
        surface.owner.release()
    device.card.copy_out(buffer, 0, out, device.stream)
    wait(device.stream)
    return out.reshape(len(numbers), *SIZE, 3)
