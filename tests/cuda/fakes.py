"""A video engine without a card: libavcodec decodes, pictures lie in host memory at real addresses, trouble on demand.

What hardware does is done likewise: sessions know nothing but the packets they were fed (parameter sets must be among
them), pictures are pitched and semi-planar, and memory that was given back is scribbled over, so that whoever reads
it too late reads nonsense.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags

from gpupipe.decode.packets import Packet
from gpupipe.decode.session import Capability, Picture, Session, StreamKind, VideoEngine
from gpupipe.errors import DecodeError, DeviceLostError, DeviceMemoryError
from gpupipe.layouts import layout_of
from gpupipe.types import DeviceSurface, Surface, SurfaceFormat

PITCH = 256
"""Bytes to which the engine pads a row."""

_DECODERS = {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}
_LAYOUTS = {
    ("420", 8): "nv12", ("422", 8): "nv16", ("444", 8): "yuv444p",
    ("420", 10): "p010le", ("422", 10): "p210le", ("444", 10): "yuv444p10msble",
    ("420", 12): "p012le", ("422", 12): "p212le", ("444", 12): "yuv444p12msble",
}  # fmt: skip
_SCRIBBLE = 0xA5


@dataclass
class Trouble:
    """What goes wrong; packets are counted over all sessions of an engine, from 0.

    Attributes
    ----------
    refuse : set of int
        Packets that raise :class:`DecodeError`.
    starve : set of int
        Packets that raise :class:`DeviceMemoryError`.
    lose : int or None
        Packet at which the device is lost, for good.
    drop : set of int
        Packets that are not decoded at all, without a word.
    conceal : set of int
        Packets whose pictures come out wrong; `reported` says whether ``damaged`` tells.
    reported : bool
        False: no damage is ever told of.
    reorder : bool
        Pictures come in pairs, the later first.
    twice : set of int
        Numbers of pictures, counted as they come out, that come twice.
    unmade : int
        So many of the next sessions cannot be made (:class:`DecodeError`).
    begins : int
        So many of the next begins find no memory.
    """

    refuse: set[int] = field(default_factory=set)
    starve: set[int] = field(default_factory=set)
    lose: int | None = None
    drop: set[int] = field(default_factory=set)
    conceal: set[int] = field(default_factory=set)
    reported: bool = True
    reorder: bool = False
    twice: set[int] = field(default_factory=set)
    unmade: int = 0
    begins: int = 0


class FakeEngine(VideoEngine):
    """A card's decoders.

    Parameters
    ----------
    engines : int
        Units, of every kind.
    most_sessions : int, optional
        Sessions that its memory holds.
    most_pictures : int, optional
        Pictures not given back that its memory holds.
    max_side : int
        Of a picture.
    kinds : callable of StreamKind, optional
        Says which kinds it decodes; default those whose pictures have a layout.
    delay : int
        Pictures that a session holds back beyond what their order needs.
    trouble : Trouble, optional

    Attributes
    ----------
    made, closed, begun, fed, shown : int
        Sessions made and closed, begins, packets and pictures over all sessions.
    live : int
        Pictures not given back.
    open : list of FakeSession
    busy, busiest : int
        Sessions that are being fed, and the most that ever were at a time.
    """

    name = "cuda:0"

    def __init__(
        self,
        engines: int = 2,
        *,
        most_sessions: int | None = None,
        most_pictures: int | None = None,
        max_side: int = 8192,
        kinds: Callable[[StreamKind], bool] | None = None,
        delay: int = 0,
        trouble: Trouble | None = None,
    ) -> None:
        self.engines, self.max_side, self.delay = engines, max_side, delay
        self.most_sessions, self.most_pictures = most_sessions, most_pictures
        self.kinds = kinds or (lambda kind: (kind.chroma, kind.depth) in _LAYOUTS)
        self.trouble = trouble or Trouble()
        self.made = self.closed = self.begun = self.fed = self.shown = self.live = self.busy = self.busiest = 0
        self.lost = False
        self.open: list[FakeSession] = []
        self.lock = threading.Lock()
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def capability(self, kind: StreamKind) -> Capability | None:
        """The same for every kind that it decodes."""
        if kind.codec not in _DECODERS or not self.kinds(kind):
            return None
        return Capability(self.engines, 16, 16, self.max_side, self.max_side, self.max_side**2 // 256)

    def session(self, kind: StreamKind, max_height: int, max_width: int) -> FakeSession:
        """Make one."""
        with self.lock:
            self.mind()
            if self.trouble.unmade:
                self.trouble.unmade -= 1
                raise DecodeError("the card refuses a decoder")
            if self.most_sessions is not None and len(self.open) >= self.most_sessions:
                raise DeviceMemoryError(f"no memory for a decoder beside {len(self.open)}")
            made = FakeSession(self, kind, max_height, max_width)
            self.made += 1
            self.open.append(made)
            return made

    def mind(self) -> None:
        """Raise if the device is lost."""
        if self.lost:
            raise DeviceLostError("the device is lost")

    def taken(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Memory for a picture."""
        with self.lock:
            if self.most_pictures is not None and self.live >= self.most_pictures:
                raise DeviceMemoryError(f"no memory for a picture beside {self.live}")
            self.live += 1
            free = self._free.setdefault(nbytes, [])
            return free.pop() if free else np.empty(nbytes, np.uint8)

    def given(self, memory: npt.NDArray[np.uint8]) -> None:
        """Take a picture's memory back."""
        memory[:] = _SCRIBBLE
        with self.lock:
            self.live -= 1
            self._free[len(memory)].append(memory)


