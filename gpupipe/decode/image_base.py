"""The contract of a decoder of still pictures, and what it hands out."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpupipe.closing import Closing
from gpupipe.decode.base import MAX_PIXELS
from gpupipe.decode.image_file import ImageFile, ImageInfo, read_image
from gpupipe.errors import InputError
from gpupipe.types import Colour, Surface, SurfaceFormat

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Still:
    """One decoded still picture.

    Attributes
    ----------
    info : ImageInfo
    pixels : ndarray
        uint8, C-contiguous, full range: gray ``[H, W]`` or R'G'B' ``[H, W, 3]``, as stored in the file (before
        :attr:`ImageInfo.orientation`).
    backend : str
        Name of the decoder that made it.
    """

    info: ImageInfo
    pixels: Pixels
    backend: str

    @property
    def rgb(self) -> Pixels:
        """Upright R'G'B', uint8 ``[H, W, 3]``, C-contiguous; ``pixels`` itself where nothing is to be done."""
        rotation, mirrored = self.info.turn
        picture = self.pixels[:, ::-1] if mirrored else self.pixels
        picture = np.rot90(picture, -rotation // 90)
        if picture.ndim == 2:
            picture = np.broadcast_to(picture[..., None], (*picture.shape, 3))
        return np.ascontiguousarray(picture)

    @property
    def surface(self) -> Surface:
        """The picture for :class:`gpupipe.transform.Resizer`, which turns it upright as it resizes it."""
        height, width = self.pixels.shape[:2]
        rotation, mirrored = self.info.turn
        gray = self.pixels.ndim == 2
        colour = Colour("unknown" if gray else "gbr", True)
        form = SurfaceFormat(height, width, "gray" if gray else "rgb24", colour, rotation, mirrored)
        return Surface(form, (self.pixels.reshape(-1),), (self.pixels.strides[0],), None, self.pixels)


Outcome = Still | InputError


class ImageDecoder(Closing):
    """Still pictures, whole, in 8 bits. Several threads may share one.

    What comes out is what training scripts get from Pillow's ``convert("RGB")`` and, but for the order of channels,
    from ``cv2.imread``; what those two do without a word is an error here.

    ==========================  =======================================================================================
    In the file                 Outcome
    ==========================  =======================================================================================
    EXIF orientation            applied, all eight (JPEG, PNG, WebP; TIFF is turned as it is read); XMP is not asked
    gray                        three equal channels
    alpha, transparent colour   dropped, the colours below are kept as stored: nothing is composed, no background chosen
    palette                     its colours; an index beyond it is damage
    16 bits a sample            ``v >> 8``, the high byte
    2 and 4 bits of gray        ``v * 85`` and ``v * 17``; one bit: 0 and 255
    CMYK and YCCK JPEG          taken for inverted, as every known writer stores them, with Adobe's marker or without:
                                ``round(C K / 255)`` of the stored values, M and Y likewise
    ICC profile, gamma, chroma  ignored, samples are handed out as they are
    several pictures            the first (GIF, WebP, TIFF; of an animated PNG the picture that others see)
    more than ``max_pixels``    :class:`~gpupipe.errors.InputError`, before there is memory for it
    truncated                   :class:`~gpupipe.errors.TruncatedError`, never a half picture; so is a JPEG or PNG that
                                only lacks its end marker
    damaged                     :class:`~gpupipe.errors.CorruptError`: whatever libjpeg warns of; in PNG a wrong
                                checksum, an unknown filter, missing rows
    bytes behind the end        ignored
    empty, not a picture        :class:`~gpupipe.errors.DecodeError`
    another kind of picture     :class:`~gpupipe.errors.UnsupportedError` (HEIC, AVIF, JPEG XL, JPEG 2000, PSD; lossless
                                and 12-bit JPEG; floating point)
    no file, a folder, a pipe   :class:`~gpupipe.errors.MissingInputError`
    ==========================  =======================================================================================

    Attributes
    ----------
    backend : str
        Name of the backend (``"cpu"``, ``"dali"``).
    batch : int
        Pictures that it likes to get at a time.
    max_pixels : int
        Height x width of the largest picture.
    """

    backend: str
    batch: int = 1

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels

    @abstractmethod
    def identity(self) -> str:
        """Names and versions of what determines the pixels; part of a plan's hash, for image decoders differ."""

    def refuses(self, info: ImageInfo) -> str | None:
        """Why this backend does not keep the contract for such a picture; None where it does."""
        return None

    def prefers(self, info: ImageInfo) -> bool:
        """True if ``auto`` gives it such pictures: it takes them, and is no slower with them than the CPU backend."""
        return self.refuses(info) is None

    @abstractmethod
    def decode_all(self, files: Sequence[ImageFile]) -> list[Outcome]:
        """Decode pictures that were read; a bad one costs no other.

        Parameters
        ----------
        files : sequence of ImageFile
            Of :meth:`load`.

        Returns
        -------
        list of Still or InputError
            In the order of ``files``.
        """

    def load(self, source: str | os.PathLike[str] | bytes) -> ImageFile:
        """Read a file, or take its bytes, as far as the header.

        Raises
        ------
        MissingInputError, InputError, DecodeError, UnsupportedError, TruncatedError, CorruptError
            See the table above.
        """
        return read_image(source, self.max_pixels)

    def decode(self, source: str | os.PathLike[str] | bytes) -> Still:
        """Read and decode one picture.

        Raises
        ------
        MissingInputError, InputError, DecodeError, UnsupportedError, TruncatedError, CorruptError
            See the table above.
        """
        (outcome,) = self.decode_all([self.load(source)])
        if isinstance(outcome, Still):
            return outcome
        raise outcome

    def close(self) -> None:
        """Give back what it holds; may be called again."""
