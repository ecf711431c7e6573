"""The video engines: what they can decode at most, how much of that many short clips get, what skipping and keeping
decoders bring.

The ceiling is every packet of a long clip, demuxed and converted beforehand, fed to sessions in as many threads as
there are engines, and in twice as many; the better one counts. Where NVML shows the engines less than busy meanwhile,
feeding was the limit, not they. The short clips are of the same kind and size. Nothing but decoding is measured here:
pictures are given back as they come.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np

from bench.gpu_parts import library
from bench.gpu_parts.board import Board
from bench.gpu_parts.child import Tell
from bench.gpu_parts.counters import Counters
from bench.harness import interleave, ratio
from gpupipe.decode.bitstream import EngineStream
from gpupipe.decode.index import FrameIndex, PacketTable
from gpupipe.decode.nvdec import NvdecDecoder
from gpupipe.decode.planner import Plan, Run
from gpupipe.decode.pool import DecoderPool
from gpupipe.decode.sampling import uniform
from gpupipe.decode.session import Packet, Picture, StreamKind, VideoEngine
from gpupipe.types import DeviceSurface, Size, Surface

KIND = StreamKind("h264", "420", 8)
FRAMES = 16
_SIZE = (360, 640)
_LARGE = (1080, 1920)


class Unskipping(NvdecDecoder):
    """Feeds every packet, as decoders do that know nothing of references."""

    def _execute_on(self, use: Any, run: Run, schedule: Plan, table: PacketTable) -> Iterator[list[Picture]]:
        return super()._execute_on(use, run, replace(schedule, skippable=np.zeros_like(schedule.skippable)), table)


def measure(board: Board, options: dict[str, Any], tell: Tell) -> None:
    until = time.monotonic() + 0.9 * options["seconds"]
    device = board.device()
    engine = device.engine
    capability = engine.capability(KIND)
    if capability is None:
        tell("the card decodes no H.264", "unavailable")
        return
    engines = capability.engines
    tell(engines, "engines")
    folder, rounds = Path(options["scratch"]), options["rounds"]
    size: Size = tuple(options.get("size", _SIZE))
    large: Size = tuple(options.get("large", _LARGE))
    length = options.get("clip_frames", 250)

    clips = library.h264(folder, "clip", options.get("files", 12), length, size)
    short = library.h264(folder, "short", options.get("files", 12), max(2, length // 5), size)
    ceilings = {}
    for name, shown, frames in (("360p", size, 4 * length), ("1080p", large, max(2, length // 2))):
        long = library.h264(folder, f"long-{name}", 1, frames, shown)[0]
        packets = fed(long)
        seconds = options.get("ceiling_seconds", 3.0)
        with Counters() as counters:
            ceilings[name] = max(
                ceiling(engine, shown, packets, threads, seconds) for threads in (engines, 2 * engines)
            )
        tell(ceilings[name], "ceiling_frames_per_second", name)
        tell(counters.found(), "ceiling_counters", name)

    lanes = 2 * engines + 2
    wanted = options.get("clips", 1000)
    with pooled(engine) as pool:
        first = many(pool, NvdecDecoder, clips, max(len(clips), wanted // 10), lanes)
        # Two ways, so many rounds: as many clips as fit, and no fewer rounds than one.
        fit = int((until - time.monotonic()) * 0.6 * first["clips_per_second"] / 3.4)
        number = min(wanted, max(len(clips), fit))
        turns = max(1, min(rounds, fit // number))
        ways: dict[str, type[NvdecDecoder]] = {"skipping": NvdecDecoder, "feeding all": Unskipping}
        found = _rounds(
            {name: lambda way=way: many(pool, way, clips, number, lanes) for name, way in ways.items()}, turns
        )
    for name, each in found.items():
        tell({**each, "share_of_ceiling": each["decoded_frames_per_second"] / ceilings["360p"]}, "clips", name)
    tell(_gain(found, "skipping", "feeding all"), "skipping_gain")

    number = min(options.get("short_clips", 200), max(len(short), int((until - time.monotonic()) * 10)))
    with pooled(engine) as pool:
        many(pool, NvdecDecoder, short, len(short), lanes)
        found = _rounds(
            {
                "pool": lambda: many(pool, NvdecDecoder, short, number, lanes),
                "fresh": lambda: many(engine, NvdecDecoder, short, number, lanes),
            },
            1 if rounds < 3 else 2,
        )
    for name, each in found.items():
        tell(each, "two_second_clips", name)
    tell(_gain(found, "pool", "fresh"), "pool_gain")


def fed(path: Path) -> list[Packet]:
    """A file's packets as the engine takes them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        made = EngineStream(codec.codec.canonical_name, codec.extradata or b"", (codec.height, codec.width))
        packets: list[Packet] = []
        for packet in container.demux(stream):
            if packet.size:
                packets.append(made.packet(packet, not packets, bool(packet.is_keyframe)))
    return packets


