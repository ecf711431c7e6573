"""Keypoints opened by their path: folders of shards, pickles, prepared arrays; and what is none of these."""

import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made import ROOT, SCHEMA, SPLITS, frames, write_dataset, write_old_pickle

from gpupipe.errors import InputError, MissingInputError
from gpupipe.landmarks.dataset import open_landmarks
from gpupipe.landmarks.pickle_file import write_pickle
from gpupipe.landmarks.shard_folder import ShardFolder
from gpupipe.ops.keypoints.points import POINTS
from gpupipe.plan import PlanWriter


def read(landmarks):
    """Every frame as (split, video, path, points, valid, visibility, shape, pts, readable)."""
    found = []
    for split in landmarks.splits:
        for clip in landmarks.clips(split):
            assert clip.split == split
            for t in range(len(clip)):
                seen = None if clip.visibility is None else clip.visibility[t]
                found.append(
                    (split, clip.video, clip.paths[t], clip.points[t], clip.valid[t], seen, tuple(clip.shapes[t]),
                     clip.pts_seconds[t], clip.readable[t])
                )  # fmt: skip
    return found


def assert_same(found, made, root=ROOT):
    assert [row[:3] for row in found] == [(frame.split, frame.video, frame.image_path(root)) for frame in made]
    for (_, _, _, points, valid, visibility, shape, pts, readable), frame in zip(found, made, strict=True):
        assert points.dtype == visibility.dtype == np.float32
        np.testing.assert_array_equal(points, frame.points)
        np.testing.assert_array_equal(valid, frame.valid)
        np.testing.assert_array_equal(visibility, frame.visibility)
        assert shape == frame.shape
        assert readable == frame.readable
        np.testing.assert_array_equal(pts, np.nan if frame.pts is None else frame.pts)


@pytest.mark.parametrize("clips", [False, True], ids=["pictures", "clips"])
@pytest.mark.parametrize(("shard_size", "row_group"), [(4, 8), (1, 1), (256, 4096)])
def test_a_folder_of_shards_gives_what_was_written(tmp_path, clips, shard_size, row_group):
    made = frames(clips=clips)
    assert not all(frame.readable for frame in made)
    with open_landmarks(write_dataset(tmp_path / "out", made, shard_size, row_group)) as landmarks:
        assert isinstance(landmarks, ShardFolder)
        assert landmarks.points == POINTS
        assert list(landmarks.splits) == list(SPLITS)
        assert_same(read(landmarks), made)
        assert_same(read(landmarks), made)  # and again


def test_splits_that_are_mixed_up_are_told_apart(tmp_path):
    made = frames(splits=("b", "a", "c"))
    mixed = [made[place] for place in np.random.default_rng(1).permutation(len(made))]
    with open_landmarks(write_dataset(tmp_path / "out", mixed, 4, 8)) as landmarks:
        assert list(landmarks.splits) == list(dict.fromkeys(frame.split for frame in mixed))
        for split in landmarks.splits:
            wanted = [frame.image_path() for frame in mixed if frame.split == split]
            assert [path for clip in landmarks.clips(split) for path in clip.paths] == wanted
        assert_same(read(landmarks), sorted(mixed, key=lambda frame: list(landmarks.splits).index(frame.split)))


def test_without_a_plan_paths_are_relative(tmp_path):
    made = frames()
    with open_landmarks(write_dataset(tmp_path / "out", made, root=None)) as landmarks:
        assert [row[2] for row in read(landmarks)] == [frame.path for frame in made]
    with ShardFolder(tmp_path / "out", "/else") as landmarks:
        assert_same(read(landmarks), made, "/else")


def test_a_lists_paths_are_relative_to_its_folder(tmp_path):
    made = frames(clips=True)
    out = write_dataset(tmp_path / "out", made, root=None)
    writer = PlanWriter(out / ".gpupipe", "keypoints", {}, {}, {"path": "/data/list.txt", "size": 12})
    writer.add("a")
    writer.publish().close()
    with open_landmarks(out) as landmarks:
        assert_same(read(landmarks), made, "/data")


def test_a_file_of_a_run_is_read_from_its_shards(tmp_path):
    made = frames()
    write_dataset(tmp_path / "all.pkl.gpupipe", made)
    for name in ("all.pkl", "all.pkl.gpupipe"):
        with open_landmarks(tmp_path / name) as landmarks:
            assert_same(read(landmarks), made)
    (tmp_path / "all.pkl").write_bytes(b"whatever")
    with open_landmarks(tmp_path / "all.pkl") as landmarks:
        assert_same(read(landmarks), made)


