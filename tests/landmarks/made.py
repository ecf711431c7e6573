"""Files of keypoints made from a seed: dataset folders in both forms, and pickles as the old scripts wrote them."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.ops.keypoints.points import COUNTS, FACE_68, PARTS, POINTS, SLICES
from gpupipe.plan import PlanWriter

ROOT = "/data/phoenix"
SPLITS = ("train", "dev")
SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("id", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("split", pa.string()),
        ("video_id", pa.string()),
        ("path", pa.string()),
        ("frame", pa.int32()),
        ("pts", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("status", pa.string()),
        ("orth", pa.string()),
        ("translation", pa.string()),
    ]
)


@dataclass(frozen=True)
class Frame:
    """One frame and what was found in it; `path` relative to the dataset, of its picture or of its video."""

    split: str
    video: str
    path: str
    number: int | None
    pts: float | None
    points: np.ndarray
    valid: np.ndarray
    visibility: np.ndarray
    shape: tuple[int, int]
    readable: bool = True

    def image_path(self, root: str = ROOT) -> str:
        """As pickles have it."""
        return f"{root}/{self.path}" + ("" if self.pts is None else f"#{self.number}")

    def part(self, name: str) -> np.ndarray | None:
        """A part as pickles have it: 68 points of the face."""
        if not self.valid[PARTS.index(name)]:
            return None
        points = self.points[SLICES[name]]
        return points[list(FACE_68)] if name == "face" else points


def frames(
    seed: int = 0, splits: Sequence[str] = SPLITS, videos: int = 3, length: int = 5, clips: bool = False
) -> list[Frame]:
    """Frames of every split and video, in order; some with nobody, some that could not be read.

    Parameters
    ----------
    seed : int
    splits : sequence of str
    videos, length : int
        Videos a split, frames a video.
    clips : bool
        Of video files, whose frames have times and fail together; else pictures in a folder a video.
    """
    rng = np.random.default_rng(seed)
    made = []
    for split in splits:
        for number in range(videos):
            video = f"{split}_{number:02d}"
            one = [_frame(rng, split, video, t, clips) for t in range(length)]
            if clips and number == videos - 1 and videos > 1:
                one = [_failed(replace(one[0], number=None, pts=None))]
            made += one
    if not clips and len(made) > 3:
        made[3] = _failed(made[3])
    return made


def _frame(rng: np.random.Generator, split: str, video: str, t: int, clips: bool) -> Frame:
    valid = rng.random(len(PARTS)) < 0.7
    if t == 1:
        valid[:] = False
    if t == 2:
        valid[:] = True
    points = np.zeros((POINTS, 3), np.float32)
    for part, found in zip(PARTS, valid, strict=True):
        if found:
            points[SLICES[part]] = rng.normal(0.5, 0.3, (COUNTS[part], 3))
    visibility = rng.random(COUNTS["pose"], np.float32) * valid[0]
    path = f"{split}/{video}.mp4" if clips else f"{split}/{video}/images{t + 1:04d}.png"
    return Frame(split, video, path, t, t / 25 if clips else None, points, valid, visibility, (260, 210))


def _failed(frame: Frame) -> Frame:
    nothing = {name: np.zeros_like(getattr(frame, name)) for name in ("points", "valid", "visibility")}
    return replace(frame, shape=(0, 0), readable=False, **nothing)


def write_dataset(
    folder: Path, made: Iterable[Frame], shard_size: int = 4, row_group: int = 8, root: str | None = ROOT
) -> Path:
    """Write a dataset folder: its items are clips where the frames have times, else pictures.

    Parameters
    ----------
    folder : Path
        Made with its parents.
    made : iterable of Frame
    shard_size : int
        Items a shard.
    row_group : int
        Rows of the index written together.
    root : str or None
        Of the dataset, as the plan names it; None for no plan.
    """
    made = list(made)
    folder.mkdir(parents=True)
    clips = any(frame.pts is not None for frame in made)
    items = [list(group) for _, group in groupby(made, lambda frame: frame.path)] if clips else [[f] for f in made]
    rows: list[dict[str, Any]] = []
    for shard in range(-(-len(items) // shard_size)):
        numbered = list(enumerate(items))[shard * shard_size : (shard + 1) * shard_size]
        kept = []
        for ordinal, item in numbered:
            for frame in item:
                row = len(kept) if frame.readable else None
                rows.append(_index_row(frame, ordinal, shard, row if clips or row is None else ordinal % shard_size))
                if frame.readable or not clips:
                    kept.append((ordinal, frame))
        _write_shard(folder, shard, kept, clips)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "index.parquet", row_group_size=row_group)
    if root is not None:
        writer = PlanWriter(folder / ".gpupipe", "keypoints", {}, {}, {"path": root, "size": None})
        for item in items:
            writer.add(item[0].path)
        writer.publish().close()
    return folder


def _index_row(frame: Frame, ordinal: int, shard: int, row: int | None) -> dict[str, Any]:
    height, width = frame.shape if frame.readable else (None, None)
    return {
        "ordinal": ordinal, "id": f"{ordinal:06d}", "shard": shard, "row": row, "split": frame.split,
        "video_id": frame.video, "path": frame.path, "frame": frame.number, "pts": frame.pts, "height": height,
        "width": width, "status": "done" if frame.readable else "failed", "orth": None, "translation": None,
    }  # fmt: skip


def _write_shard(folder: Path, shard: int, kept: list[tuple[int, Frame]], clips: bool) -> None:
    columns = {
        "keypoints": (np.float32, (POINTS, 3), [frame.points for _, frame in kept]),
        "valid": (np.bool_, (len(PARTS),), [frame.valid for _, frame in kept]),
        "visibility": (np.float32, (COUNTS["pose"],), [frame.visibility for _, frame in kept]),
        "shape": (np.int32, (2,), [frame.shape for _, frame in kept]),
    }
    if clips:
        columns["ordinal"] = (np.int64, (), [ordinal for ordinal, _ in kept])
        columns["pts"] = (np.float64, (), [np.nan if frame.pts is None else frame.pts for _, frame in kept])
    for name, (dtype, shape, values) in columns.items():
        np.save(folder / f"{name}-{shard:05d}.npy", np.array(values, dtype).reshape(len(kept), *shape))


def old_entry(frame: Frame, dtype: Any = np.float64, image_shape: bool = True) -> dict[str, Any]:
    """A frame's dict as the old script made it."""
    entry: dict[str, Any] = {}
    for name in ("face", "left_hand", "right_hand", "pose"):
        part = frame.part(name)
        entry[name] = None if part is None else part.astype(dtype)
    if image_shape:
        entry["image_shape"] = frame.shape
    return entry


