"""The chains that people use instead of one kernel: torch's operators, CV-CUDA, DALI; all antialiased, BT.601."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.gpu_parts.board import Board
from gpupipe.cuda.pixels import PixelFormat
from gpupipe.transform import Resizer
from gpupipe.types import Colour, DeviceSurface, Size, SurfaceFormat

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WALL_BATCHES = 24
_KR, _KB = 0.299, 0.114


@dataclass
class Peer:
    """One chain.

    Attributes
    ----------
    run : callable of int
        Enqueues the batch of this number, counted round.
    fetch : callable
        The first picture of the last batch, levels ``[H, W, 3]``.
    clock : str
        ``"events"`` where all goes into the board's stream; ``"wall"`` where the library has streams of its own.
    """

    run: Callable[[int], None]
    fetch: Callable[[], np.ndarray]
    clock: Literal["events", "wall"] = "events"

    def seconds(self, board: Board, spread: Callable[[Callable[[int], None]], float]) -> float:
        """Of one batch; `spread` measures by events."""
        if self.clock == "events":
            return spread(self.run)
        board.synchronise()
        began = time.perf_counter()
        for number in range(_WALL_BATCHES):
            self.run(number)
        board.synchronise()
        return (time.perf_counter() - began) / _WALL_BATCHES


def makers(
    board: Board, sources: Sequence[Any], picture: Size, size: Size, pixels: PixelFormat
) -> dict[str, Callable[[], Peer]]:
    """Makers of the chains; one that is not there raises.

    Parameters
    ----------
    sources : sequence of arrays of the board
        uint8 ``[N, H * 3 / 2, W]``, NV12.
    """
    return {
        "torch-float32": lambda: _torch(board, sources, size, pixels, "float32"),
        "torch-float16": lambda: _torch(board, sources, size, pixels, "float16"),
        "cvcuda": lambda: _cvcuda(board, sources, size, pixels),
        "dali": lambda: _dali(board, sources, picture, size, pixels),
    }


def _levels(small: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Levels ``[H, W, 3]`` of one result."""
    if pixels.dtype == "uint8":
        return small
    rows = np.moveaxis(small.astype(np.float32), 0, -1) if pixels.channels_first else small.astype(np.float32)
    return np.asarray(255 * (rows * np.array(pixels.std, np.float32) + np.array(pixels.mean, np.float32)))


