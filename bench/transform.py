"""What does it take to turn a decoder's planes into a small RGB picture, and how far is that from just reading them?

    python -m bench.transform [--sizes 720 1080] [--rounds 9]

Planes 4:2:0 of 8 and 10 bits, 1280x720 and 1920x1080, to 256x160 RGB, antialiased. The surfaces lie in a ring of
64 MiB, so that every call reads memory that the last ones did not touch. Tools in one process, in turn, CPU
microseconds a picture. `read` is the bound: the fastest of a few reductions over the same planes (a sum of words, the
greatest byte, XXH3).

swscale scales planes and converts in one call (its filters widen when they shrink). `opencv-area` converts I420 at full
size, then INTER_AREA; `rgb-area` the same with swscale's conversion; `torch-rgb` has interpolate(antialias=True) after
it, as torchvision's resize does; `torch-planes` interpolates the three planes and converts at the small size. Pictures
must be within 3 levels of ours, on average.

Last answer (epyc-2core, AVX-512, 720p of 8 bits): 300 us, 0.25 of swscale bicubic, 0.55 of swscale area, 0.10 of
OpenCV, 4.2 times the read bound; at 10 bits 0.36 of swscale bicubic.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.harness import SIZE, finish, interleave, options, ratio
from gpupipe import _native
from gpupipe.transform import Resizer
from gpupipe.types import Surface, SurfaceFormat

WIDTHS = {720: 1280, 1080: 1920, 180: 320}
LIKE = 3.0
"""Mean absolute difference, levels of 255; filters differ by 0.3 to 1.5 on these pictures."""
_RING_BYTES = 64 << 20

Picture = tuple[np.ndarray, np.ndarray, np.ndarray]
Tool = Callable[[Picture], np.ndarray]


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.set_defaults(rounds=9)
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(WIDTHS), default=[720, 1080])
    parser.add_argument("--ring", type=int, default=_RING_BYTES, metavar="BYTES", help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    cases = [_case(height, depth, arguments) for height in arguments.sizes for depth in (8, 10)]
    for case in cases:
        print(f"{case['height']}p, {case['depth']} bit")
        for name, tool in case["tools"].items():
            said = tool.get("unavailable") or tool.get("unlike") or ""
            cpu, share = tool.get("cpu_us", float("nan")), tool.get("ratio", float("nan"))
            print(f"  {name:20}{cpu:9.0f} us  ours / it {share:5.2f} {said}")
    finish("transform", arguments, {"rounds": arguments.rounds, "out": list(SIZE), "cases": cases})
    return 0


def _case(height: int, depth: int, arguments: argparse.Namespace) -> dict[str, Any]:
    one = _picture(height, WIDTHS[height], depth)
    nbytes = sum(plane.nbytes for plane in one)
    ring: list[Picture] = [one]
    ring += [tuple(plane.copy() for plane in one) for _ in range(min(255, arguments.ring // nbytes))]  # type: ignore[misc]
    tools: dict[str, dict[str, Any]] = {}
    able: dict[str, Tool] = {}
    ours = _ours(depth, None)(one).copy()
    for name, make in _tools(depth).items():
        try:
            tool = make()
            picture = tool(one)
        except Exception as error:
            tools[name] = {"unavailable": f"{type(error).__name__}: {error}"}
            continue
        able[name], tools[name] = tool, {}
        if picture.shape == ours.shape:
            difference = float(np.abs(picture.astype(np.float32) - ours).mean())
            tools[name]["difference"] = difference
            if difference > LIKE:
                tools[name]["unlike"] = f"differs by {difference:.1f} levels"

    def timed(name: str) -> float:
        tool = able[name]
        began = time.process_time()
        for picture in ring:
            tool(picture)
        return (time.process_time() - began) / len(ring) * 1e6

    times = interleave({name: lambda name=name: timed(name) for name in able}, arguments.rounds)
    for name, found in times.items():
        tools[name]["cpu_us"] = statistics.median(found)
        if name != "gpupipe":
            tools[name]["ratio"] = ratio(times["gpupipe"], found)
    _native.set_simd(None)
    read = min((name for name in times if name.startswith("read-")), key=lambda name: statistics.median(times[name]))
    return {
        "height": height,
        "depth": depth,
        "simd": _native.simd_level(),
        "plane_bytes": nbytes,
        "read_bound_us": statistics.median(times[read]),
        "times_read_bound": ratio(times["gpupipe"], times[read]),
        "tools": tools,
    }


def _tools(depth: int) -> dict[str, Callable[[], Tool]]:
    """Makers of the tools; a maker or its first call that fails says why the tool is not there."""
    tools: dict[str, Callable[[], Tool]] = {"gpupipe": lambda: _ours(depth, None)}
    for level in _native.simd_levels():
        tools[f"gpupipe-{level}"] = lambda level=level: _ours(depth, level)
    for filter in ("BICUBIC", "BILINEAR", "AREA"):
        tools[f"swscale-{filter.lower()}"] = lambda filter=filter: _swscale(depth, filter)
    tools["opencv-area"] = lambda: _opencv(depth)
    tools["rgb-area"] = lambda: _rgb_area(depth)
    tools["torch-rgb"] = lambda: _torch_rgb(depth)
    tools["torch-planes"] = lambda: _torch_planes(depth)
    return tools | {f"read-{name}": lambda name=name: _reader(name) for name in ("sum", "max", "xxh3")}


def _ours(depth: int, level: str | None) -> Tool:
    resizer = Resizer(SIZE)
    out = np.empty((*SIZE, 3), np.uint8)
    layout = "yuv420p" if depth == 8 else "yuv420p10le"

    def run(picture: Picture) -> np.ndarray:
        _native.set_simd(level)
        height, width = picture[0].shape
        surface = Surface(SurfaceFormat(height, width, layout), picture, [plane.strides[0] for plane in picture])
        resizer.resize(surface, out)
        return out

    return run


def _swscale(depth: int, filter: str) -> Tool:
    import av
    from av.video.reformatter import VideoReformatter

    reformatter, frames = VideoReformatter(), {}

    def run(picture: Picture) -> np.ndarray:
        frame = frames.get(id(picture))
        if frame is None:  # filled once: a decoder's frames need no copy
            frame = frames[id(picture)] = _frame(av, picture, depth)
        small = reformatter.reformat(frame, SIZE[1], SIZE[0], "rgb24", interpolation=filter)
        return np.frombuffer(small.planes[0], np.uint8).reshape(*SIZE, 3)  # 768 bytes a row: no padding

    return run


def _frame(av: Any, picture: Picture, depth: int) -> Any:
    height, width = picture[0].shape
    frame = av.VideoFrame(width, height, "yuv420p" if depth == 8 else "yuv420p10le")
    for plane, samples in zip(frame.planes, picture, strict=True):
        rows = np.frombuffer(plane, samples.dtype).reshape(samples.shape[0], -1)
        rows[:, : samples.shape[1]] = samples
    return frame


def _opencv(depth: int) -> Tool:
    if depth != 8:
        raise ValueError("OpenCV converts planes of 8 bits only")
    import cv2

    cv2.setNumThreads(1)
    joined: dict[int, np.ndarray] = {}

    def run(picture: Picture) -> np.ndarray:
        width = picture[0].shape[1]
        whole = joined.get(id(picture))
        if whole is None:
            whole = joined[id(picture)] = np.concatenate([plane.ravel() for plane in picture]).reshape(-1, width)
        return cv2.resize(cv2.cvtColor(whole, cv2.COLOR_YUV2RGB_I420), SIZE[::-1], interpolation=cv2.INTER_AREA)

    return run


def _full_rgb(depth: int) -> Tool:
    """swscale's colour conversion at full size."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter, frames = VideoReformatter(), {}

    def run(picture: Picture) -> np.ndarray:
        frame = frames.get(id(picture))
        if frame is None:
            frame = frames[id(picture)] = _frame(av, picture, depth)
        plane = reformatter.reformat(frame, format="rgb24").planes[0]
        return (
            np.frombuffer(plane, np.uint8)
            .reshape(frame.height, plane.line_size)[:, : 3 * frame.width]
            .reshape(frame.height, frame.width, 3)
        )

    return run


