"""The keypoints job: image folders or videos in, the 543 points of one person in each picture out.

An item is a picture where pictures are worked each by itself, else a clip. Left is the person's own left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gpupipe import decode
from gpupipe.cuda.device import Device
from gpupipe.decode import MAX_PIXELS
from gpupipe.decode.image_base import ImageDecoder
from gpupipe.decode.images import open_images
from gpupipe.errors import MissingInputError, StoppedError, UsageError
from gpupipe.job import Dataset, Facts, Operator, Work
from gpupipe.jobs import keypoint_frames
from gpupipe.jobs.annotations import Annotations, annotation_files, annotations_digest, read_annotations
from gpupipe.jobs.keypoint_frames import ClipFrame
from gpupipe.jobs.keypoint_index import write_index
from gpupipe.jobs.keypoint_sources import clips
from gpupipe.jobs.keypoint_work import CLIP_ROWS, PICTURE_ROWS, ClipOperator, PictureOperator
from gpupipe.memory import RowSpec
from gpupipe.ops.keypoints import executors
from gpupipe.ops.keypoints.executors import EXECUTORS, MODES, PRECISIONS, Mode
from gpupipe.outcome import Outcome
from gpupipe.plan import PlanWriter
from gpupipe.sinks.base import SHARD_SIZE, Place, Sink
from gpupipe.sinks.npy import NpySink
from gpupipe.sinks.sequences import SequenceSink
from gpupipe.transform import ARITHMETIC_VERSION

ITEMS = ("pictures", "clips")
MAX_SHARD_SIZE = 1 << 20
_READERS = 4  # threads that read pictures for a GPU


@dataclass(frozen=True)
class KeypointsJob:
    """The options and inputs of one keypoints run; see the README for what each flag does.

    Options (they decide the bytes) come first, inputs after them. Those from `items` to `arithmetic` say what the
    source holds and what is installed here; :func:`gpupipe.jobs.keypoint_plan.planned` finds them out.
    """

    name: ClassVar[str] = "keypoints"
    pace: ClassVar[float] = 50.0
    beside: ClassVar[tuple[str, ...]] = ("drop_empty",)
    elsewhere: ClassVar[tuple[str, ...]] = ("pose_dir",)

    mode: Mode = "stateless"
    splits: list[str] = field(default_factory=list)
    max_samples_per_split: int | None = None
    min_detection_confidence: float = 0.5
    min_tracking_confidence: float = 0.5
    fps: float = 0.0
    stream: int | None = None
    max_pixels: int = MAX_PIXELS
    shard_size: int = SHARD_SIZE
    executor: str = "cpu"
    precision: str = "fp32"

    items: str = "pictures"
    device: str = "cpu"
    networks: str = ""
    image_decoder: str = ""
    annotations: str = ""
    arithmetic: int = ARITHMETIC_VERSION

    dataset_path: str = ""
    annotations_path: str = ""
    pickle: str = ""
    drop_empty: bool = False
    pose_dir: str = ""

    _INPUTS: ClassVar[tuple[str, ...]] = ("dataset_path", "annotations_path", "pickle", "drop_empty", "pose_dir")

    def options(self) -> dict[str, Any]:
        """What decides the bytes."""
        return {key: value for key, value in asdict(self).items() if key not in self._INPUTS}

    def inputs(self) -> dict[str, Any]:
        """Where the inputs are, and what is made of the result beside the dataset."""
        return {key: getattr(self, key) for key in self._INPUTS}

    @property
    def backend(self) -> str:
        """Workers are on GPUs, or on CPU cores: the two give other last bits, and so never mix."""
        return "nvdec" if self.device == "cuda" else "ffmpeg"

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be, and for what is not installed."""
        for flag, word, known in (
            ("--mode", self.mode, MODES),
            ("--executor", self.executor, EXECUTORS[1:]),
            ("--precision", self.precision, PRECISIONS),
            ("items", self.items, ITEMS),
        ):
            if word not in known:
                raise UsageError(f"{flag} {word!r}: expected one of {', '.join(known)}")
        for flag, value in (
            ("--max-samples-per-split", self.max_samples_per_split),
            ("--shard-size", self.shard_size),
            ("--max-pixels", self.max_pixels),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{flag} {value}: expected at least 1")
        if self.shard_size > MAX_SHARD_SIZE:
            raise UsageError(f"--shard-size {self.shard_size}: expected at most {MAX_SHARD_SIZE}")
        for flag, share in (
            ("--min-detection-confidence", self.min_detection_confidence),
            ("--min-tracking-confidence", self.min_tracking_confidence),
        ):
            if not 0 <= share <= 1:
                raise UsageError(f"{flag} {share}: expected a share, from 0 to 1")
        if not 0 <= self.fps < float("inf"):
            raise UsageError(f"--fps {self.fps}: expected pictures a second, or 0 for all")
        if self.precision == "hybrid" and self.device != "cuda":
            raise UsageError("--precision hybrid is for --executor torch on a GPU; the CPU has no use for it")
        try:  # what is not installed is an error here, not in a worker
            executors.check(self.executor, self.device, self.precision)
        except MissingInputError as error:
            raise UsageError(str(error)) from error

    def source(self) -> Path:
        """The tree, the video, or the list of videos."""
        return Path(self.dataset_path)

    # ---- the plan

    def write_items(self, writer: PlanWriter) -> None:
        """Plan the pictures, or the clips, in their order."""
        found = clips(self.source(), self.splits or None, self.max_samples_per_split)
        for clip in found:
            item: dict[str, Any] = {"split": clip.split, "video": clip.video, "path": clip.path}
            if clip.id != clip.path:
                item["id"] = clip.id
            if self.items == "clips":
                writer.add(item if clip.frames is None else {**item, "frames": list(clip.frames)})
                continue
            for place in range(len(clip.frames or ())):
                writer.add({**item, "path": clip.frame_path(place)})
        if found.left_out:
            writer.notices.append(f"left out, since --splits does not name them: {', '.join(found.left_out)}")
        if found.empty:
            writer.notices.append(f"{len(found.empty)} folders without a picture or video, such as {found.empty[0]}")

    def item_id(self, ordinal: int, item: Any) -> str:
        """Its path in the dataset; of a video that a list names again, as :attr:`SourceClip.id`."""
        name = item.get("id", item.get("path")) if isinstance(item, dict) else None
        return name if isinstance(name, str) else f"{ordinal:06d}"

    def blob_name(self, ordinal: int, item: Any) -> str | None:
        """``{ordinal:08d}`` of a clip; pictures are rows."""
        return f"{ordinal:08d}"

    def input_file(self, item: Any) -> str | None:
        """The picture, the video, or the folder of pictures."""
        path = item.get("path") if isinstance(item, dict) else None
        return os.path.join(self.root, path) if isinstance(path, str) else None  # noqa: PTH118 - asked for every item

    @cached_property
    def root(self) -> str:
        """What the paths of items are relative to: the tree, or the folder that a video or a list lies in."""
        path = Path(self.dataset_path)
        return str(path.parent) if path.is_file() else self.dataset_path  # also of a folder that is gone

    def probe(self, item: Any) -> Facts:
        """What the headers of a picture, of a folder's first one, or of a video say."""
        path = Path(self.input_file(item) or "")
        if self.items == "clips" and "frames" not in item:
            with decode.open(path, "ffmpeg", self.stream, self.max_pixels) as decoder:
                info = decoder.info
                return Facts(info.codec, info.layout or "", info.upright, info.duration_seconds, decoder.backend)
        if self.items == "clips":
            path = path / item["frames"][0]
        with self._pictures() as images:
            header = images.load(path).info
            return Facts(header.format, header.mode, header.upright, None, images.backend)

    # ---- the work

    def rows(self) -> Sequence[RowSpec]:
        """Of pictures: see :data:`gpupipe.jobs.keypoint_work.PICTURE_ROWS`; a clip has any number of rows."""
        return PICTURE_ROWS if self.items == "pictures" else ()

    def sink(self, place: Place) -> Sink:
        """Shards of rows."""
        return NpySink(place, PICTURE_ROWS) if self.items == "pictures" else SequenceSink(place, CLIP_ROWS)

    def operator(self, place: Place, device: Device | None) -> Operator:
        """Networks of one worker, and what reads for them."""
        executor = self._executor()
        if self.items == "pictures":
            threads = 1 if device is None else _READERS
            return PictureOperator(lambda item: Path(self.input_file(item) or ""), executor, self._pictures(), threads)
        images = self._pictures()
        return ClipOperator(lambda item: self._frames(item, images), self._name, executor, images, place.staging)

    def _name(self, work: Work) -> str:
        return self.blob_name(work.ordinal, work.item) or ""

    def _frames(self, item: Any, images: ImageDecoder) -> Iterator[ClipFrame]:
        path = Path(self.input_file(item) or "")
        if "frames" in item:
            return keypoint_frames.pictures(path, item["frames"], images)
        return keypoint_frames.video(path, self.fps or None, self.stream, self.max_pixels)

    def _pictures(self) -> ImageDecoder:
        return open_images("cpu", max_pixels=self.max_pixels)

    def _executor(self) -> executors.Executor:
        try:
            return executors.open_executor(
                self.executor,
                self.mode,
                self.min_detection_confidence,
                self.min_tracking_confidence,
                self.device,
                self.precision,
            )
        except MissingInputError as error:  # models that are gone: no fault of any item
            raise UsageError(str(error)) from error

    # ---- the end

    def thumbnail(self, place: Place, ordinal: int, item: Any, outcome: Outcome) -> np.ndarray | None:
        """The picture with its points drawn, or a few frames of the clip."""
        from gpupipe.jobs.keypoint_thumbnail import clip_thumbnail, picture_thumbnail

        if self.items == "pictures":
            return picture_thumbnail(place, ordinal, item, self.root)
        return clip_thumbnail(place, ordinal, item, self.root, self.stream)

    def remains(self) -> Iterable[str]:
        """Names :meth:`finish` writes."""
        return ["index.parquet", *([f"../{self.pickle}"] if self.pickle else [])]

    def finish(self, dataset: Dataset) -> None:
        """Write ``index.parquet``, and what is made of it: the pickle, ``.pose`` files."""
        write_index(self.items, dataset, self._annotations())
        if self.pickle or self.pose_dir:
            from gpupipe.landmarks.dataset import open_landmarks

            with open_landmarks(dataset.place.out) as landmarks:
                if self.pickle:
                    from gpupipe.landmarks.pickle_file import write_pickle

                    target = dataset.place.out.parent / self.pickle
                    write_pickle(target, landmarks, self._words(dataset), self.drop_empty)
                if self.pose_dir:
                    from gpupipe.landmarks.pose_file import write_pose_files

                    write_pose_files(landmarks, Path(self.pose_dir), self.fps or None)

    def _annotations(self) -> Annotations:
        """As they were planned; raises :class:`StoppedError` where they are others now."""
        if not self.annotations:  # and the dataset may be gone: nothing else of it is wanted any more
            return {}
        found = clips(self.source(), self.splits or None, self.max_samples_per_split)
        files = annotation_files(self.source(), self.annotations_path, found.splits)
        if annotations_digest(files) != self.annotations:
            where = ", ".join(map(str, files.values())) or self.dataset_path
            raise StoppedError(
                f"{where}: the annotations are others than when this was planned. Put them back and run the same "
                "command again"
            )
        return read_annotations(files)

    def _words(self, dataset: Dataset) -> dict[str, Any]:
        """What the pickle says of its dataset."""
        words = {"dataset_path": dataset.plan.inputs["dataset_path"], "mode": self.mode, "executor": self.networks}
        return words if self.stream is None else {**words, "stream": self.stream}
