"""A folder of shards of keypoints, as the job leaves it, with an index of a row a frame."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpupipe.closing import Closing
from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.clip import DONE, Clip
from gpupipe.landmarks.names import stream_of
from gpupipe.landmarks.parts import FRAMES, Counts, runs
from gpupipe.landmarks.shard_rows import ShardRows
from gpupipe.ops.keypoints.points import COUNTS, PARTS, POINTS
from gpupipe.plan import BOOKKEEPING, Plan, exists

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

INDEX = "index.parquet"
_ARRAYS = {"keypoints": ("<f4", (POINTS, 3)), "valid": ("|b1", (len(PARTS),)), "visibility": ("<f4", (COUNTS["pose"],))}
_COLUMNS = ("split", "video_id", "path", "frame", "pts", "height", "width", "status", "shard", "row")


class ShardFolder(Closing):
    """Reads a folder of shards; memory is that of one part of a clip and a few thousand rows of the index.

    Parameters
    ----------
    folder : Path
        With ``index.parquet``.
    root : str or None
        The dataset's own folder, joined before each path; None for the one that the plan names, if there is a plan.

    Attributes
    ----------
    stream : int or None
        Which one of its videos' streams was read, as the plan has it; None for the one FFmpeg calls best.

    Raises
    ------
    InputError
        Something of it is missing or damaged.
    """

    points = POINTS

    def __init__(self, folder: Path, root: str | None = None) -> None:
        import pyarrow.parquet as pq

        self._folder = folder
        self._root = planned_root(folder) if root is None else root
        self.stream = planned_stream(folder)
        self._shards: dict[str, tuple[int, ShardRows]] = {}
        with ExitStack() as opened, self._index_errors():
            file = opened.enter_context((folder / INDEX).open("rb"))  # pyarrow opens no path that is not UTF-8
            self._index: pq.ParquetFile = pq.ParquetFile(file)
            missing = set(_COLUMNS) - set(self._index.schema_arrow.names)
            if missing:
                raise InputError(
                    f"{folder / INDEX}: has no column {', '.join(sorted(missing))}; expected the index of a keypoints "
                    "run."
                )
            self._groups = self._find_splits()
            self._opened = opened.pop_all()

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits, in the order of the index."""
        return list(self._groups)

    def clips(self, split: str) -> Iterator[Clip]:
        """The clips of a split; a part of one ends where the index's group of rows does, or after 1,024 frames."""
        import pyarrow.compute as pc

        with self._index_errors():
            for group in self._groups[split]:
                for batch in self._index.iter_batches(4 * FRAMES, row_groups=[group], columns=list(_COLUMNS)):
                    yield from self._parts(split, batch.filter(pc.equal(batch.column("split"), split)))

    def unlisted(self, split: str) -> Counts:
        """Nothing but a time that is not known: every frame is listed."""
        return Counts(seconds=math.nan)

    def close(self) -> None:
        """Close the files."""
        self._opened.close()
        for _, rows in self._shards.values():
            rows.close()
        self._shards = {}

    def _find_splits(self) -> dict[str, list[int]]:
        """The groups of rows in which each split has frames."""
        groups: dict[str, list[int]] = {}
        with self._index_errors():
            for group in range(self._index.num_row_groups):
                for split in self._index.read_row_group(group, columns=["split"]).column("split").unique().to_pylist():
                    groups.setdefault(split, []).append(group)
        return groups

    def _parts(self, split: str, batch: pa.RecordBatch) -> Iterator[Clip]:
        column = {name: batch.column(name) for name in _COLUMNS}
        videos = column["video_id"].to_pylist()
        for begin, end in runs(videos):
            yield self._clip(split, videos[begin], {k: v.slice(begin, end - begin) for k, v in column.items()})

    def _clip(self, split: str, video: str, column: dict[str, pa.Array]) -> Clip:
        readable = np.array(column["status"].to_pylist()) == DONE
        frames, pts = column["frame"].to_pylist(), _numbers(column["pts"], np.nan, np.float64)
        paths = [
            posixpath.join(self._root, path) + ("" if frame is None or np.isnan(seconds) else f"#{frame}")
            for path, frame, seconds in zip(column["path"].to_pylist(), frames, pts, strict=True)
        ]
        arrays = self._gather(
            _numbers(column["shard"], -1, np.int64), _numbers(column["row"], -1, np.int64), np.flatnonzero(readable)
        )
        shapes = np.stack([_numbers(column["height"], 0, np.int32), _numbers(column["width"], 0, np.int32)], axis=1)
        return Clip(
            split, video, paths, arrays["keypoints"], arrays["valid"], arrays["visibility"], shapes, pts, readable
        )

    def _gather(
        self, shards: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], done: npt.NDArray[np.int64]
    ) -> dict[str, Any]:
        """The rows of every array; zeros but for those `done`."""
        arrays: dict[str, Any] = {
            name: np.zeros((len(rows), *shape), dtype) for name, (dtype, shape) in _ARRAYS.items()
        }
        if (shards[done] < 0).any() or (rows[done] < 0).any():
            raise InputError(f"{self._folder / INDEX}: a done frame has no shard or row. Make the folder again.")
        for shard in np.unique(shards[done]).tolist():
            frames = done[shards[done] == shard]
            wanted = rows[frames]
            first, last = int(wanted.min()), int(wanted.max())
            # Nearly always all rows between belong here: then one copy less.
            whole = len(wanted) == last + 1 - first == int(frames[-1]) + 1 - int(frames[0])
            for name, array in arrays.items():
                read = self._rows(name, shard).read(first, last + 1)
                if whole and (np.diff(wanted) == 1).all():
                    array[frames[0] : frames[-1] + 1] = read
                else:
                    array[frames] = read[wanted - first]
        return arrays

    def _rows(self, name: str, shard: int) -> ShardRows:
        number, rows = self._shards.get(name, (-1, None))
        if rows is None or number != shard:
            if rows is not None:
                rows.close()
                del self._shards[name]
            rows = ShardRows(self._folder / f"{name}-{shard:05d}.npy", *_ARRAYS[name])
            self._shards[name] = (shard, rows)
        return rows

    @contextmanager
    def _index_errors(self) -> Iterator[None]:
        from pyarrow import ArrowException

        try:
            yield
        except InputError:
            raise
        except (ArrowException, OSError) as error:
            words = str(error)[:200].replace("\n", " ")
            raise InputError(
                f"{self._folder / INDEX}: cannot be read ({words}). Run the command that made the folder again."
            ) from error


