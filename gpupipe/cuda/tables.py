"""What the kernel of ``csrc/frames.cu`` reads, laid out: plans with their tables, pictures, tiles. NumPy alone.

A :class:`KernelPlan` is made once per surface format and resize; :func:`prepare` lays a launch out from plans by
copying their templates, microseconds a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe import _native
from gpupipe.cuda.pixels import PixelFormat
from gpupipe.errors import InputError, UnsupportedError
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface, SurfaceFormat

THREADS = 128
"""Threads of a block at most, and strips of a tile; ``kThreads``."""

_STRIP = 16
_PLANES = 3
_PLAIN, _PLANAR, _INTERLEAVED = range(3)
_COLUMNS = 2 * THREADS  # outputs of a tile at most

_ints = np.dtype("<i4")
TILE = np.dtype([("picture", _ints), ("columns", _ints), ("begin", _ints), ("end", _ints)])
ROW_PLAN = np.dtype(
    [(name, _ints) for name in ("rows", "row_bytes", "rolling", "layout", "pairs", "begin", "last", "weights")]
)
CHANNEL_PLAN = np.dtype([(name, _ints) for name in ("plane", "offset", "step", "pairs", "begin", "weights")])
COLUMN_TILE = np.dtype(
    [("begin", _ints), ("end", _ints), ("plane", [("first", _ints), ("count", _ints), ("slot", _ints)], _PLANES)]
)
PLAN = np.dtype(
    [
        *((name, _ints) for name in ("height", "width", "planes", "channels", "wide", "shift", "depth")),
        ("mask", "<u4"),
        ("apart", _ints),
        ("tiles", _ints),
        ("colour", _ints, (3, 3)),
        ("bias", _ints, 3),
        ("plane", ROW_PLAN, _PLANES),
        ("channel", CHANNEL_PLAN, _PLANES),
    ]
)
PICTURE = np.dtype(
    [
        ("plan", "<u8"),
        ("plane", "<u8", _PLANES),
        ("out", "<u8"),
        ("levels", "<u8"),
        ("origin", "<i8"),
        ("channel", "<i8"),
        ("row", _ints),
        ("column", _ints),
        ("pitch", _ints, _PLANES),
        ("element", _ints),
    ]
)


@dataclass(frozen=True)
class Axis:
    """Filter weights of one axis: output ``o`` is the sum of ``weights[o, t] * sample[start[o] + t]``.

    Attributes
    ----------
    start, count : ndarray
        int64 ``[outputs]``.
    weights : ndarray
        uint16 ``[outputs, taps]``; zero from ``count`` on.
    """

    start: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    weights: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, begin: int, end: int, outputs: int, log2_subsampling: int, siting: int) -> Axis:
        """The weights of ``csrc/axis.h``."""
        start, count, weights, taps = _native.axis_tables(
            begin=begin, end=end, outputs=outputs, log2_subsampling=log2_subsampling, siting=siting
        )
        return cls(
            np.frombuffer(start, np.int32).astype(np.int64),
            np.frombuffer(count, np.int32).astype(np.int64),
            np.frombuffer(weights, np.uint16).reshape(outputs, taps),
        )

    def paired(self, first: npt.NDArray[np.int64], pairs: int) -> npt.NDArray[np.uint32]:
        """Weights two by two from sample ``first[o]`` on, uint32 ``[outputs, pairs]``, the earlier one low."""
        outputs, taps = self.weights.shape
        lead = self.start - first
        room = np.zeros((outputs, 2 * pairs + taps), np.uint16)
        room[np.arange(outputs)[:, None], lead[:, None] + np.arange(taps)] = self.weights
        return np.ascontiguousarray(room[:, : 2 * pairs]).view(np.uint32)


class KernelPlan:
    """One resize of one surface format, as the kernel reads it. Immutable.

    Parameters
    ----------
    format : SurfaceFormat
    resizer : Resizer

    Attributes
    ----------
    blob : ndarray
        uint8: a ``PLAN`` and its tables, position-independent; lies in device memory, 16-byte aligned.
    threads : int
        Of a block: as many as its widest tile has strips, in whole warps.

    Raises
    ------
    UnsupportedError, InputError
        As :meth:`gpupipe.transform.Resizer.resize`.
    """

    def __init__(self, format: SurfaceFormat, resizer: Resizer) -> None:
        given = resizer.plan(format).given
        self._format = format
        self._rotation: int = given["rotation"]
        self._mirrored: bool = given["mirrored"]
        self._height: int = given["out"][0]
        self._width: int = given["out"][1]
        self._tiles: dict[int, bytes] = {}
        self._planes: list[tuple[int, int, int]] = []  # index, rows, bytes a row
        tables = _Tables(given)
        self._planes = tables.planes
        self._column_tiles = tables.column_tiles
        self.threads = tables.threads
        self.blob = tables.blob

    def tiles(self, rows: int) -> bytes:
        """The tiles of a picture, as ``TILE``, of so many output rows each; of picture 0. Kept."""
        found = self._tiles.get(rows)
        if found is None:
            begins = np.arange(0, self._height, rows, dtype=np.int32)
            tiles = np.zeros((len(begins), self._column_tiles), TILE)
            tiles["columns"] = np.arange(self._column_tiles)
            tiles["begin"] = begins[:, None]
            tiles["end"] = np.minimum(begins + rows, self._height)[:, None]
            found = self._tiles[rows] = tiles.tobytes()
        return found

    def picture(self, pixels: PixelFormat) -> npt.NDArray[Any]:
        """A picture of this plan, ``PICTURE``, without its addresses."""
        picture = np.zeros((), PICTURE)
        height, width = self._height, self._width
        pixel = 1 if pixels.channels_first else 3
        # As place() in csrc/plane.h, in elements.
        pitch = pixel * (height if self._rotation in (90, 270) else width)
        origin, row, column = {
            0: (0, pitch, pixel),
            90: (pixel * (height - 1), -pixel, pitch),
            180: (pitch * (height - 1) + pixel * (width - 1), -pitch, -pixel),
            270: (pitch * (width - 1), pixel, -pitch),
        }[self._rotation]
        if self._mirrored:
            origin, column = origin + column * (width - 1), -column
        picture["origin"], picture["row"], picture["column"] = origin, row, column
        picture["channel"] = height * width if pixels.channels_first else 1
        picture["element"] = pixels.element_nbytes
        return picture

    def addresses(self, surface: DeviceSurface) -> tuple[list[int], list[int]]:
        """Pointers and pitches of the planes that are read, in the plan's order.

        Raises
        ------
        InputError
            A plane is missing, or its rows are shorter than the format says.
        UnsupportedError
            A stride of two gigabytes or more.
        """
        pointers, pitches = [0] * _PLANES, [0] * _PLANES
        for place, (index, rows, row_bytes) in enumerate(self._planes):
            if index >= len(surface.pointers) or index >= len(surface.strides):
                raise InputError(
                    f"{self._where()}: {min(len(surface.pointers), len(surface.strides))} planes, expected {index + 1}"
                )
            pitch = surface.strides[index]
            if pitch < row_bytes and rows > 1:
                raise InputError(
                    f"{self._where()}: plane {index} has a stride of {pitch} bytes, its rows are {row_bytes}"
                )
            if not -(1 << 31) <= pitch < 1 << 31:
                raise UnsupportedError(
                    f"{self._where()}: plane {index} has a stride of {pitch} bytes, expected 31 bits"
                )
            pointers[place], pitches[place] = surface.pointers[index], pitch
        return pointers, pitches

    @property
    def elements(self) -> int:
        """Of the output."""
        return 3 * self._height * self._width

    def _where(self) -> str:
        return f"surface {self._format.layout} {self._format.height}x{self._format.width}"


@dataclass(frozen=True)
class PlacedPlan:
    """A plan with the addresses that a launch needs of it.

    Attributes
    ----------
    plan : KernelPlan
    pointer : int
        Device address of the plan's blob.
    pixels : PixelFormat
    levels : int
        Device address of :func:`gpupipe.cuda.pixels.level_bits`; 0 for uint8.
    owner : object
        Keeps both allocated.
    """

    plan: KernelPlan
    pointer: int
    pixels: PixelFormat = field(default_factory=PixelFormat)
    levels: int = 0
    owner: object = None
    template: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        picture = self.plan.picture(self.pixels)
        picture["plan"], picture["levels"] = self.pointer, self.levels
        object.__setattr__(self, "template", picture.tobytes())


@dataclass(frozen=True)
class Launch:
    """What one launch is told.

    Attributes
    ----------
    tiles : ndarray
        ``TILE``, one a block.
    pictures : ndarray
        ``PICTURE``.
    threads : int
        Of a block.
    """

    tiles: npt.NDArray[Any]
    pictures: npt.NDArray[Any]
    threads: int


def prepare(pictures: Sequence[tuple[PlacedPlan, DeviceSurface, int]], rows: int) -> Launch:
    """Lay one launch out.

    Parameters
    ----------
    pictures : sequence of (PlacedPlan, DeviceSurface, int)
        The int is the device address of the output.
    rows : int
        Output rows of a tile: few make many blocks, many read less of the source twice.

    Raises
    ------
    InputError
        As :meth:`KernelPlan.addresses`.
    """
    templates, pointers, pitches, outputs, tiles, counts = [], [], [], [], [], []
    threads = 0
    for placed, surface, out in pictures:
        plan = placed.plan
        templates.append(placed.template)
        planes, strides = plan.addresses(surface)
        pointers.append(planes)
        pitches.append(strides)
        outputs.append(out)
        template = plan.tiles(rows)
        tiles.append(template)
        counts.append(len(template) // TILE.itemsize)
        threads = max(threads, plan.threads)
    records = np.frombuffer(bytearray().join(templates), PICTURE)
    records["plane"] = np.array(pointers, np.uint64)
    records["pitch"] = pitches
    records["out"] = np.array(outputs, np.uint64)
    launch = np.frombuffer(bytearray().join(tiles), TILE)  # bytes: NumPy takes ten times as long for its records
    launch["picture"] = np.repeat(np.arange(len(pictures), dtype=np.int32), counts)
    return Launch(launch, records, threads)


class _Tables:
    """The making of a plan's blob."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._parts: list[npt.NDArray[np.int32]] = []
        self._end = PLAN.itemsize // 4
        height, width = given["size"]
        top, left, bottom, right = given["crop"]
        out_height, out_width = given["out"]
        word_bytes, shift, depth = given["sample"]
        plan = np.zeros((), PLAN)
        plan["height"], plan["width"] = out_height, out_width
        plan["wide"], plan["shift"], plan["depth"] = word_bytes == 2, shift, depth
        plan["mask"] = (((1 << depth) - 1) << shift) * 0x10001 if word_bytes == 2 else 0xFFFFFFFF
        plan["channels"] = len(given["components"])
        for index, (coefficients, bias) in enumerate(given["colour"]):
            plan["colour"][index], plan["bias"][index] = coefficients, bias

        self.planes: list[tuple[int, int, int]] = []
        by_plane: dict[int, list[tuple[int, int, int, bool]]] = {}  # channel, offset, step, chroma
        for index, (plane, offset, step, chroma) in enumerate(given["components"]):
            by_plane.setdefault(plane, []).append((index, offset, step, bool(chroma)))
        first_words = np.zeros((_PLANES, out_width), np.int64)  # by plane and column: words from .. to
        end_words = np.zeros((_PLANES, out_width), np.int64)
        columns: dict[tuple[int, int], tuple[int, int, int, npt.NDArray[np.int64]]] = {}
        for place, (plane_index, channels) in enumerate(by_plane.items()):
            log2_y = given["subsampling"][0] if channels[0][3] else 0
            rows = _samples(height, log2_y)
            record = plan["plane"][place]
            axis = Axis.of(top, bottom, out_height, log2_y, given["siting"][0] if log2_y else 0)
            self._row_table(record, axis, rolling=bottom - top >= out_height << log2_y)
            row_words = 0
            lows, highs = [], []
            for index, offset, step, chroma in channels:
                log2 = given["subsampling"][1] if chroma else 0
                samples = _samples(width, log2)
                row_words = max(row_words, offset + (samples - 1) * step + 1)
                siting = given["siting"][1] if log2 else 0
                if (log2, siting) not in columns:
                    columns[log2, siting] = self._column_table(Axis.of(left, right, out_width, log2, siting), samples)
                begin_at, weights_at, pairs, first = columns[log2, siting]
                plan["channel"][index] = (place, offset, step, pairs, begin_at, weights_at)
                lows.append(offset + 2 * first * step)
                highs.append(offset + (2 * (first + pairs) - 1) * step + 1)
            record["rows"], record["row_bytes"] = rows, row_words * word_bytes
            record["layout"] = _layout([(offset, step) for _, offset, step, _ in channels])
            first_words[place], end_words[place] = np.min(lows, 0), np.max(highs, 0)
            self.planes.append((plane_index, rows, row_words * word_bytes))
        plan["planes"] = len(by_plane)

        strip_words = _STRIP // word_bytes
        first_strips, end_strips = first_words // strip_words, -(-end_words // strip_words)
        splits = _split(first_strips, end_strips)
        if splits is None:
            plan["apart"] = 1
            self.column_tiles, self.threads = out_width, THREADS
        else:
            begins, ends = splits[:-1], splits[1:]
            tiles = np.zeros(len(begins), COLUMN_TILE)
            tiles["begin"], tiles["end"] = begins, ends
            first = first_strips[:, begins].T
            count = end_strips[:, ends - 1].T - first
            tiles["plane"]["first"], tiles["plane"]["count"] = first, count
            tiles["plane"]["slot"] = (np.cumsum(count, 1) - count) * (strip_words // 2)
            plan["tiles"] = self._add(tiles.view(np.int32).reshape(-1))
            self.column_tiles = len(tiles)
            self.threads = int(-(-count.sum(1).max() // 32) * 32)
        self.blob = np.concatenate([plan.reshape(1).view(np.uint8), *(part.view(np.uint8) for part in self._parts)])

    def _add(self, table: npt.NDArray[Any]) -> int:
        part = np.ascontiguousarray(table).reshape(-1)
        part = part.astype(np.int32) if part.dtype == np.int64 else part.view(np.int32)
        self._parts.append(part)
        self._end += len(part)
        return self._end - len(part)

    def _row_table(self, record: npt.NDArray[Any], axis: Axis, rolling: bool) -> None:
        first = axis.start // 2 * 2 if rolling else axis.start
        end = axis.start + axis.count
        pairs = int((-((first - end) // 2)).max())
        record["rolling"], record["pairs"] = rolling, pairs
        record["begin"] = self._add(first)
        record["last"] = self._add((end - 1) // 2)
        record["weights"] = self._add(axis.paired(first, pairs))

    def _column_table(self, axis: Axis, samples: int) -> tuple[int, int, int, npt.NDArray[np.int64]]:
        first = axis.start // 2
        pairs = int(((axis.start + axis.count - 1) // 2 - first + 1).max())
        first = np.minimum(first, (samples + 1) // 2 - pairs)  # weights of zero in front: no pair after the last
        weights = axis.paired(2 * first, pairs)
        return self._add(first), self._add(weights.T), pairs, first


def _samples(luma: int, log2: int) -> int:
    return -(-luma >> log2)


def _layout(channels: list[tuple[int, int]]) -> int:
    """How a plane's samples lie between the passes; channels are (offset, step)."""
    if channels == [(0, 1)]:
        return _PLANAR
    if all(step == 2 and offset < 2 for offset, step in channels):
        return _INTERLEAVED
    return _PLAIN


def _split(first: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Borders of column ranges, about equal, whose strips fit a block; None where one column's do not.

    Parameters
    ----------
    first, end : ndarray
        Strips by plane and column, int64 ``[planes, columns]``.
    """
    outputs = first.shape[1]
    if (end - first).sum(0).max() > THREADS:
        return None
    whole = int((end[:, -1] - first[:, 0]).sum())
    parts = max(-(-whole // THREADS), -(-outputs // _COLUMNS))
    while parts < outputs:
        splits: npt.NDArray[np.int64] = np.arange(parts + 1) * outputs // parts
        if (end[:, splits[1:] - 1] - first[:, splits[:-1]]).sum(0).max() <= THREADS:
            return splits
        parts += max(1, parts // 16)
    return np.arange(outputs + 1)
