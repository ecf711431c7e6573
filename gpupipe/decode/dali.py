"""JPEG and PNG pictures by NVIDIA DALI: nvJPEG, and its hardware engines, on a GPU; libjpeg-turbo and libpng without.

What of the contract (:class:`gpupipe.decode.image_base.ImageDecoder`) DALI 2.4 does not hold was found by running the
contract's tests against it, and is either checked before DALI sees a file or refused:

- One bad file ends the whole pipeline. Headers, and all the coded data, are therefore walked on the CPU first; should a
  batch fail nevertheless, a new pipeline gets its pictures one by one.
- A JPEG damaged inside its data, or cut and closed with an end marker, comes out with the missing part grey and a line
  on stderr. libjpeg-turbo therefore walks every JPEG at an eighth of its size first, at half the cost of decoding it.
- PNG of 16 bits is rounded, not ``v >> 8``, and an index beyond a palette is no error: refused. GIF cannot be read:
  refused.
- TIFF is turned even with ``adjust_orientation=False``; BMP, TIFF and WebP run through other libraries on the CPU, as
  PNG does, and nothing is gained: refused. So are CMYK and R'G'B' JPEG and those with arithmetic coding, which nvJPEG
  treats otherwise than libjpeg or not at all.

Video is not offered. DALI decodes no H.264 or HEVC on the CPU. Its readers choose frames by their own index of
keyframes and time stamps, or take every n-th; they cannot be told which packets to feed, so that neither edit lists,
hidden frames and open groups of pictures nor the verdict on a damaged file would be those of the other backends, and no
packet would be skipped; and one bad file ends the pipeline for the others in it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions
from typing import Any

import numpy as np

from gpupipe.decode.base import MAX_PIXELS
from gpupipe.decode.image_base import ImageDecoder, Outcome, Still
from gpupipe.decode.image_cpu import check_jpeg
from gpupipe.decode.image_file import ImageFile, ImageInfo
from gpupipe.errors import (
    DecodeError,
    DeviceLostError,
    DeviceMemoryError,
    InputError,
    StoppedError,
    UnsupportedError,
)

NEXT_STEP = "Use --backend auto, which leaves it to the CPU"

_INSTALL = "Install it with: pip install 'gpupipe[cu13]' (or [cu12])"
_OLDEST = (2, 4)
_PIXELS_AT_ONCE = 64 << 20
"""Of a batch: what is over goes into the next."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far pictures of two backends may be apart, in levels of 255.

    Attributes
    ----------
    most : int
        Largest difference of a sample.
    mean : float
        Mean absolute difference of a picture.
    """

    most: int
    mean: float


TOLERANCES: dict[str, Tolerance | None] = {"cpu": Tolerance(0, 0.0), "cuda": None}
"""Between this backend's JPEG and the CPU backend's, by device; None where it was not measured.