def _rgb_area(depth: int) -> Tool:
    import cv2

    cv2.setNumThreads(1)
    rgb = _full_rgb(depth)
    return lambda picture: cv2.resize(rgb(picture), SIZE[::-1], interpolation=cv2.INTER_AREA)


def _torch_rgb(depth: int) -> Tool:
    import torch

    torch.set_num_threads(1)
    rgb = _full_rgb(depth)

    def run(picture: Picture) -> np.ndarray:
        full = torch.from_numpy(rgb(picture))
        small = torch.nn.functional.interpolate(
            full.permute(2, 0, 1)[None], size=SIZE, mode="bilinear", antialias=True, align_corners=False
        )
        return small[0].permute(1, 2, 0).contiguous().numpy()

    return run


def _torch_planes(depth: int) -> Tool:
    import torch

    torch.set_num_threads(1)
    scale = 1 << (depth - 8)
    # BT.601, limited range, as an untagged stream is read.
    matrix = torch.tensor([[1.164384, 0, 1.596027], [1.164384, -0.391762, -0.812968], [1.164384, 2.017232, 0]])
    offset = torch.tensor([16.0, 128.0, 128.0])

    def run(picture: Picture) -> np.ndarray:
        small = []
        for plane in picture:
            samples = torch.from_numpy(plane if depth == 8 else plane.view(np.int16))
            samples = samples if depth == 8 else samples.to(torch.float32)
            small.append(
                torch.nn.functional.interpolate(
                    samples[None, None], size=SIZE, mode="bilinear", antialias=True, align_corners=False
                )[0, 0].to(torch.float32)
            )
        rgb = (torch.stack(small, -1) / scale - offset) @ matrix.T
        return rgb.round_().clamp_(0, 255).to(torch.uint8).numpy()

    return run


def _reader(name: str) -> Tool:
    if name == "xxh3":
        import xxhash

        return lambda picture: np.array([xxhash.xxh3_64_intdigest(plane) for plane in picture])
    reduce = np.add.reduce if name == "sum" else np.maximum.reduce
    kind = np.uint64 if name == "sum" else np.uint8
    return lambda picture: np.array([reduce(plane.reshape(-1).view(kind)) for plane in picture])


def _picture(height: int, width: int, depth: int) -> Picture:
    """Smooth blobs, coarse waves and some noise."""
    random = np.random.default_rng(depth)
    planes = []
    for rows, columns in ((height, width), (height // 2, width // 2), (height // 2, width // 2)):
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
        wave = np.sin(x / columns * 17) * np.cos(y / rows * 11) * 60 + np.sin((x + y) / 23) * 20
        level = 128 + wave + random.normal(0, 4, wave.shape)
        samples = np.clip(level, 20, 230) * (1 << (depth - 8))
        planes.append(np.ascontiguousarray(samples, np.uint8 if depth == 8 else np.uint16))
    return tuple(planes)  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
