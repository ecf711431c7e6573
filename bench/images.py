"""What does it cost to have the pixels of many small still pictures, strictly, and how far is that from unpacking them?

    python -m bench.images [--images DIR] [--media DIR] [--pictures 200] [--rounds 5]

Three sets, in memory: photographs (JPEG of DIR), and frames of videos at 260x210 as PNG and as JPEG. Tools in one
process, in turn, one thread, CPU microseconds a picture to upright R'G'B' in memory. `gpupipe` looks at the header, at
every checksum and at all coded data; `pillow` and `opencv` are what scripts do, and say nothing of damage; `dali` is
our backend on DALI's CPU decoders, with its checks, `dali-bare` is DALI alone in batches of 64. `unpack` is the bound:
the entropy coding alone (libjpeg at an eighth of the size; zlib). Pictures must be the same to the level.

`files` reads the same pictures from files through :class:`gpupipe.decode.images.Images`: pictures a second by threads.

Last answer (epyc-2core, busy with other work): 0.50, 0.67 and 0.59 of Pillow, 0.98, 0.89 and 1.05 of OpenCV, 0.78, 0.94
and 0.65 of DALI alone on the CPU, none of which tells damage in a JPEG; 1.9 to 2.1 times the bound. From files, two
threads: 2,400, 1,650 and 6,700 pictures a second.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import finish, interleave, options, ratio
from bench.media import MEDIA, files
from gpupipe import open_video
from gpupipe.decode.image_cpu import CpuImages, check_jpeg
from gpupipe.decode.image_file import ImageFile
from gpupipe.decode.images import ImageDecoder, Images, Still, open_images
from gpupipe.errors import GpupipeError

SIZE = (260, 210)
IMAGES = MEDIA.parent / "images"

Tool = Callable[[Sequence[bytes]], list[np.ndarray]]


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    sets = []
    for name, data in _sets(arguments).items():
        sets.append(_set(name, data, arguments))
        _say(sets[-1])
    finish("images", arguments, {"rounds": arguments.rounds, "pictures": arguments.pictures, "sets": sets})
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, metavar="DIR", help="photographs (default: %(default)s)")
    parser.add_argument("--media", type=Path, metavar="DIR", help="videos")
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="of each set (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    return parser.parse_args(argv)


def _sets(arguments: argparse.Namespace) -> dict[str, list[bytes]]:
    from PIL import Image

    found: dict[str, list[bytes]] = {}
    paths = sorted(arguments.images.rglob("*.jpg"))
    if paths:
        step = max(1, len(paths) // arguments.pictures)
        found["photographs, JPEG"] = [path.read_bytes() for path in paths[::step][: arguments.pictures]]
    frames: list[np.ndarray] = []
    for path in files(arguments.media, []):
        if len(frames) >= arguments.pictures:
            break
        try:
            with open_video(path) as video:
                frames += list(video.frames(num=20, size=SIZE).data)[: arguments.pictures - len(frames)]
        except GpupipeError:  # a clip that is there for other benchmarks
            continue
    for kind, more in (("PNG", {}), ("JPEG", {"quality": 90})):
        found[f"frames, {kind}"] = []
        for frame in frames:
            file = io.BytesIO()
            Image.fromarray(np.asarray(frame)).save(file, kind, **more)
            found[f"frames, {kind}"].append(file.getvalue())
    return found


def _set(name: str, data: list[bytes], arguments: argparse.Namespace) -> dict[str, Any]:
    """One set by all tools."""
    decoder = CpuImages()
    reference = [decoder.decode(each).rgb for each in data]
    loaded = [decoder.load(each) for each in data]
    tools: dict[str, dict[str, Any]] = {}
    able: dict[str, Callable[[], object]] = {"unpack": lambda: [_unpack(file) for file in loaded]}
    for tool, make in _TOOLS.items():
        try:
            run = make()
            pictures = run(data)
        except (ImportError, GpupipeError, RuntimeError, OSError) as error:
            tools[tool] = {"unavailable": " ".join(str(error).split())[:200]}
            continue
        tools[tool] = {"difference": max(_apart(a, b) for a, b in zip(pictures, reference, strict=True))}
        able[tool] = lambda run=run: run(data)  # type: ignore[misc]
    times = interleave({tool: lambda run=run: _cpu(run) for tool, run in able.items()}, arguments.rounds)
    for tool in able.keys() & tools.keys():
        tools[tool] |= {
            "cpu_us": statistics.median(times[tool]) / len(data) * 1e6,
            "ratio": ratio(times["gpupipe"], times[tool]),
        }
    return {
        "set": name,
        "pictures": len(data),
        "mean_bytes": statistics.mean(len(each) for each in data),
        "mean_pixels": statistics.mean(picture.shape[0] * picture.shape[1] for picture in reference),
        "unpack_us": statistics.median(times["unpack"]) / len(data) * 1e6,
        "times_unpack_bound": ratio(times["gpupipe"], times["unpack"]),
        "tools": tools,
        "files_per_second": _files(data, arguments),
    }


def _files(data: list[bytes], arguments: argparse.Namespace) -> dict[str, float]:
    """Pictures a second from files, the best of the rounds, by threads."""
    with tempfile.TemporaryDirectory() as folder, CpuImages() as decoder:
        paths = [Path(folder, f"{number:06d}") for number in range(len(data))]
        for path, each in zip(paths, data, strict=True):
            path.write_bytes(each)

        def run(threads: int) -> float:
            began = time.perf_counter()
            for _, outcome in Images(paths, decoder, threads):
                if not isinstance(outcome, Still):
                    raise outcome
            return time.perf_counter() - began

        runs = {str(threads): lambda threads=threads: run(threads) for threads in arguments.threads}
        return {threads: len(data) / min(found) for threads, found in interleave(runs, arguments.rounds).items()}


def _cpu(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(np.int16) - other).max()) if one.shape == other.shape else 255


def _unpack(file: ImageFile) -> None:
    if file.png is None:
        check_jpeg(file)
    else:
        rows = b"".join(file.data[start:stop] for kind, start, stop in file.png.chunks if kind == b"IDAT")
        zlib.decompress(rows)


def _ours(decoder: ImageDecoder) -> Tool:
    def run(data: Sequence[bytes]) -> list[np.ndarray]:
        pictures = []
        for outcome in decoder.decode_all([decoder.load(each) for each in data]):
            if not isinstance(outcome, Still):
                raise outcome
            pictures.append(outcome.rgb)
        return pictures

    return run


def _pillow() -> Tool:
    from PIL import Image, ImageOps

    def one(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

    return lambda data: [one(each) for each in data]


def _opencv() -> Tool:
    import cv2

    cv2.setNumThreads(1)
    return lambda data: [cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR_RGB) for each in data]


def _dali_bare() -> Tool:
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=64, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        file = fn.external_source(name="files", ndim=1, dtype=types.UINT8)
        pipeline.set_outputs(fn.decoders.image(file, device="cpu", output_type=types.RGB))
    pipeline.build()

    def run(data: Sequence[bytes]) -> list[np.ndarray]:
        pictures: list[np.ndarray] = []
        for start in range(0, len(data), 64):
            group = data[start : start + 64]
            pipeline.feed_input("files", [np.frombuffer(each, np.uint8) for each in group])
            (batch,) = pipeline.run()
            pictures += [np.array(batch.at(place)) for place in range(len(group))]
        return pictures

    return run


_TOOLS: dict[str, Callable[[], Tool]] = {
    "gpupipe": lambda: _ours(CpuImages()),
    "pillow": _pillow,
    "opencv": _opencv,
    "dali": lambda: _ours(open_images("dali")),
    "dali-bare": _dali_bare,
}


def _say(found: dict[str, Any]) -> None:
    print(
        f"{found['set']}: {found['pictures']} of {found['mean_bytes'] / 1e3:.0f} kB; {found['unpack_us']:.0f} us to "
        f"unpack, gpupipe {found['times_unpack_bound']:.2f} times that; from files "
        + ", ".join(f"{rate:.0f}/s with {threads}" for threads, rate in found["files_per_second"].items())
    )
    for name, tool in found["tools"].items():
        cpu, share = tool.get("cpu_us", float("nan")), tool.get("ratio", float("nan"))
        said = tool.get("unavailable", "")
        print(f"  {name:12}{cpu:9.0f} us  ours / it {share:5.2f}  apart {tool.get('difference')} {said}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
