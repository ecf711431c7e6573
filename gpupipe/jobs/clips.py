"""The clips job: video and text pairs in, frame tensors and CLIP tokens out.

One item a pair. Frames are sampled evenly over the clip (or over a range of a long video), resized and
converted straight into the item's row; the text becomes 77 CLIP tokens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gpupipe import decode
from gpupipe.cuda.device import Device
from gpupipe.cuda.slots import DeviceRows
from gpupipe.decode import MAX_PIXELS
from gpupipe.decode.pool import DecoderPool
from gpupipe.errors import InputError, MissingInputError, UsageError
from gpupipe.frames import FrameReader, Sampling
from gpupipe.job import Completion, Dataset, Facts, ItemLoop, Operator, Work
from gpupipe.jobs import thumbnail as thumbnails
from gpupipe.jobs.clip_files import folder_files, tar_members
from gpupipe.jobs.clip_index import INFO, TABLE, write_info, write_table
from gpupipe.jobs.clip_splits import SPLIT_MODES, SPLITS, assign_splits
from gpupipe.jobs.pairs import Pair, clip_name, parse_pair, read_pairs
from gpupipe.lanes import Lanes
from gpupipe.memory import RowSpec
from gpupipe.ops import text
from gpupipe.outcome import Outcome
from gpupipe.plan import PlanWriter
from gpupipe.sinks.base import SHARD_SIZE, Place, Sample, Sink
from gpupipe.sinks.npy import NpySink
from gpupipe.sinks.samples import SamplesSink
from gpupipe.sinks.webdataset import WebDatasetSink
from gpupipe.transform import ARITHMETIC_VERSION, MAX_SIDE

FORMATS = ("samples", "npy", "webdataset")
CONTEXT_LENGTH = 77
MAX_ID_BYTES = 200
MAX_ROW_BYTES = 4 << 30
MAX_SHARD_SIZE = 1 << 31
CHUNK_NBYTES = 8 << 20  # of one clip with all its frames, on a card at a time
_PLANNED_FIELDS = ("vid", "clip_path", "transcript", "transcript clip", "size", "begin_time", "end_time", "duration")


@dataclass(frozen=True)
class ClipsJob:
    """The options and inputs of one clips run; see the README for what each flag does.

    Options (they decide the bytes) come first, inputs after them.
    """

    name: ClassVar[str] = "clips"
    pace: ClassVar[float] = 1.0
    beside: ClassVar[tuple[str, ...]] = ()
    elsewhere: ClassVar[tuple[str, ...]] = ()

    num_frames: int = 16
    frame_height: int = 160
    frame_width: int = 256
    split_mode: str = "random"
    seed: int = 42
    max_samples: int | None = None
    format: str = "samples"
    strict: bool = False
    allow_partial: bool = False
    all_frames: bool = False
    tolerance: float = 0.0
    stream: int | None = None
    max_pixels: int = MAX_PIXELS
    shard_size: int = SHARD_SIZE
    arithmetic: int = ARITHMETIC_VERSION
    tokenizer: str = field(default_factory=text.identity)

    pairs_json: str = ""
    clips_dir: str | None = None
    videos_dir: str | None = None
    backend: str = "auto"

    _INPUTS: ClassVar[tuple[str, ...]] = ("pairs_json", "clips_dir", "videos_dir", "backend")

    def options(self) -> dict[str, Any]:
        """What decides the bytes."""
        return {key: value for key, value in asdict(self).items() if key not in self._INPUTS}

    def inputs(self) -> dict[str, Any]:
        """Where the inputs are, and what decodes them."""
        return {key: getattr(self, key) for key in self._INPUTS}

    def check(self) -> None:
        """Raise :class:`UsageError` for what cannot work, before any work."""
        for flag, value in (
            ("--num-frames", self.num_frames),
            ("--frame-height", self.frame_height),
            ("--frame-width", self.frame_width),
            ("--shard-size", self.shard_size),
            ("--max-pixels", self.max_pixels),
            ("--max-samples", 1 if self.max_samples is None else self.max_samples),
        ):
            if value < 1:
                raise UsageError(f"{flag} {value}: expected at least 1")
        for flag, value, most in (
            ("--frame-height", self.frame_height, MAX_SIDE),
            ("--frame-width", self.frame_width, MAX_SIDE),
            ("--shard-size", self.shard_size, MAX_SHARD_SIZE),
        ):
            if value > most:
                raise UsageError(f"{flag} {value}: expected at most {most}")
        for flag, word, known in (("--split-mode", self.split_mode, SPLIT_MODES), ("--format", self.format, FORMATS)):
            if word not in known:
                raise UsageError(f"{flag} {word!r}: expected one of {', '.join(known)}")
        if self.all_frames and self.format == "npy":
            raise UsageError("--all-frames: rows of --format npy have one length; use --format samples or webdataset")
        if not 0 <= self.tolerance < float("inf"):
            raise UsageError(f"--tolerance {self.tolerance}: expected seconds, at least 0")
        if self.all_frames and self.tolerance:
            raise UsageError("--all-frames keeps every frame and --tolerance trades some for others: choose one")
        if self.strict and self.allow_partial:
            raise UsageError("--strict fails on any fault and --allow-partial passes over them: choose one")
        if (self.clips_dir is None) == (self.videos_dir is None):
            raise UsageError("expected one of --clips-dir (cut clips) and --videos-dir (uncut videos)")
        for flag, folder in (("--clips-dir", self.clips_dir), ("--videos-dir", self.videos_dir)):
            if folder is not None and not Path(folder).is_dir():
                raise UsageError(f"{flag} {folder}: no such folder")
        if self.num_frames * self.frame_height * self.frame_width * 3 > MAX_ROW_BYTES:
            raise UsageError(
                f"{self.num_frames} frames of {self.frame_height}x{self.frame_width} are more than "
                f"{MAX_ROW_BYTES >> 30} GiB an item; ask for fewer or smaller frames"
            )
        _listings.clear()  # an earlier run of this process may have seen the folder otherwise
        text.clip_tokenizer(CONTEXT_LENGTH)  # no tokenizer is an error here, not in a worker

    def source(self) -> Path:
        """The pairs file."""
        return Path(self.pairs_json)

    # ---- the plan

    def write_items(self, writer: PlanWriter) -> None:
        """Plan the pairs, or a seeded choice of them in input order."""
        chosen: set[int] | None = None
        if self.max_samples is not None:
            count = sum(1 for _ in read_pairs(self.source()))
            if self.max_samples < count:
                chosen = set(random.Random(self.seed).sample(range(count), self.max_samples))
        videos: list[str] = []
        for number, raw in enumerate(read_pairs(self.source())):
            if chosen is not None and number not in chosen:
                continue
            item = _flat(raw)
            if isinstance(raw, dict):
                item = {key: _flat(raw[key]) for key in _PLANNED_FIELDS if key in raw}
            writer.add(item)
            if self.videos_dir is not None:
                videos.append(str(item.get("vid")) if isinstance(item, dict) else "")
        if self.videos_dir is not None:
            writer.group(videos)

    def pair(self, item: Any) -> Pair:
        """The planned item, checked; raises :class:`InputError`."""
        return parse_pair(item, clip_required=self.clips_dir is not None)

    def item_id(self, ordinal: int, item: Any) -> str:
        """``{idx:06d}_{vid}``, whatever the vid is."""
        vid = item.get("vid") if isinstance(item, dict) else None
        return f"{ordinal:06d}_{vid}" if isinstance(vid, str) else f"{ordinal:06d}"

    def blob_name(self, ordinal: int, item: Any) -> str | None:
        """``sample_{id}`` for folders, ``{idx:06d}`` for tars; None where the id may not be a name."""
        if self.format == "webdataset":
            return f"{ordinal:06d}"
        name = self.item_id(ordinal, item)
        return None if unfit(name) or not isinstance(item, dict) or not item.get("vid") else f"sample_{name}"

    def input_file(self, item: Any) -> str | None:
        """The item's video."""
        if not isinstance(item, dict):
            return None
        try:
            if self.clips_dir is not None:  # only what is needed: a resume asks this for every item
                return f"{self.clips_dir}/{clip_name(item, needed=True)}"
            pair = self.pair(item)
            return str(self.locate(pair))
        except MissingInputError:
            return f"{self.videos_dir}/{pair.vid}"
        except InputError:
            return None

    def locate(self, pair: Pair) -> Path:
        """The pair's video file; raises :class:`MissingInputError`."""
        if self.clips_dir is not None:
            assert pair.clip_name is not None  # required with --clips-dir
            return Path(self.clips_dir, pair.clip_name)
        assert self.videos_dir is not None
        return _find_video(Path(self.videos_dir), pair.vid)

    def probe(self, item: Any) -> Facts:
        """What the video's headers say."""
        path = self.locate(self.pair(item))
        with decode.open(path, self.backend, self.stream, self.max_pixels) as decoder:
            info = decoder.info
            return Facts(info.codec, info.layout or "", info.upright, info.duration_seconds, decoder.backend)

    # ---- the work

    def rows(self) -> Sequence[RowSpec]:
        """``frames`` uint8 [T, H, W, 3] (not with ``all_frames``), ``tokens`` int64 [77], ``valid`` bool [T]."""
        frames = RowSpec("frames", (self.num_frames, self.frame_height, self.frame_width, 3), "|u1")
        tokens = RowSpec("tokens", (CONTEXT_LENGTH,), "<i8")
        valid = RowSpec("valid", (self.num_frames,), "|b1")
        return [tokens] if self.all_frames else [frames, tokens, valid]

    def sink(self, place: Place) -> Sink:
        """The output format asked for."""
        if self.format == "npy":
            return NpySink(place, self.rows())
        return WebDatasetSink(place) if self.format == "webdataset" else SamplesSink(place)

    def operator(self, place: Place, device: Device | None) -> Operator:
        """One clip at a time on a CPU core; on a card several, whose pictures share its decoders and its kernel."""
        if device is not None and self.backend != "ffmpeg":
            size = (self.frame_height, self.frame_width)
            count = max(1, CHUNK_NBYTES // (3 * size[0] * size[1])) if self.all_frames else self.num_frames
            return Lanes.on(device, count, size, lambda pool, rows: _Process(self, place, pool, rows))
        process = _Process(self, place)
        return ItemLoop(process, process.close)

    # ---- the end

    def thumbnail(self, place: Place, ordinal: int, item: Any, outcome: Outcome) -> np.ndarray | None:
        """A few frames side by side."""
        return thumbnails.thumbnail(place, self.format, ordinal, self.blob_name(ordinal, item))

    def remains(self) -> Iterable[str]:
        """Names :meth:`finish` writes."""
        return [INFO, *([TABLE] if self.format == "npy" else [])]

    def finish(self, dataset: Dataset) -> None:
        """Write ``dataset_info.json`` and, for rows, ``index.parquet``."""
        splits = assign_splits(dataset.plan.count, self.split_mode, self.seed)
        write_info(dataset, splits, self.item_id if self.format == "npy" else self.blob_name)
        if self.format == "npy":
            write_table(dataset, splits, self.item_id, lambda item: self.pair(item).text)


class _Process:
    """What a worker does with one pair; holds the tokenizer and the last video opened."""

    def __init__(
        self, job: ClipsJob, place: Place, pool: DecoderPool | None = None, rows: DeviceRows | None = None
    ) -> None:
        self._job = job
        self._tokenizer = text.clip_tokenizer(CONTEXT_LENGTH)
        self._reader = FrameReader(
            (job.frame_height, job.frame_width),
            job.backend,
            job.stream,
            job.strict,
            job.allow_partial,
            place.staging,
            job.tolerance,
            job.max_pixels,
            pool,
            rows,
        )
        self._splits: np.ndarray | None = None
        self._count = place.count

    def close(self) -> None:
        self._reader.close()

    def __call__(self, work: Work) -> Completion:
        job, stages = self._job, work.stages
        with stages("plan"):
            pair = job.pair(work.item)
            name = job.item_id(work.ordinal, work.item)
            if reason := unfit(name):
                raise InputError(f"vid {pair.vid!r}: {reason}; it names a folder of the output")
            path = job.locate(pair)
        window = None if job.clips_dir is not None else (pair.begin_time or 0.0, pair.end_time)
        rows = work.slot.rows
        if job.all_frames:
            frames = self._reader.every(path, window, stages)
        else:
            frames = self._reader.sampled(path, Sampling(job.num_frames, window), rows["frames"], stages)
            rows["valid"][:] = frames.valid
        work.backend = frames.backend
        with stages("text"):
            rows["tokens"][:] = self._tokenizer.encode(pair.text)

        blob = job.blob_name(work.ordinal, work.item) or ""
        if job.format == "webdataset":
            sample = Sample(blob, rows, lambda: tar_members(pair, path, frames, rows["tokens"], self._split(work)))
        else:
            sample = Sample(blob, rows, lambda: folder_files(pair, path, frames, rows["tokens"]))
        record = json.dumps([float(second) for second in frames.pts_seconds]) if job.format == "npy" else ""
        return Completion(work, sample, record)

    def _split(self, work: Work) -> str:
        if self._splits is None:
            self._splits = assign_splits(self._count, self._job.split_mode, self._job.seed)
        return SPLITS[self._splits[work.ordinal]]


def unfit(name: str) -> str:
    """Why an id may not be part of a file name; empty where it may."""
    if "/" in name or "\0" in name:
        return "holds a path separator"
    if ".." in name:
        return "holds '..'"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is {length} bytes long, at most {MAX_ID_BYTES} fit" if length > MAX_ID_BYTES else ""


def _flat(value: Any) -> Any:
    """The value without what is nested deeper than any field may be: of the wrong kind either way."""
    if isinstance(value, list):
        return [{} if isinstance(inner, (list, dict)) else inner for inner in value]
    return {} if isinstance(value, dict) else value


_listings: dict[Path, dict[str, list[str]]] = {}


def _find_video(folder: Path, vid: str) -> Path:
    """``{vid}.<any suffix>`` in `folder`, listed once a process."""
    if folder not in _listings:
        listing: dict[str, list[str]] = {}
        try:
            for path in folder.iterdir():
                listing.setdefault(path.stem, []).append(path.name)
        except OSError as error:  # the folder went away during the run
            raise MissingInputError(f"{folder}: cannot be read ({error.strerror})") from error
        _listings[folder] = listing
    names = sorted(_listings[folder].get(vid, []))
    if not names:
        raise MissingInputError(f"{folder / vid}.*: no such video")
    if len(names) > 1:
        raise InputError(f"{folder / vid}.*: expected one video, found {', '.join(names)}")
    return folder / names[0]
