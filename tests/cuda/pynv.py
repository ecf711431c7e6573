"""PyNvVideoCodec and CuPy as the adapter uses them, in host memory: names as in the real ones, libavcodec behind.

Decoders behave as the library's do: pictures lie in buffers that the next call writes again, and a new size is noticed
only as far as there.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from fakes import semiplanar

from gpupipe.decode.packets import packet_of

STREAM = 0x5EA
_DECODERS = {"H264": "h264", "HEVC": "hevc", "VP8": "vp8", "VP9": "vp9", "AV1": "libdav1d"}
_LAYOUTS = {
    ("420", 8): ("nv12", "NV12"), ("422", 8): ("nv16", "NV16"), ("444", 8): ("yuv444p", "YUV444"),
    ("420", 10): ("p010le", "P016"), ("422", 10): ("p210le", "P216"), ("444", 10): ("yuv444p10msble", "YUV444_16Bit"),
    ("444", 12): ("yuv444p12msble", "YUV444_16Bit"),
}  # fmt: skip
_SUBSAMPLING = {(1, 1): "420", (0, 1): "422", (0, 0): "444"}
_libc = ctypes.CDLL(None)


class PyNvVCException(Exception):
    """What the library raises."""


class PyNvVCExceptionUnsupported(Exception):
    """What the library raises for what the card does not do; no kind of the other."""


class PacketData:
    """As the library's."""

    def __init__(self) -> None:
        self.bsl_data = self.bsl = self.pts = self.decode_flag = 0


class Frame:
    """As the library's DecodedFrame."""

    def __init__(self, memory: np.ndarray, format: Any, shape: tuple[int, int], second: int, pts: int) -> None:
        self.format, self._pts = format, pts
        self._planes = [memory.ctypes.data, memory.ctypes.data + second]
        self._shape = shape

    def getPTS(self) -> int:
        return self._pts

    def cuda(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(shape=[*self._shape, 1])]

    def GetPtrToPlane(self, number: int) -> int:
        return self._planes[number]


class Library:
    """The module.

    Attributes
    ----------
    caps : dict
        What ``GetDecoderCaps`` answers.
    made, reconfigured : int
    errors : list of Exception or None
        Raised by the next calls of ``Decode``.
    """

    PyNvVCException = PyNvVCException
    PyNvVCExceptionUnsupported = PyNvVCExceptionUnsupported
    PacketData = PacketData
    cudaVideoCodec = enum.Enum("cudaVideoCodec", ["H264", "HEVC", "VP8", "VP9", "AV1"])
    cudaVideoChromaFormat = enum.Enum("cudaVideoChromaFormat", ["Monochrome", "420", "422", "444"])
    Pixel_Format = enum.Enum("Pixel_Format", ["NV12", "YUV444", "P016", "YUV444_16Bit", "NV16", "P216", "RGB", "RGBP"])
    DisplayDecodeLatencyType = enum.Enum("DisplayDecodeLatencyType", ["NATIVE", "LOW", "ZERO"])

    def __init__(self, version: str = "2.2.4") -> None:
        self.__version__ = version
        self.caps = {
            "supported": 1, "num_decoder_engines": 7, "width_max": 4096, "height_max": 4096,
            "width_min": 48, "height_min": 16, "mb_num_max": 65536,
        }  # fmt: skip
        self.made = self.reconfigured = 0
        self.errors: list[Exception | None] = []
        self.format: str | None = None
        self.apart = 0  # bytes between the planes that should not be there

    def GetDecoderCaps(self, *, gpuid: int, codec: Any, chromaformat: Any, bitdepth: int) -> dict[str, int]:
        assert isinstance(codec, self.cudaVideoCodec)
        assert isinstance(chromaformat, self.cudaVideoChromaFormat)
        return self.caps

    def CreateDecoder(
        self,
        *,
        gpuid: int,
        codec: Any,
        cudacontext: int,
        cudastream: int,
        usedevicememory: bool,
        maxwidth: int,
        maxheight: int,
        latency: Any,
    ) -> Decoder:
        assert (cudacontext, cudastream, usedevicememory) == (0, STREAM, True)
        assert latency is self.DisplayDecodeLatencyType.NATIVE
        self.made += 1
        return Decoder(self, codec, (maxheight, maxwidth))