def test_a_file_whose_run_dropped_frames_is_read_itself(tmp_path):
    made = frames()
    out = write_dataset(tmp_path / "all.pkl.gpupipe", made, root=None)
    writer = PlanWriter(out / ".gpupipe", "keypoints", {"drop_empty": True}, {}, {"path": ROOT, "size": None})
    writer.add("a")
    writer.publish().close()
    with open_landmarks(tmp_path / "all.pkl.gpupipe") as landmarks:
        write_pickle(tmp_path / "all.pkl", landmarks, {}, drop_empty=True)
        assert_same(read(landmarks), made)
    with open_landmarks(tmp_path / "all.pkl") as landmarks:
        assert landmarks.points == 143
        assert [row[2] for row in read(landmarks)] == [frame.image_path() for frame in made if frame.valid.any()]


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    peaks = []
    for length in (3000, 9000):
        made = frames(splits=("train",), videos=1, length=2)
        long = [replace(made[number % 2], number=number) for number in range(length)]
        write_dataset(tmp_path / str(length), long, 256, 4096)
        tracemalloc.start()
        with open_landmarks(tmp_path / str(length)) as landmarks:
            assert sum(len(clip) for clip in landmarks.clips("train")) == length
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# --- what is not there, or damaged


def test_what_is_no_file_of_keypoints_is_said(tmp_path):
    with pytest.raises(MissingInputError, match=r"no\.pkl: no such file"):
        open_landmarks(tmp_path / "no.pkl")
    with pytest.raises(InputError, match="holds neither"):
        open_landmarks(tmp_path)
    (tmp_path / "run" / ".gpupipe").mkdir(parents=True)
    with pytest.raises(InputError, match="run is not complete"):
        open_landmarks(tmp_path / "run")
    (tmp_path / "a.pkl.gpupipe" / ".gpupipe").mkdir(parents=True)
    with pytest.raises(InputError, match=r"a\.pkl: its run is not complete"):
        open_landmarks(tmp_path / "a.pkl")


def test_an_old_pickle_beside_an_incomplete_run_is_read(tmp_path):
    (tmp_path / "a.pkl.gpupipe" / ".gpupipe").mkdir(parents=True)
    write_old_pickle(tmp_path / "a.pkl", frames())
    with open_landmarks(tmp_path / "a.pkl") as landmarks:
        assert len(read(landmarks)) == len(frames())


@pytest.fixture
def whole(tmp_path):
    return write_dataset(tmp_path / "out", frames())


def exhaust(folder):
    with open_landmarks(folder) as landmarks:
        read(landmarks)


def test_an_index_of_something_else(whole):
    pq.write_table(pa.table({"ordinal": [1], "split": ["train"]}), whole / "index.parquet")
    with pytest.raises(InputError, match="no column frame, height"):
        exhaust(whole)
    (whole / "index.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match=r"index\.parquet: cannot be read"):
        exhaust(whole)


def test_a_missing_shard(whole):
    (whole / "valid-00001.npy").unlink()
    with pytest.raises(MissingInputError, match=r"valid-00001\.npy: missing"):
        exhaust(whole)


def test_a_shard_cut_short(whole):
    data = (whole / "keypoints-00001.npy").read_bytes()
    (whole / "keypoints-00001.npy").write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"keypoints-00001\.npy: is cut short"):
        exhaust(whole)
    (whole / "keypoints-00001.npy").write_bytes(data[:30])
    with pytest.raises(InputError, match=r"keypoints-00001\.npy: is no array file"):
        exhaust(whole)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 143, 3), np.float32), np.zeros((4, 543, 3)), np.zeros((4, 543, 3), np.float32, order="F"),
     np.zeros((), np.float32)],
    ids=["143", "float64", "fortran", "scalar"],
)  # fmt: skip
def test_a_shard_of_something_else(whole, array):
    np.save(whole / "keypoints-00001.npy", array)
    with pytest.raises(InputError, match=r"keypoints-00001\.npy: holds float.*expected float32 \[S, 543, 3\]"):
        exhaust(whole)


def test_a_row_beyond_its_shard(whole):
    shutil.copy(whole / "keypoints-00007.npy", whole / "keypoints-00001.npy")  # the last one is shorter
    with pytest.raises(InputError, match=r"keypoints-00001\.npy: holds 2 rows; the index names row 3"):
        exhaust(whole)


def test_a_done_frame_without_a_row(whole):
    table = pq.read_table(whole / "index.parquet").to_pylist()
    table[5]["row"] = None
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), whole / "index.parquet")
    with pytest.raises(InputError, match=r"index\.parquet: a done frame has no shard or row"):
        exhaust(whole)


def test_an_altered_plan(whole):
    (whole / ".gpupipe" / "plan" / "plan.json").write_text("{}")
    with pytest.raises(InputError, match=r"plan"):
        exhaust(whole)