class FakeSession(Session):
    """One decoder."""

    def __init__(self, engine: FakeEngine, kind: StreamKind, max_height: int, max_width: int) -> None:
        self.engine, self.kind, self.max_height, self.max_width = engine, kind, max_height, max_width
        self._codec: Any = None
        self._damaged = self._ended = self._closed = False
        self._entries = 0  # of H.265, that were fed
        self._held: list[Picture] = []
        self._wrong: set[int | None] = set()
        self._using = threading.Lock()

    def begin(self, height: int, width: int) -> None:
        """A new codec, without any header."""
        with self.engine.lock:
            self.engine.mind()
            self.engine.begun += 1
            if self.engine.trouble.begins:
                self.engine.trouble.begins -= 1
                raise DeviceMemoryError("no memory to begin")
        assert not self._closed
        assert height <= self.max_height
        assert width <= self.max_width
        self._codec = av.CodecContext.create(_DECODERS[self.kind.codec], "r")
        self._codec.thread_count = 1
        # Strict: the order of output is kept where a stream does not say how many pictures are held back for it.
        self._codec.options = {"strict": "strict", **({"err_detect": "explode"} if self.kind.codec == "hevc" else {})}
        self._codec.flags |= Flags.output_corrupt  # a card shows everything
        self._damaged = self._ended = False
        self._entries = 0
        self._wrong.clear()
        self._forget()

    def feed(self, packet: Packet) -> Sequence[Picture]:
        """Decode one packet."""
        assert self._using.acquire(blocking=False), "two threads use one session"
        engine = self.engine
        with engine.lock:
            engine.busy += 1
            engine.busiest = max(engine.busiest, engine.busy)
        try:
            return self._feed(packet)
        finally:
            with engine.lock:
                engine.busy -= 1
            self._using.release()

    def _feed(self, packet: Packet) -> Sequence[Picture]:
        assert self._codec is not None, "begin comes first"
        assert not self._ended, "nothing is fed behind the end"
        assert packet.size, "an empty packet would be the end"
        engine, trouble = self.engine, self.engine.trouble
        with engine.lock:
            engine.mind()
            number = engine.fed
            engine.fed += 1
            engine.lost = number == trouble.lose
            engine.mind()
        if number in trouble.refuse:
            raise DecodeError(f"the card refuses packet {number}")
        if number in trouble.starve:
            raise DeviceMemoryError(f"no memory for packet {number}")
        if number in trouble.drop:
            return []
        if number in trouble.conceal:
            self._wrong.add(packet.pts)
        if self.kind.codec == "hevc":
            self._mind_leading(bytes(packet))
        return self._out(packet)

    def _mind_leading(self, data: bytes) -> None:
        """A card speaks of damage where it is fed pictures that need what came before its first one."""
        for unit in data.split(b"\0\0\1")[1:]:
            kind = unit[0] >> 1 & 63
            if 16 <= kind <= 21:
                self._entries += 1
            elif kind in (8, 9) and self._entries < 2:
                self._damaged = True

    def drain(self) -> Sequence[Picture]:
        """Take the rest."""
        self.engine.mind()
        self._ended = True
        last, self._held = [*self._out(None), *self._held], []
        return last if not self.engine.delay else sorted(last, key=lambda picture: picture.pts)

    def damaged(self) -> bool:
        """As libavcodec says, or as was planted."""
        return self._damaged and self.engine.trouble.reported

    def close(self) -> None:
        """Destroy it."""
        assert not self._closed, "closed twice"
        self._closed = True
        self._forget()
        with self.engine.lock:
            self.engine.open.remove(self)
            self.engine.closed += 1

    def _forget(self) -> None:
        for picture in self._held:
            picture.release()
        self._held = []

    def _out(self, packet: Packet | None) -> list[Picture]:
        engine = self.engine
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError:
            self._damaged = True
            frames = []
        pictures: list[Picture] = []
        for frame in frames:
            self._damaged |= frame.is_corrupt or frame.pts in self._wrong  # told when it comes out, as a card does
            with engine.lock:
                number = engine.shown
                engine.shown += 1
            for _ in range(1 + (number in engine.trouble.twice)):
                pictures.append(FakePicture(engine, self.kind, frame, frame.pts in self._wrong))
        if engine.trouble.reorder or engine.delay:
            self._held += pictures
            out = max(0, len(self._held) - max(engine.delay, 2 * engine.trouble.reorder) + 1) // 2 * 2
            pictures, self._held = self._held[:out], self._held[out:]
            if engine.trouble.reorder:
                pictures[0::2], pictures[1::2] = pictures[1::2], pictures[0::2]
        return pictures