def write_old_pickle(
    path: Path,
    made: Iterable[Frame],
    dtype: Any = np.float64,
    image_shape: bool = True,
    nones: bool = True,
    stats: bool = True,
    protocol: int | None = None,
    root: str = ROOT,
) -> Path:
    """Write a pickle with plain ``pickle.dump``, as the old script did.

    Parameters
    ----------
    path : Path
    made : iterable of Frame
    dtype : dtype-like
        Of the parts.
    image_shape : bool
        Whether each frame's dict has it.
    nones : bool
        An unreadable frame is None instead of a dict of four Nones.
    stats : bool
        Whether the file has counts and words beside the frames.
    protocol : int or None
        Of pickle; None for its default.
    root : str
        Goes before each path.
    """
    data: dict[str, Any] = {}
    counts: dict[str, dict[str, Any]] = {}
    for frame in made:
        lists = data.setdefault(frame.split, {"keypoints": [], "image_paths": [], "video_ids": []})
        entry = old_entry(frame, dtype, image_shape) if frame.readable or not nones else None
        lists["keypoints"].append(entry)
        lists["image_paths"].append(frame.image_path(root))
        lists["video_ids"].append(frame.video)
        count = counts.setdefault(frame.split, {"total": 0, "success": 0, "failed": 0, "total_time": 1.5})
        count["total"] += 1
        count["success" if frame.valid.any() else "failed"] += 1
    if stats:
        data |= {
            "stats": counts,
            "keypoint_info": {"face": "68 points", "total": 143},
            "dataset_info": {"name": "PHOENIX-2014-T", "path": root},
        }
    with path.open("wb") as file:
        pickle.dump(data, file, protocol=protocol)
    return path
