"""The decoding tools, each at its best for the same request: these frames, at one size, antialiased, upright RGB.

Full-size RGB is made small by OpenCV's INTER_AREA; tools marked *own resize* scale in their decoder, with swscale
(whose filters widen when they shrink, so they are antialiased). One codec thread each. A tool that does not turn
rotated pictures is told the rotation and turns the small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.harness import SIZE

_CHUNK = 16
"""Full-size frames that a tool with a batch call is asked for at a time."""


@dataclass(frozen=True)
class Request:
    """Which frames of a file.

    Attributes
    ----------
    path : str
    kind : str
        ``"uniform"`` (`step` frames, ends included), ``"every"`` (each `step`-th) or ``"at"`` (these).
    step : int
    numbers, seconds : tuple
        For ``"at"``: the frames' numbers, and times since the first frame at which they are on show; a tool takes
        whichever it likes.
    rotation : int
        Clockwise degrees that make a picture upright.
    """

    path: str
    kind: str
    step: int = 16
    numbers: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    rotation: int = 0

    def of(self, total: int) -> list[int]:
        """Numbers of the wanted frames, if the clip has `total`."""
        if self.kind == "at":
            return list(self.numbers)
        if self.kind == "every":
            return list(range(0, total, self.step))
        return np.linspace(0, total - 1, self.step, dtype=int).tolist()


def sides(request: Request) -> tuple[int, int]:
    """(height, width) to which a picture that is not upright yet is made small."""
    return SIZE[::-1] if request.rotation in (90, 270) else SIZE


def turned(frames: np.ndarray, request: Request) -> np.ndarray:
    """Small pictures made upright."""
    return np.ascontiguousarray(np.rot90(frames, -request.rotation // 90, (1, 2))) if request.rotation else frames


class Gpupipe:
    """This package, from opening the file on: nothing is kept from one clip to the next but the resize plans."""

    def __init__(self) -> None:
        from gpupipe import decode
        from gpupipe.decode.sampling import at_seconds
        from gpupipe.transform import Resizer

        self._open, self._at_seconds, self._resizer = decode.open, at_seconds, Resizer(SIZE)
        self.stats: dict[str, int] = {}

    def __call__(self, request: Request) -> np.ndarray:
        frames: Any = np.empty((0, *SIZE, 3), np.uint8)

        def choose(index: Any) -> Any:
            nonlocal frames
            wanted = self._at_seconds(index, request.seconds) if request.kind == "at" else request.of(len(index))
            if len(frames) != len(wanted):  # asked again where pictures were counted meanwhile
                frames = np.empty((len(wanted), *SIZE, 3), np.uint8)
            return wanted

        with self._open(request.path) as decoder:
            wanted = decoder.read(choose, lambda place, surface: self._resizer.resize(surface, frames[place]))
            stats = decoder.stats
        self.stats = {
            "wanted": len(set(map(int, wanted))),
            "packets": stats.packets,
            "skipped": stats.skipped,
            "decoded": stats.decoded,
        }
        return frames


class _OpenCV:
    def __init__(self) -> None:
        self._small = _Small()
        import cv2

        self._cv2 = cv2

    def _open(self, request: Request) -> tuple[Any, list[int]]:
        cv2 = self._cv2
        capture = cv2.VideoCapture(request.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            raise ValueError("VideoCapture cannot open it")
        wanted = request.of(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        if not wanted or wanted[0] < 0:
            raise ValueError("CAP_PROP_FRAME_COUNT gives no count")
        return capture, wanted

    def _rgb(self, frame: np.ndarray) -> np.ndarray:
        # The small picture is the cheaper one to reorder.
        return self._cv2.cvtColor(self._small(frame, SIZE), self._cv2.COLOR_BGR2RGB)


class OpenCVSeek(_OpenCV):
    """OpenCV, CAP_PROP_POS_FRAMES before every frame."""

    def __call__(self, request: Request) -> np.ndarray:
        if request.kind == "every" and request.step == 1:
            raise ValueError("every frame is what opencv-sequential reads")
        capture, wanted = self._open(request)
        out = []
        for number in wanted:
            capture.set(self._cv2.CAP_PROP_POS_FRAMES, number)
            ok, frame = capture.read()
            if not ok:
                raise ValueError(f"frame {number} cannot be read")
            out.append(self._rgb(frame))
        return np.stack(out)


class OpenCVSequential(_OpenCV):
    """OpenCV, grab() on and on, retrieve() of the wanted."""

    def __call__(self, request: Request) -> np.ndarray:
        capture, wanted = self._open(request)
        out = {}
        left = set(wanted)
        for number in range(wanted[-1] + 1 if request.kind != "at" else max(wanted) + 1):
            if not capture.grab():
                raise ValueError(f"the count is {wanted[-1] + 1} or more, frame {number} cannot be read")
            if number in left:
                out[number] = self._rgb(capture.retrieve()[1])
        return np.stack([out[number] for number in wanted])


class Decord:
    """decord, get_batch of full-size frames."""

    own_size = False

    def __init__(self) -> None:
        import decord

        self._decord, self._small = decord, _Small()

    def __call__(self, request: Request) -> np.ndarray:
        size = dict(zip(("height", "width"), SIZE, strict=True)) if self.own_size else {}
        reader = self._decord.VideoReader(request.path, ctx=self._decord.cpu(0), num_threads=1, **size)
        wanted = request.of(len(reader))
        chunk = len(wanted) if self.own_size else _CHUNK
        frames = (
            frame
            for start in range(0, len(wanted), chunk)
            for frame in reader.get_batch(wanted[start : start + chunk]).asnumpy()
        )
        return self._small.all(frames, SIZE)


class DecordOwnSize(Decord):
    """decord with its own width= and height=."""

    own_size = True


class Torchcodec:
    """torchcodec, seek_mode="exact", full-size frames in batches."""

    mode = "exact"
    resize = False

    def __init__(self) -> None:
        import torch
        from torchcodec.decoders import VideoDecoder

        torch.set_num_threads(1)
        self._decoder, self._small, self._transforms = VideoDecoder, _Small(), None
        if self.resize:
            from torchcodec.transforms import Resize

            self._transforms = [Resize(SIZE)]

    def __call__(self, request: Request) -> np.ndarray:
        decoder = self._decoder(
            request.path,
            seek_mode=self.mode,
            num_ffmpeg_threads=1,
            dimension_order="NHWC",
            transforms=self._transforms,
        )
        return self._small.all(self._frames(decoder, request), SIZE)

    def _frames(self, decoder: Any, request: Request) -> Iterator[np.ndarray]:
        facts = decoder.metadata
        chunk = 1 << 16 if self.resize else _CHUNK
        if request.kind == "at":
            begin = facts.begin_stream_seconds or 0.0
            for start in range(0, len(request.seconds), chunk):
                times = [begin + second for second in request.seconds[start : start + chunk]]
                yield from decoder.get_frames_played_at(seconds=times).data.numpy()
            return
        wanted = request.of(len(decoder))
        for start in range(0, len(wanted), chunk):
            yield from decoder.get_frames_at(indices=wanted[start : start + chunk]).data.numpy()


class TorchcodecApproximate(Torchcodec):
    """torchcodec, seek_mode="approximate": no scan of the file, times from the average rate."""

    mode = "approximate"


class TorchcodecOwnSize(Torchcodec):
    """torchcodec, seek_mode="exact", with its own Resize transform in the decoder."""

    resize = True


class Spdl:
    """spdl_io: demux_video, sample_decode_video with a scale filter, convert_frames."""

    def __init__(self) -> None:
        import spdl.io

        self._io = spdl.io
        self._config = spdl.io.decode_config(decoder_options={"threads": "1"})

    def __call__(self, request: Request) -> np.ndarray:
        io = self._io
        height, width = sides(request)
        scale = io.get_video_filter_desc(
            scale_width=width, scale_height=height, scale_algo="area", scale_mode=None, pix_fmt="rgb24"
        )
        packets = io.demux_video(request.path)
        wanted = request.of(len(packets))
        if request.kind == "every" and request.step == 1:
            frames = io.decode_packets(packets, filter_desc=scale, decode_config=self._config)
            return turned(io.to_numpy(io.convert_frames(frames)), request)
        distinct = sorted(set(wanted))
        frames = io.sample_decode_video(packets, distinct, decode_config=self._config, filter_desc=scale)
        out = io.to_numpy(io.convert_frames(frames))
        return turned(out if distinct == wanted else out[[distinct.index(number) for number in wanted]], request)


class PyAV:
    """PyAV, decoded from the first frame on, frames reformatted (swscale, area) as they come."""

    def __init__(self) -> None:
        import av

        self._av = av

    def __call__(self, request: Request) -> np.ndarray:
        height, width = sides(request)
        with self._av.open(request.path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            total = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
            if not stream.frames:
                container.seek(0)
            wanted = request.of(total)
            left, last, out = set(wanted), max(wanted), {}
            for number, frame in enumerate(container.decode(stream)):
                if number in left:
                    out[number] = frame.to_ndarray(width=width, height=height, format="rgb24", interpolation="AREA")
                if number == last:
                    break
        if last not in out:
            raise ValueError(f"the header tells {total} frames, {number + 1} came out")
        return turned(np.stack([out[number] for number in wanted]), request)


class _Small:
    """OpenCV's INTER_AREA; frames that have the size already pass."""

    def __init__(self) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._cv2 = cv2

    def __call__(self, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if frame.shape[:2] == size:
            return frame
        return self._cv2.resize(frame, size[::-1], interpolation=self._cv2.INTER_AREA)

    def all(self, frames: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        return np.stack([self(frame, size) for frame in frames])


TOOLS = {
    "gpupipe": Gpupipe,
    "opencv-seek": OpenCVSeek,
    "opencv-sequential": OpenCVSequential,
    "decord": Decord,
    "decord-own-size": DecordOwnSize,
    "torchcodec": Torchcodec,
    "torchcodec-approximate": TorchcodecApproximate,
    "torchcodec-own-size": TorchcodecOwnSize,
    "spdl": Spdl,
    "pyav": PyAV,
}
