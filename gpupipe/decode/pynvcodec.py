"""NVIDIA's video engines, through PyNvVideoCodec 2.2.4 or later.

Of the library it is known, from its sources as far as they are public, that a decoder writes the pictures of one call
into buffers that the next call writes again, in the order of the CUDA stream it was given; that its buffers follow a
change of the coded size only after ``setReconfigParams``, and a change of the shown part alone not at all; and that it
releases the GIL while it decodes. So pictures are copied out (on the card, 0.01 ms), and a decoder is made anew where
only the shown part may have changed.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpupipe.decode.complaints import Complaints, complaints
from gpupipe.decode.packets import Packet
from gpupipe.decode.session import Capability, Picture, Session, StreamKind, VideoEngine
from gpupipe.errors import (
    DecodeError,
    DeviceLostError,
    DeviceMemoryError,
    GpupipeError,
    UnsupportedError,
    UsageError,
)
from gpupipe.types import DeviceSurface, Surface, SurfaceFormat

LEAST_VERSION = (2, 2, 4)

_CODECS = {"h264": "H264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1"}
_FORMATS = {
    ("420", 1): "NV12", ("422", 1): "NV16", ("444", 1): "YUV444",
    ("420", 2): "P016", ("422", 2): "P216", ("444", 2): "YUV444_16Bit",
}  # fmt: skip
_LAYOUTS = {
    ("420", 8): "nv12", ("422", 8): "nv16", ("444", 8): "yuv444p",
    ("420", 10): "p010le", ("422", 10): "p210le", ("444", 10): "yuv444p10msble",
    ("420", 12): "p012le", ("422", 12): "p212le", ("444", 12): "yuv444p12msble",
}  # fmt: skip
_CELL = 64  # coded sizes are those shown, rounded up to no more than this
_EARLY = 1 << 32  # timestamps are fed as their distance from the first, from here on: the parser knows no negative ones

# CUresult and cudaError: https://docs.nvidia.com/cuda/cuda-driver-api (CUDA_ERROR_*)
_MEMORY_CODES = {2}
_LOST_CODES = {
    4,
    46,
    100,
    101,
    201,
    214,
    219,
    220,
    226,
    304,
    700,
    702,
    708,
    709,
    710,
    714,
    717,
    718,
    719,
    720,
    721,
    999,
}
_MEMORY_WORDS = re.compile(r"out.?of.?memory", re.IGNORECASE)
_LOST_WORDS = re.compile(
    r"DEINITIALIZED|DEVICE_UNAVAILABLE|NO_DEVICE|INVALID_CONTEXT|ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE|ILLEGAL_ADDRESS"
    r"|LAUNCH_FAILED|LAUNCH_TIMEOUT|CONTEXT_IS_DESTROYED|HARDWARE_STACK|ILLEGAL_INSTRUCTION|ERROR_UNKNOWN"
)
_CODE = re.compile(r"(?:returned error|error with code|error code)\D{0,3}(\d+)", re.IGNORECASE)


class PyNvEngine(VideoEngine):
    """The video decoders of one card.

    Parameters
    ----------
    number : int
        Among the devices that this process sees.
    stream : int
        Address of a CUDA stream of that device's primary context, not the default one: with that the library would
        wait for every picture. Pictures are ready for work that is enqueued there.

    Raises
    ------
    UsageError
        The library or the driver is missing; the message says what to install.
    """

    def __init__(self, number: int, stream: int) -> None:
        self.name = f"cuda:{number}"
        self.number, self.stream = number, stream
        self.codec, self.cupy = _libraries()
        self.complaints: Complaints = complaints()
        self._caps = threading.Lock()

    def capability(self, kind: StreamKind) -> Capability | None:
        """As the driver says; costs the library a context of its own, so that it is asked by one thread at a time.

        The library of 2.1 asks the first device whatever its number is: workers see only their own.
        """
        if kind.codec not in _CODECS or (kind.chroma, kind.depth) not in _LAYOUTS:
            return None
        with self._caps, self.errors(f"the capabilities of {kind.codec}"):
            caps = self.codec.GetDecoderCaps(
                gpuid=self.number,
                codec=getattr(self.codec.cudaVideoCodec, _CODECS[kind.codec]),
                chromaformat=getattr(self.codec.cudaVideoChromaFormat, kind.chroma),
                bitdepth=kind.depth,
            )
        if not caps["supported"]:
            return None
        return Capability(
            max(1, caps["num_decoder_engines"]),
            caps["height_min"],
            caps["width_min"],
            caps["height_max"],
            caps["width_max"],
            caps["mb_num_max"],
        )

    def session(self, kind: StreamKind, max_height: int, max_width: int) -> PyNvSession:
        """Make a decoder; the driver makes its part when the first packet comes."""
        return PyNvSession(self, kind, max_height, max_width)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn what the libraries raise into the package's errors."""
        library = self.codec
        try:
            yield
        except GpupipeError:
            raise
        except (library.PyNvVCException, library.PyNvVCExceptionUnsupported, RuntimeError, MemoryError) as error:
            words = f"{self.name}: {what}: {' '.join(str(error).split()) or type(error).__name__}"
            raise _kind_of(error, library)(words) from error