class Decoder:
    """As the library's."""

    def __init__(self, library: Library, codec: Any, most: tuple[int, int]) -> None:
        self._library, self._name, self._most = library, _DECODERS[codec.name], most
        self._codec = self._fresh()
        self._coded: tuple[int, int] | None = None
        self._shown = self._target = (0, 0)
        self._resize: tuple[int, int] | None = None
        self._external = False
        self._buffers: list[np.ndarray] = []

    def setReconfigParams(self, width: int, height: int) -> int:
        assert height <= self._most[0]
        assert width <= self._most[1]
        self._library.reconfigured += 1
        self._external, self._resize = True, (height, width)
        return 1

    def Decode(self, data: PacketData) -> list[Frame]:
        if self._library.errors:
            error = self._library.errors.pop(0)
            if error is not None:
                raise error
        for buffer in self._buffers:
            buffer[:] = 0xA5
        packet = None
        if data.bsl:
            packet = packet_of(ctypes.string_at(data.bsl_data, data.bsl), data.pts)
            assert data.pts > 0
        frames = []
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError:
            _libc.printf(b"Decode Error occurred for picture %d\n", 7)
        if packet is None:
            self._codec = self._fresh()
        return [self._frame(number, frame) for number, frame in enumerate(frames)]

    def _fresh(self) -> Any:
        codec = av.CodecContext.create(self._name, "r")
        codec.thread_count = 1
        codec.options = {"strict": "strict", **({"err_detect": "explode"} if self._name == "hevc" else {})}
        return codec

    def _frame(self, number: int, frame: av.VideoFrame) -> Frame:
        if frame.is_corrupt:
            _libc.printf(b"Decode Error occurred for picture %d\n", number)
        components = frame.format.components
        down = components[1].height < frame.height, components[1].width < frame.width
        layout, format = _LAYOUTS[_SUBSAMPLING[int(down[0]), int(down[1])], components[0].bits]
        right = self._sequence((frame.height, frame.width))
        planes = semiplanar(frame, layout)
        whole = np.concatenate([plane.reshape(-1) for plane in planes])
        while len(self._buffers) <= number or len(self._buffers[number]) < len(whole):
            self._buffers[number:] = [np.empty(len(whole), np.uint8)]
        memory = self._buffers[number]
        memory[: len(whole)] = whole if right else 0x5A
        kind = self._library.Pixel_Format[self._library.format or format]
        return Frame(memory, kind, self._shown, planes[0].size + self._library.apart, frame.pts)

    def _sequence(self, size: tuple[int, int]) -> bool:
        """Follow a picture's size as the library does; False where its pictures come out scaled."""
        coded = (-(-size[0] // 16) * 16, -(-size[1] // 16) * 16)
        if self._coded is None:
            self._target, self._shown = self._resize or coded, self._resize or size
        elif coded != self._coded:
            if self._external:
                self._target, self._shown = self._resize or coded, self._resize or size
                self._external = False
        elif size != self._shown:
            self._shown = size
        self._coded = coded
        return self._target in (coded, size)


class Memory:
    """As CuPy's MemoryPointer."""

    def __init__(self, nbytes: int) -> None:
        self._memory = np.empty(nbytes, np.uint8)
        self.ptr = self._memory.ctypes.data


def cupy() -> SimpleNamespace:
    """As CuPy; ``cuda.alloc`` may be replaced."""

    @contextmanager
    def current(number: int) -> Iterator[None]:
        yield

    def copy(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        assert stream == STREAM
        assert kind in (2, 3)
        ctypes.memmove(target, source, nbytes)

    runtime = SimpleNamespace(
        memcpyAsync=copy, memcpyDeviceToHost=2, memcpyDeviceToDevice=3, streamSynchronize=lambda stream: None
    )
    cuda = SimpleNamespace(Device=current, ExternalStream=current, alloc=Memory, runtime=runtime)
    return SimpleNamespace(cuda=cuda)
