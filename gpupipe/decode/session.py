"""The boundary to a video engine: packets in, pictures in device memory out.

:class:`gpupipe.decode.pynvcodec.PyNvEngine` is the real one. An engine may be used by several threads, a session
by one at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpupipe.decode.packets import Packet
from gpupipe.types import DeviceSurface, Surface


@dataclass(frozen=True, slots=True)
class StreamKind:
    """What a session is made for and cannot change.

    Attributes
    ----------
    codec : str
        FFmpeg's name.
    chroma : str
        ``"420"``, ``"422"`` or ``"444"``.
    depth : int
        Bits a sample.
    """

    codec: str
    chroma: Literal["420", "422", "444"]
    depth: int


@dataclass(frozen=True, slots=True)
class Capability:
    """What the card decodes of one kind; sides in pixels of the coded picture.

    Attributes
    ----------
    engines : int
        Units that decode it at the same time.
    min_height, min_width, max_height, max_width : int
    max_macroblocks : int
        16 x 16 blocks of the largest picture.
    """

    engines: int
    min_height: int
    min_width: int
    max_height: int
    max_width: int
    max_macroblocks: int


class Picture(ABC):
    """A decoded picture that the engine keeps until it is given back.

    Attributes
    ----------
    pts : int
        As it was fed.
    surface : DeviceSurface
        Ready for work that is enqueued on the session's stream; its ``owner`` is this picture.
    """

    pts: int
    surface: DeviceSurface

    @abstractmethod
    def to_host(self) -> Surface:
        """A copy in host memory; blocks."""

    @abstractmethod
    def release(self) -> None:
        """Give it back; any thread may, once all work on it has run. A second time does nothing."""


class Session(ABC):
    """One decoder on the card.

    Attributes
    ----------
    kind : StreamKind
    max_height, max_width : int
        Largest picture it was made for.
    """

    kind: StreamKind
    max_height: int
    max_width: int

    @abstractmethod
    def begin(self, height: int, width: int) -> None:
        """Forget what was decoded; the next packet begins another stream, or another run of the same.

        Parameters
        ----------
        height, width : int
            Of its pictures as they are shown.

        Raises
        ------
        UnsupportedError
            This engine cannot show them unaltered.
        DeviceMemoryError, DeviceLostError
        """

    @abstractmethod
    def feed(self, packet: Packet) -> Sequence[Picture]:
        """Decode one packet; return the pictures that came out, in presentation order, with the ``pts`` of their
        packets.

        H.264 and HEVC packets are Annex B; the first one behind :meth:`begin` holds the parameter sets.

        Raises
        ------
        DecodeError
            The engine refused it.
        DeviceMemoryError, DeviceLostError
        """

    @abstractmethod
    def drain(self) -> Sequence[Picture]:
        """Take what is held back; after it only :meth:`begin` may follow. Raises like :meth:`feed`."""

    @abstractmethod
    def damaged(self) -> bool:
        """True if the engine reported damage in any picture since :meth:`begin`; it conceals it otherwise."""

    @abstractmethod
    def close(self) -> None:
        """Destroy it; never raises, also where the device is lost."""


class VideoEngine(ABC):
    """The video decoders of one card.

    Attributes
    ----------
    name : str
        Of the card: ``"cuda:0"``.
    """

    name: str

    @abstractmethod
    def capability(self, kind: StreamKind) -> Capability | None:
        """What it decodes of this kind; None for nothing."""

    @abstractmethod
    def session(self, kind: StreamKind, max_height: int, max_width: int) -> Session:
        """Make a decoder; costs 50 to 300 ms.

        Raises
        ------
        DeviceMemoryError
            No memory for its surfaces.
        DecodeError
            The card refuses it.
        """