On the CPU both are libjpeg-turbo with its exact transform and smooth chroma: 0 measured on 974 photographs. nvJPEG has
another inverse transform and rounds chroma otherwise: not yet measured on hardware. PNG is lossless: 0 everywhere.
"""


def missing() -> str | None:
    """Why DALI cannot be used here, and what to install; None if it can."""
    try:
        import nvidia.dali
    except (ImportError, RuntimeError, OSError) as error:
        return f"NVIDIA DALI cannot be imported ({error}). {_INSTALL}"
    found = tuple(int(part) for part in nvidia.dali.__version__.split(".")[:2])
    if found < _OLDEST:
        return f"NVIDIA DALI {nvidia.dali.__version__} is older than {'.'.join(map(str, _OLDEST))}. {_INSTALL}"
    return None


class DaliImages(ImageDecoder):
    """Still pictures by DALI.

    Parameters
    ----------
    device : str
        ``"cpu"``, or ``"cuda:N"``: nvJPEG on that GPU, on its hardware engines where it has them.
    max_pixels : int
        Height x width of the largest picture.
    threads : int
        That DALI keeps on the CPU.
    batch : int
        Pictures in one run of the pipeline.
    hardware : bool
        False leaves the GPU's JPEG engines idle. All or none of what they can take: shared out by load, a picture's
        bytes would depend on its batch.
    """

    backend = "dali"

    def __init__(
        self,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
        threads: int = 1,
        batch: int = 64,
        hardware: bool = True,
    ) -> None:
        super().__init__(max_pixels)
        self.batch = batch
        self._device = device
        self._threads = threads
        self._hardware = hardware
        self._lock = threading.Lock()  # one pipeline, one thread at a time
        self._pipeline: Any = None

    @property
    def tolerance(self) -> Tolerance | None:
        """How far a JPEG may be from the CPU backend's; None where that is not known."""
        return TOLERANCES["cpu" if self._device == "cpu" else "cuda"]

    def identity(self) -> str:
        """Names and versions of what determines the pixels."""
        kind = "cpu" if self._device == "cpu" else "cuda, JPEG engines" if self._hardware else "cuda"
        return f"DALI {_versions()} on {kind}"

    def refuses(self, info: ImageInfo) -> str | None:
        """Why DALI does not keep the contract for such a picture."""
        if info.format == "jpeg":
            if info.mode not in ("gray", "ycbcr"):
                return f"it does not decode {info.mode.upper()} JPEG as libjpeg does"
            return "it decodes no arithmetic coding" if info.coding == "arithmetic" else None
        if info.format == "png":
            if info.mode == "palette":
                return "it does not tell an index beyond the palette"
            return "it rounds 16 bits to 8, where others take the high byte" if info.bits == 16 else None
        return f"it is not used for {info.format.upper()}"

    def prefers(self, info: ImageInfo) -> bool:
        """True of JPEG; PNG, which DALI decodes on the CPU too, is left to the CPU backend, that checks it anyway."""
        return info.format == "jpeg" and self.refuses(info) is None

    def decode_all(self, files: Sequence[ImageFile]) -> list[Outcome]:
        """Decode pictures together; after a failure one by one."""
        outcomes: dict[int, Outcome] = {}
        sound: list[int] = []
        for place, file in enumerate(files):
            try:
                self._check(file)
            except InputError as error:
                outcomes[place] = error
            else:
                sound.append(place)
        for group in self._groups(files, sound):
            chosen = [files[place] for place in group]
            with self._lock:
                done = self._run(chosen)
                if len(chosen) > 1 and not isinstance(done, list):
                    done = [self._single(file) for file in chosen]
            outcomes.update(zip(group, done if isinstance(done, list) else [_failure(chosen[0], done)], strict=True))
        return [outcomes[place] for place in range(len(files))]

    def close(self) -> None:
        """Give the pipeline back."""
        with self._lock:
            self._pipeline = None

    def _check(self, file: ImageFile) -> None:
        reason = self.refuses(file.info)
        if reason is not None:
            raise UnsupportedError(f"{file.info.path}: not for DALI: {reason}. {NEXT_STEP}")
        if file.png is not None:
            file.png.check()
        else:
            check_jpeg(file)

    def _groups(self, files: Sequence[ImageFile], places: Sequence[int]) -> list[list[int]]:
        """Cut into batches of no more pictures and pixels than one run takes."""
        groups: list[list[int]] = []
        pixels = 0
        for place in places:
            size = files[place].info.height * files[place].info.width
            if not groups or len(groups[-1]) == self.batch or pixels + size > _PIXELS_AT_ONCE:
                groups.append([])
                pixels = 0
            groups[-1].append(place)
            pixels += size
        return groups

    def _single(self, file: ImageFile) -> Outcome:
        done = self._run([file])
        return done[0] if isinstance(done, list) else _failure(file, done)

    def _run(self, files: Sequence[ImageFile]) -> list[Outcome] | RuntimeError:
        """Pictures of one run, or why it failed; the pipeline is of no use after that."""
        if self._pipeline is None:
            self._pipeline = self._build()
        try:
            self._pipeline.feed_input("files", [np.frombuffer(file.data, np.uint8) for file in files])
            (batch,) = self._pipeline.run()
            if self._device != "cpu":
                batch = batch.as_cpu()
            pictures = [np.array(batch.at(place)) for place in range(len(files))]  # the memory is the pipeline's
        except RuntimeError as error:
            self._pipeline = None
            _check_card(self._device, error)
            return error
        outcomes: list[Outcome] = []
        for file, pixels in zip(files, pictures, strict=True):
            expected = (file.info.height, file.info.width, 3)
            if pixels.shape == expected:
                outcomes.append(Still(file.info, pixels, self.backend))
            else:
                found = f"DALI makes {list(pixels.shape)} of it; expected {list(expected)}"
                outcomes.append(DecodeError(f"{file.info.path}: {found}. {NEXT_STEP}"))
        return outcomes

    def _build(self) -> Any:
        from nvidia.dali import Pipeline, fn, types

        cpu = self._device == "cpu"
        on_card: dict[str, Any] = {} if cpu else {"hw_decoder_load": 1.0 if self._hardware else 0.0}
        try:
            pipeline = Pipeline(
                batch_size=self.batch,
                num_threads=self._threads,
                device_id=None if cpu else int(self._device.removeprefix("cuda:")),
                prefetch_queue_depth=1,
            )
            with pipeline:
                files = fn.external_source(name="files", device="cpu", ndim=1, dtype=types.UINT8)
                pictures = fn.decoders.image(
                    files,
                    device="cpu" if cpu else "mixed",
                    output_type=types.RGB,
                    adjust_orientation=False,  # ours does it, one way for all backends
                    jpeg_fancy_upsampling=True,  # as libjpeg does
                    use_fast_idct=False,
                    **on_card,
                )
                pipeline.set_outputs(pictures)
            pipeline.build()
        except (RuntimeError, OSError) as error:  # no fault of a picture
            raise StoppedError(f"DALI cannot be set up on {self._device}: {error}. Use --backend cpu") from error
        return pipeline


@lru_cache(maxsize=1)
def _versions() -> str:
    import nvidia.dali

    names = {str(found.metadata["Name"]): found.version for found in distributions()}
    codecs = [
        f"{name} {names[name]}" for name in sorted(names) if name.startswith(("nvidia-nvimgcodec", "nvidia-nvjpeg"))
    ]
    return f"{nvidia.dali.__version__} ({', '.join(codecs)})"


def _check_card(device: str, error: RuntimeError) -> None:
    """Raise what is no file's fault."""
    words = str(error)
    if "out of memory" in words.lower() or "cudaErrorMemoryAllocation" in words:
        raise DeviceMemoryError(
            f"DALI on {device}: out of memory: {_said(error)}. Use fewer pictures at a time"
        ) from error
    if device != "cpu" and ("CUDA driver" in words or "cudaError" in words):
        raise DeviceLostError(f"DALI on {device}: {_said(error)}. Look at the card with nvidia-smi") from error


def _failure(file: ImageFile, error: RuntimeError) -> DecodeError:
    return DecodeError(f"{file.info.path}: DALI: {_said(error)}. {NEXT_STEP}")


def _said(error: RuntimeError) -> str:
    """The telling line of the many that DALI prints."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "File " not in line]
    return next((line for line in lines if "ail" in line), lines[0] if lines else type(error).__name__)[:200]