class PyNvSession(Session):
    """One decoder of the library."""

    def __init__(self, engine: PyNvEngine, kind: StreamKind, max_height: int, max_width: int) -> None:
        self.kind, self.max_height, self.max_width = kind, max_height, max_width
        self._engine = engine
        self._word_bytes = 1 if kind.depth == 8 else 2
        self._format = getattr(engine.codec.Pixel_Format, _FORMATS[kind.chroma, self._word_bytes])
        self._packet = engine.codec.PacketData()
        self._end = engine.codec.PacketData()  # without bytes: the end of the stream
        self._size: tuple[int, int] | None = None
        self._fed = False  # anything since the end
        self._base: int | None = None
        self._last = 0
        self._heard = 0
        self._decoder = self._made()

    def begin(self, height: int, width: int) -> None:
        """Reconfigure the decoder, or make it anew where the library would not notice."""
        if self.kind.chroma != "444" and (width % 2 or (self.kind.chroma == "420" and height % 2)):
            raise UnsupportedError(
                f"{self._engine.name}: pictures of odd size, {height}x{width}, are not handed out whole"
            )
        if self._fed:
            self._decoded(self._end, "the end")
            self._fed = False
        size = (height, width)
        if self._size is not None:
            if self._size != size and _cells(self._size) == _cells(size):
                self._decoder = None  # before there is another: its memory
                self._decoder = self._made()
            else:
                with self._engine.errors("a new size"):
                    self._decoder.setReconfigParams(width, height)
        self._size = size
        self._base = None
        self._heard = self._engine.complaints.count()

    def feed(self, packet: Packet) -> Sequence[Picture]:
        """Decode one packet."""
        if packet.pts is not None:
            if self._base is None:
                self._base = packet.pts - _EARLY
            self._last = packet.pts - self._base
        data = self._packet
        data.bsl_data, data.bsl, data.pts = packet.buffer_ptr, packet.size, self._last
        self._fed = True
        return self._out(self._decoded(data, "a packet"))

    def drain(self) -> Sequence[Picture]:
        """Feed the end of the stream."""
        self._fed = False
        return self._out(self._decoded(self._end, "the end"))

    def damaged(self) -> bool:
        """True if the library told of damage, in whichever decoder, since this one began."""
        return self._engine.complaints.count() != self._heard

    def close(self) -> None:
        """Destroy the decoder."""
        self._decoder = None

    def _made(self) -> Any:
        library = self._engine.codec
        with self._engine.errors("a new decoder"):
            return library.CreateDecoder(
                gpuid=self._engine.number,
                codec=getattr(library.cudaVideoCodec, _CODECS[self.kind.codec]),
                cudacontext=0,  # the device's primary one, which is CuPy's too
                cudastream=self._engine.stream,
                usedevicememory=True,
                maxwidth=self.max_width,
                maxheight=self.max_height,
                # Order of presentation. LOW would wait for every picture before the next packet is taken.
                latency=library.DisplayDecodeLatencyType.NATIVE,
            )

    def _decoded(self, data: Any, what: str) -> Sequence[Any]:
        with self._engine.errors(what):
            frames: Sequence[Any] = self._decoder.Decode(data)
            return frames

    def _out(self, frames: Sequence[Any]) -> list[Picture]:
        pictures: list[Picture] = []
        try:
            for frame in frames:
                pictures.append(self._copied(frame))
        except BaseException:
            for picture in pictures:
                picture.release()
            raise
        return pictures

    def _copied(self, frame: Any) -> PyNvPicture:
        """The frame in memory of its own, copied in the order of the stream."""
        assert self._size is not None
        assert self._base is not None, "pictures come of packets with timestamps"
        height, width = self._size
        if frame.format != self._format:
            raise UnsupportedError(f"{self._engine.name}: pictures come as {frame.format}, expected {self._format}")
        shape = tuple(frame.cuda()[0].shape[:2])
        if shape != self._size:
            raise DecodeError(f"{self._engine.name}: a picture of {shape} (height, width), expected {self._size}")
        stride = width * self._word_bytes
        rows = {"420": (height, height // 2), "422": (height, height), "444": (height,) * 3}[self.kind.chroma]
        source = int(frame.GetPtrToPlane(0))
        if int(frame.GetPtrToPlane(1)) != source + stride * height:
            raise DecodeError(f"{self._engine.name}: the planes of a picture do not lie one behind the other")
        return PyNvPicture(self._engine, source, self._format_of(), rows, stride, frame.getPTS() + self._base)

    def _format_of(self) -> SurfaceFormat:
        assert self._size is not None
        return SurfaceFormat(*self._size, _LAYOUTS[self.kind.chroma, self.kind.depth])


class PyNvPicture(Picture):
    """A copy of a frame, in CuPy's memory."""

    def __init__(
        self, engine: PyNvEngine, source: int, format: SurfaceFormat, rows: Sequence[int], stride: int, pts: int
    ) -> None:
        cuda = engine.cupy.cuda
        self._engine, self._rows = engine, rows
        nbytes = stride * sum(rows)
        with engine.errors("memory for a picture"), cuda.Device(engine.number):
            with cuda.ExternalStream(engine.stream):  # what CuPy frees here it gives out again only here, in order
                self._memory: Any = cuda.alloc(nbytes)
            runtime = cuda.runtime
            runtime.memcpyAsync(self._memory.ptr, source, nbytes, runtime.memcpyDeviceToDevice, engine.stream)
        starts = [stride * sum(rows[:number]) for number in range(len(rows))]
        pointers = [self._memory.ptr + start for start in starts]
        self.pts = pts
        self.surface = DeviceSurface(format, pointers, [stride] * len(rows), pts, self)

    def to_host(self) -> Surface:
        """Copy it to the host, behind what is enqueued on the stream."""
        engine, stride = self._engine, self.surface.strides[0]
        whole = np.empty(stride * sum(self._rows), np.uint8)
        with engine.errors("a copy to the host"), engine.cupy.cuda.Device(engine.number):
            runtime = engine.cupy.cuda.runtime
            runtime.memcpyAsync(
                whole.ctypes.data, self._memory.ptr, whole.nbytes, runtime.memcpyDeviceToHost, engine.stream
            )
            runtime.streamSynchronize(engine.stream)
        planes, at = [], 0
        for rows in self._rows:
            planes.append(whole[at : at + rows * stride])
            at += rows * stride
        return Surface(self.surface.format, planes, self.surface.strides, self.pts)

    def release(self) -> None:
        """Give the memory back to CuPy."""
        self._memory = None


def _cells(size: tuple[int, int]) -> tuple[int, int]:
    """Sizes that differ here differ as coded, too."""
    return -(-size[0] // _CELL), -(-size[1] // _CELL)


def _kind_of(error: Exception, library: Any) -> type[GpupipeError]:
    words = str(error)
    codes = {int(code) for code in _CODE.findall(words)}
    codes |= {int(status) for status in (getattr(error, "status", None),) if isinstance(status, int)}
    if isinstance(error, MemoryError) or codes & _MEMORY_CODES or _MEMORY_WORDS.search(words):
        return DeviceMemoryError
    if codes & _LOST_CODES or _LOST_WORDS.search(words):
        return DeviceLostError
    return UnsupportedError if isinstance(error, library.PyNvVCExceptionUnsupported) else DecodeError


def _libraries() -> tuple[Any, Any]:
    """PyNvVideoCodec and CuPy; raises :class:`UsageError` where one is missing."""
    loaded = []
    for name, package in (("PyNvVideoCodec", "PyNvVideoCodec"), ("cupy", "CuPy")):
        try:
            loaded.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            raise UsageError(
                f"backend 'nvdec' needs {package}: {error}. Install gpupipe[cu12] or gpupipe[cu13], whichever the "
                "driver takes, or use --backend ffmpeg"
            ) from error
        except (ImportError, RuntimeError, OSError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"backend 'nvdec': {package} is installed and does not load: {first}. It needs NVIDIA's driver with "
                "its video libraries (in a container NVIDIA_DRIVER_CAPABILITIES=compute,video,utility); "
                "or use --backend ffmpeg"
            ) from error
    library, cupy = loaded
    version = str(getattr(library, "__version__", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise UsageError(f"backend 'nvdec' needs PyNvVideoCodec {least} or later; {version} is installed. Upgrade it")
    return library, cupy