class FakePicture(Picture):
    """A frame, laid out as a card would."""

    def __init__(self, engine: FakeEngine, kind: StreamKind, frame: av.VideoFrame, wrong: bool) -> None:
        layout = _LAYOUTS[kind.chroma, kind.depth]
        planes = semiplanar(frame, layout)
        strides = [-(-plane.shape[1] // PITCH) * PITCH for plane in planes]
        sizes = [stride * len(plane) for stride, plane in zip(strides, planes, strict=True)]
        self._engine, self._strides = engine, strides
        self._memory: npt.NDArray[np.uint8] | None = engine.taken(sum(sizes))
        self._parts: list[npt.NDArray[np.uint8]] = []
        at = 0
        for plane, stride, nbytes in zip(planes, strides, sizes, strict=True):
            part = self._memory[at : at + nbytes].reshape(len(plane), stride)
            part[:, : plane.shape[1]] = plane ^ 0xFF if wrong else plane
            self._parts.append(part)
            at += nbytes
        assert frame.pts is not None
        self.pts = frame.pts
        format = SurfaceFormat(frame.height, frame.width, layout)
        self.surface = DeviceSurface(format, [part.ctypes.data for part in self._parts], strides, self.pts, self)

    def to_host(self) -> Surface:
        """Copy it."""
        assert self._memory is not None, "the picture was given back"
        return Surface(self.surface.format, [part.reshape(-1).copy() for part in self._parts], self._strides, self.pts)

    def release(self) -> None:
        """Scribble over it and give it back."""
        memory, self._memory = self._memory, None
        if memory is not None:
            self._engine.given(memory)


def semiplanar(frame: av.VideoFrame, layout: str) -> list[npt.NDArray[np.uint8]]:
    """The visible bytes of a planar frame in a card's layout: rows by plane, uint8."""
    target = layout_of(layout)
    source = layout_of(frame.format.name)
    assert (source.family, source.depth, source.subsampling) == (target.family, target.depth, target.subsampling)
    words: list[npt.NDArray[Any]] = []
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        shrink = source.subsampling if number else (0, 0)
        width = -(-frame.width >> shrink[1])
        samples = rows[:, : width * source.word_bytes]
        words.append(np.ascontiguousarray(samples).view("<u2") << target.shift if source.word_bytes == 2 else samples)
    if len({component.plane for component in target.components}) == 2:
        words = [words[0], np.stack(words[1:3], axis=2).reshape(len(words[1]), -1)]
    return [np.ascontiguousarray(rows).view(np.uint8) for rows in words[: len(target.components)]]


class NullEngine(FakeEngine):
    """An engine that decodes nothing: pictures without content come out in order, for what surrounds it to be timed."""

    def session(self, kind: StreamKind, max_height: int, max_width: int) -> Session:
        """Make one."""
        with self.lock:
            self.made += 1
        return _NullSession(self, kind, max_height, max_width)


class _NullSession(Session):
    HELD = 4

    def __init__(self, engine: NullEngine, kind: StreamKind, max_height: int, max_width: int) -> None:
        self.engine, self.kind, self.max_height, self.max_width = engine, kind, max_height, max_width
        self._waiting: list[int] = []

    def begin(self, height: int, width: int) -> None:
        self.engine.begun += 1
        self._waiting = []
        self._surface = DeviceSurface(SurfaceFormat(height, width, "nv12"), (0, 0), (width, width))

    def feed(self, packet: Packet) -> Sequence[Picture]:
        self.engine.fed += 1
        if len(self._waiting) < self.HELD:
            heapq.heappush(self._waiting, packet.pts)
            return ()
        return (_NullPicture(heapq.heappushpop(self._waiting, packet.pts), self._surface),)

    def drain(self) -> Sequence[Picture]:
        return [_NullPicture(pts, self._surface) for pts in sorted(self._waiting)]

    def damaged(self) -> bool:
        return False

    def close(self) -> None:
        self.engine.closed += 1


class _NullPicture(Picture):
    def __init__(self, pts: int, surface: DeviceSurface) -> None:
        self.pts, self.surface = pts, surface

    def to_host(self) -> Surface:
        raise AssertionError("there is nothing in it")

    def release(self) -> None:
        """There is nothing to give back."""