def ceiling(engine: VideoEngine, size: Size, packets: Sequence[Packet], threads: int, seconds: float) -> float:
    """Frames a second of so many sessions, each fed the whole clip again and again."""
    ready, counts = threading.Barrier(threads + 1), [0] * threads
    stop = threading.Event()

    def one(place: int) -> None:
        try:
            session = engine.session(KIND, *size)
            try:
                session.begin(*size)
                _release(session.feed(packets[0]))  # makes the decoder
                _release(session.drain())
                ready.wait()
                while not stop.is_set():
                    session.begin(*size)
                    for packet in packets:
                        counts[place] += _release(session.feed(packet))
                        if stop.is_set():
                            break
                    else:
                        counts[place] += _release(session.drain())
            finally:
                session.close()
        except BaseException:
            stop.set()
            ready.abort()
            raise

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(one, place) for place in range(threads)]
        try:
            ready.wait()
        except threading.BrokenBarrierError:
            stop.set()
        began, before = time.perf_counter(), sum(counts)
        stop.wait(seconds)
        frames, took = sum(counts) - before, time.perf_counter() - began
        stop.set()
        for future in futures:
            _settled(future)
    return frames / took


def many(
    decoders: DecoderPool | VideoEngine, way: type[NvdecDecoder], files: Sequence[Path], number: int, lanes: int
) -> dict[str, float]:
    """Decode so many clips, 16 frames each, in threads as a worker's lanes do.

    Parameters
    ----------
    decoders : DecoderPool or VideoEngine
        An engine: a decoder is made for each clip and closed behind it.
    """
    turn = count()
    totals = {"decoded": 0, "skipped": 0}
    lock = threading.Lock()

    def lane() -> None:
        while (at := next(turn)) < number:
            if isinstance(decoders, DecoderPool):
                stats = _clip(decoders, way, files[at % len(files)])
            else:
                with pooled(decoders) as own:
                    stats = _clip(own, way, files[at % len(files)])
            with lock:
                totals["decoded"] += stats.decoded
                totals["skipped"] += stats.skipped

    began = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        for future in [pool.submit(lane) for _ in range(lanes)]:
            future.result()
    took = time.perf_counter() - began
    return {
        "clips": number,
        "clips_per_second": number / took,
        "decoded_frames_per_second": totals["decoded"] / took,
        "decoded_frames": totals["decoded"],
        "skipped_packets": totals["skipped"],
    }


def _clip(pool: DecoderPool, way: type[NvdecDecoder], path: Path) -> Any:
    def choose(index: FrameIndex) -> Any:
        chosen, valid = uniform(len(index), FRAMES)
        return chosen[valid]

    def put(position: int, surface: Surface | DeviceSurface) -> None:
        assert isinstance(surface.owner, Picture)
        surface.owner.release()

    with way(path, pool=pool, only=True, on_device=True) as decoder:
        decoder.prepare()
        decoder.read(choose, put)
        return decoder.stats


@contextmanager
def pooled(engine: VideoEngine) -> Iterator[DecoderPool]:
    """Decoders that are closed at the end."""
    pool = DecoderPool(engine)
    try:
        yield pool
    finally:
        pool.close()


def _rounds(ways: dict[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, dict[str, Any]]:
    """Medians over interleaved rounds, and the rounds themselves."""
    kept: dict[str, list[dict[str, float]]] = {name: [] for name in ways}

    def one(name: str) -> float:
        kept[name].append(ways[name]())
        return 0.0

    interleave({name: lambda name=name: one(name) for name in ways}, rounds)
    return {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        | {"rates": [each["clips_per_second"] for each in found]}
        for name, found in kept.items()
    }


def _gain(found: dict[str, dict[str, Any]], ours: str, theirs: str) -> float:
    return ratio(found[ours]["rates"], found[theirs]["rates"])


def _release(pictures: Sequence[Picture]) -> int:
    for picture in pictures:
        picture.release()
    return len(pictures)


def _settled(future: Any) -> None:
    error = future.exception()
    if error is not None and not isinstance(error, threading.BrokenBarrierError):
        raise error