def planned_root(folder: Path) -> str:
    """The dataset's absolute path as the plan in `folder` names it, a list's folder; empty where there is no plan."""
    bookkeeping = folder / BOOKKEEPING
    if not exists(bookkeeping):
        return ""
    source = _planned(bookkeeping).source
    path = str(source.get("path") or "")
    return path if source.get("size") is None else posixpath.dirname(path)  # only files have a size there


def planned_stream(folder: Path) -> int | None:
    """The stream of videos that the run in `folder` was asked to read; None where it was not asked."""
    return stream_of(_words(folder))


def drops_empty(folder: Path) -> bool:
    """Whether the run in `folder` was asked to leave frames with nobody out of its pickle."""
    return bool(_words(folder).get("drop_empty"))


def _words(folder: Path) -> dict[str, Any]:
    bookkeeping = folder / BOOKKEEPING
    if not exists(bookkeeping):
        return {}
    plan = _planned(bookkeeping)
    return {**plan.inputs, **plan.options}


def _planned(bookkeeping: Path) -> Plan:
    try:
        plan = Plan(bookkeeping / "plan")
    except UsageError as error:
        raise InputError(str(error)) from error
    plan.close()
    return plan


def _numbers(column: pa.Array, missing: float, dtype: Any) -> Any:
    """A column as an array, `missing` for nulls."""
    return column.fill_null(missing).to_numpy(zero_copy_only=False).astype(dtype)