def _torch(board: Board, sources: Sequence[Any], size: Size, pixels: PixelFormat, dtype: str) -> Peer:
    import torch

    batches = [torch.as_tensor(source, device="cuda" if board.stream else None) for source in sources]
    kind = getattr(torch, dtype)
    kg = 1 - _KR - _KB
    interpolate = torch.nn.functional.interpolate
    mean, std = (
        torch.tensor(each, device=batches[0].device, dtype=kind).reshape(1, 3, 1, 1)
        for each in (pixels.mean, pixels.std)
    )
    last: list[Any] = []

    def chain(nv12: Any) -> Any:
        count, rows, width = nv12.shape
        height = rows * 2 // 3
        luma = (nv12[:, :height].to(kind) - 16) / 219
        chroma = nv12[:, height:].reshape(count, height // 2, width // 2, 2).permute(0, 3, 1, 2).to(kind)
        chroma = interpolate((chroma - 128) / 224, scale_factor=2, mode="bilinear", align_corners=False)
        u, v = chroma[:, 0], chroma[:, 1]
        red, blue = luma + 2 * (1 - _KR) * v, luma + 2 * (1 - _KB) * u
        green = luma - (2 * _KB * (1 - _KB) / kg) * u - (2 * _KR * (1 - _KR) / kg) * v
        rgb = torch.stack([red, green, blue], 1).clamp_(0, 1)
        small = interpolate(rgb, size=size, mode="bilinear", antialias=True, align_corners=False)
        if pixels.dtype == "uint8":
            return (small * 255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return ((small - mean) / std).to(torch.float16).contiguous()

    def run(number: int) -> None:
        if not board.stream:
            last[:] = [chain(batches[number % len(batches)])]
            return
        with torch.cuda.stream(torch.cuda.ExternalStream(board.stream)):
            last[:] = [chain(batches[number % len(batches)])]

    def fetch() -> np.ndarray:
        board.synchronise()
        return _levels(last[0][0].cpu().numpy(), pixels)

    return Peer(run, fetch)


def _cvcuda(board: Board, sources: Sequence[Any], size: Size, pixels: PixelFormat) -> Peer:
    import cvcuda

    stream = cvcuda.as_stream(board.stream)
    batches = [cvcuda.as_tensor(source.reshape(*source.shape, 1), "NHWC") for source in sources]
    base, scale = (
        cvcuda.as_tensor(board.put(np.array(each, np.float32).reshape(1, 1, 1, 3)), "NHWC")
        for each in (pixels.mean, pixels.std)
    )
    last: list[Any] = []

    def run(number: int) -> None:
        rgb = cvcuda.cvtcolor(batches[number % len(batches)], cvcuda.ColorConversion.YUV2RGB_NV12, stream=stream)
        small = cvcuda.hq_resize(rgb, size, antialias=True, interpolation=cvcuda.Interp.LINEAR, stream=stream)
        if pixels.dtype != "uint8":
            small = cvcuda.convertto(small, cvcuda.Type.F32, 1 / 255, stream=stream)
            small = cvcuda.normalize(small, base, scale, cvcuda.NormalizeFlags.SCALE_IS_STDDEV, stream=stream)
            small = cvcuda.convertto(small, cvcuda.Type.F16, stream=stream)
            small = cvcuda.reformat(small, "NCHW", stream=stream)
        last[:] = [small]

    def fetch() -> np.ndarray:
        return _levels(board.get(last[0].cuda())[0], pixels)

    return Peer(run, fetch)


def _dali(board: Board, sources: Sequence[Any], picture: Size, size: Size, pixels: PixelFormat) -> Peer:
    """DALI has no operator for NV12, so it is given RGB: its conversion, two thirds of its bytes, is not counted."""
    from nvidia.dali import fn, pipeline_def, types

    height, width = picture
    count = sources[0].shape[0]
    format = SurfaceFormat(height, width, "nv12", Colour("smpte170m"))
    batches = []
    for source in sources:
        rgb = board.put(np.zeros((count, height, width, 3), np.uint8))
        whole = Resizer(None)
        surfaces = []
        for number in range(count):
            at = board.pointer(source) + number * height * width * 3 // 2
            surface = DeviceSurface(format, [at, at + height * width], [width, width])
            surfaces.append((surface, whole, board.target(rgb, number * height * width * 3)))
        board.resize(surfaces, PixelFormat())
        batches.append(rgb)
    board.synchronise()
    turn = iter(range(1 << 62))

    @pipeline_def(batch_size=count, num_threads=2, device_id=0, prefetch_queue_depth=2)
    def chain() -> Any:
        rgb = fn.external_source(
            source=lambda: batches[next(turn) % len(batches)], device="gpu", batch=True, layout="HWC", no_copy=True
        )
        small = fn.resize(
            rgb, size=list(size), interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=True, dtype=types.UINT8
        )
        if pixels.dtype == "uint8":
            return small
        return fn.crop_mirror_normalize(
            small,
            dtype=types.FLOAT16,
            output_layout="CHW",
            mean=[255 * each for each in pixels.mean],
            std=[255 * each for each in pixels.std],
        )

    pipeline = chain()
    pipeline.build()
    last: list[Any] = []

    def run(number: int) -> None:
        last[:] = pipeline.run()

    def fetch() -> np.ndarray:
        return _levels(np.asarray(last[0].as_cpu().at(0)), pixels)

    return Peer(run, fetch, "wall")
