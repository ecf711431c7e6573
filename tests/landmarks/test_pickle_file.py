"""The pickle of keypoints: what plain pickle reads of it, and what is read of others'."""

import math
import pickle
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from held import Held, at_random, clip
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ROOT, Frame, frames, write_dataset, write_old_pickle

from gpupipe.errors import InputError, OutputError
from gpupipe.landmarks.dataset import open_landmarks
from gpupipe.landmarks.npz_file import prepare
from gpupipe.landmarks.packing import PACKED_INDICES, PACKED_SLICES
from gpupipe.landmarks.pickle_file import write_pickle
from gpupipe.landmarks.records import LoadedPickle
from gpupipe.landmarks.streamed_pickle import StreamedPickle
from gpupipe.ops.keypoints.points import FACE_68, SLICES
from gpupipe.sinks.pickles import dumps

PACKED = ("face", "left_hand", "right_hand", "pose")


def entry_of(frame: Frame) -> dict:
    """A frame's dict as the contract has it."""
    return {**{name: frame.part(name) for name in PACKED}, "image_shape": frame.shape if frame.readable else None}


def expected(made, info, drop_empty=False, total_time=math.nan):
    """The whole object, made in memory."""
    data, stats = {}, {}
    for frame in made:
        count = stats.setdefault(
            frame.split,
            {"total": 0, "success": 0, "failed": 0, "nobody": 0, "unreadable": 0, "total_time": total_time},
        )
        lists = data.setdefault(frame.split, {"keypoints": [], "image_paths": [], "video_ids": []})
        success = bool(frame.valid.any())
        count["total"] += 1
        count["success" if success else "failed"] += 1
        if not success:
            count["nobody" if frame.readable else "unreadable"] += 1
            if drop_empty:
                continue
        lists["keypoints"].append(entry_of(frame))
        lists["image_paths"].append(frame.image_path())
        lists["video_ids"].append(frame.video)
    return {**data, "stats": stats, "keypoint_info": ..., "dataset_info": info}


def assert_same(got, want):
    """Equal in type and value, but where `want` is ``...``."""
    if want is ...:
        return
    assert type(got) is type(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, list):
        assert len(got) == len(want)
        for left, right in zip(got, want, strict=True):
            assert_same(left, right)
    elif isinstance(want, np.ndarray):
        assert got.dtype == want.dtype
        assert got.flags.writeable
        np.testing.assert_array_equal(got, want)
    else:
        assert repr(got) == repr(want)


@pytest.fixture(params=[False, True], ids=["pictures", "clips"])
def made(request):
    return frames(clips=request.param)


@pytest.fixture
def folder(made, tmp_path):
    return write_dataset(tmp_path / "out", made)


@pytest.mark.parametrize("drop_empty", [False, True])
def test_plain_pickle_reads_the_contracts_structure(tmp_path, made, folder, drop_empty):
    with open_landmarks(folder) as landmarks:
        counts = write_pickle(tmp_path / "a.pkl", landmarks, {"name": "phoenix"}, drop_empty)
    with (tmp_path / "a.pkl").open("rb") as file:
        data = pickle.load(file)
    assert_same(data, expected(made, {"name": "phoenix"}, drop_empty))
    assert data["keypoint_info"]["total"] == 143
    assert data["keypoint_info"]["face_indices"] == list(FACE_68)
    assert {split: repr(count.to_json()) for split, count in counts.items()} == {
        split: repr(count) for split, count in data["stats"].items()
    }
    total = sum(stats["total"] for stats in data["stats"].values())
    listed = sum(len(data[split]["keypoints"]) for split in data["stats"])
    assert total == len(made)
    assert (listed < total) == drop_empty


def test_bytes_are_those_of_the_object_written_whole(tmp_path, made, folder):
    for name in ("a.pkl", "b.pkl"):
        with open_landmarks(folder) as landmarks:
            write_pickle(tmp_path / name, landmarks, {"name": "phoenix"})
    data = (tmp_path / "a.pkl").read_bytes()
    assert data == (tmp_path / "b.pkl").read_bytes()
    assert data == dumps(pickle.loads(data))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pkl", "b.pkl", "out"]


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
def test_lists_of_any_length(tmp_path, count):
    points, valid = at_random(count, count, 143)
    source = Held([clip(points, valid, video="one")] if count else [], 143)
    write_pickle(tmp_path / "a.pkl", source, {})
    data = (tmp_path / "a.pkl").read_bytes()
    assert data == dumps(pickle.loads(data))
    with open_landmarks(tmp_path / "a.pkl") as landmarks:
        assert isinstance(landmarks, StreamedPickle)
        got = [each for split in landmarks.splits for each in landmarks.clips(split)]
    assert sum(map(len, got)) == count
    if count:
        np.testing.assert_array_equal(np.concatenate([each.points for each in got]), points)


def test_over_a_thousand_splits(tmp_path):
    points, valid = at_random(0, 1, 143)
    source = Held([clip(points, valid, split=f"s{number}") for number in range(2001)], 143)
    write_pickle(tmp_path / "a.pkl", source, {})
    data = (tmp_path / "a.pkl").read_bytes()
    assert data == dumps(pickle.loads(data))
    with open_landmarks(tmp_path / "a.pkl") as landmarks:
        assert isinstance(landmarks, StreamedPickle)
        assert list(landmarks.splits) == list(source.splits)


def frames_of(landmarks):
    """Every frame as (split, video, path, points, valid, shape, readable)."""
    return [
        (split, each.video, each.paths[t], each.points[t], each.valid[t], tuple(each.shapes[t]), each.readable[t])
        for split in landmarks.splits
        for each in landmarks.clips(split)
        for t in range(len(each))
    ]


def assert_frames(found, made, shapes=True, root=ROOT):
    assert [row[:3] for row in found] == [(frame.split, frame.video, frame.image_path(root)) for frame in made]
    for (_, _, _, points, valid, shape, readable), frame in zip(found, made, strict=True):
        assert points.dtype == np.float32
        np.testing.assert_array_equal(points, frame.points[PACKED_INDICES])
        np.testing.assert_array_equal(valid, frame.valid)
        assert shape == (frame.shape if shapes else (0, 0))
        assert readable == frame.readable


def test_packed_points_are_where_the_contract_has_them(made):
    frame = next(frame for frame in made if frame.valid.all())
    packed = frame.points[PACKED_INDICES]
    for place, name in ((slice(0, 68), "face"), (slice(68, 89), "left_hand"), (slice(89, 110), "right_hand"),
                        (slice(110, 143), "pose")):  # fmt: skip
        assert PACKED_SLICES[name] == place
        np.testing.assert_array_equal(packed[place], frame.part(name))
    np.testing.assert_array_equal(frame.part("face")[0], frame.points[SLICES["face"].start + 10])


def test_ours_is_streamed_and_gives_what_was_written(tmp_path, made, folder):
    with open_landmarks(folder) as landmarks:
        write_pickle(tmp_path / "a.pkl", landmarks, {"name": "phoenix"})
    with open_landmarks(tmp_path / "a.pkl") as landmarks:
        assert isinstance(landmarks, StreamedPickle)
        assert landmarks.points == 143
        assert_frames(frames_of(landmarks), made)
        assert_frames(frames_of(landmarks), made)
    with LoadedPickle(tmp_path / "a.pkl") as loaded:
        assert_frames(frames_of(loaded), made)


def test_ours_written_again_is_the_same(tmp_path, folder):
    with open_landmarks(folder) as landmarks:
        write_pickle(tmp_path / "a.pkl", landmarks, {"name": "phoenix"})
    for reader in (StreamedPickle.recognised, LoadedPickle):
        with reader(tmp_path / "a.pkl") as landmarks:
            write_pickle(tmp_path / "b.pkl", landmarks, {"name": "phoenix"})
        assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_a_shape_nobody_knows_stays_unknown(tmp_path):
    made = [replace(frame, shape=(0, 0)) for frame in frames()]
    with open_landmarks(write_dataset(tmp_path / "out", made)) as landmarks:
        write_pickle(tmp_path / "a.pkl", landmarks, {})
    with (tmp_path / "a.pkl").open("rb") as file:
        entries = pickle.load(file)["train"]["keypoints"]
    readable = [frame.readable for frame in made if frame.split == "train"]
    assert ["image_shape" in entry for entry in entries] == [not one for one in readable]
    for reader in (StreamedPickle.recognised, LoadedPickle):
        with reader(tmp_path / "a.pkl") as landmarks:
            assert_frames(frames_of(landmarks), made)


def test_long_and_strange_texts(tmp_path):
    paths = ["é" * 200, "\udc80/x", "", "a" * 255, "b" * 256, "🙂"]
    points, valid = at_random(3, len(paths), 143)
    source = Held([clip(points, valid, split="spl\u00eft", video="v" * 300, paths=paths, shapes=(70000, 256))], 143)
    write_pickle(tmp_path / "a.pkl", source, {})
    for reader in (StreamedPickle.recognised, LoadedPickle):
        with reader(tmp_path / "a.pkl") as landmarks:
            assert list(landmarks.splits) == ["spl\u00eft"]
            (got,) = landmarks.clips("spl\u00eft")
        assert list(got.paths) == paths
        assert got.video == "v" * 300
        assert got.shapes.tolist() == [[70000, 256]] * len(paths)


def test_a_split_of_a_reserved_name_is_refused(tmp_path):
    source = Held([clip(*at_random(0, 2), split="stats")])
    with pytest.raises(InputError, match="'stats'"):
        write_pickle(tmp_path / "a.pkl", source, {})
    assert not list(tmp_path.iterdir())


def test_it_is_there_whole_or_not_at_all(tmp_path, folder):
    (folder / "keypoints-00001.npy").unlink()
    (tmp_path / "a.pkl").write_bytes(b"old")
    with open_landmarks(folder) as landmarks, pytest.raises(InputError, match="missing"):
        write_pickle(tmp_path / "a.pkl", landmarks, {})
    assert (tmp_path / "a.pkl").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pkl", "out"]
    with open_landmarks(folder) as landmarks, pytest.raises(OutputError, match=r"cannot write .*no/a\.pkl"):
        write_pickle(tmp_path / "no" / "a.pkl", landmarks, {})


KILLED = """
import os, sys
from pathlib import Path
from gpupipe.sinks.files import staged_beside
with staged_beside(Path(sys.argv[1])) as partial:
    partial.write_bytes(bytes(1 << 20))
    os._exit(9)
"""


def test_what_a_kill_leaves_is_gone_with_the_next(tmp_path, folder):
    path = tmp_path / "a.pkl"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == 9
    assert not path.exists() and len(list(tmp_path.iterdir())) == 2
    with open_landmarks(folder) as landmarks:
        write_pickle(path, landmarks, {})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.pkl", "out"]
    assert pickle.loads(path.read_bytes())["train"]


# --- pickles of older programs


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f4", np.float16])
def test_old_pickles(tmp_path, protocol, dtype):
    made = frames()
    write_old_pickle(tmp_path / "old.pkl", made, dtype, protocol=protocol)
    with open_landmarks(tmp_path / "old.pkl") as landmarks:
        assert isinstance(landmarks, LoadedPickle)
        rounded = [replace(frame, points=frame.points.astype(dtype).astype(np.float32)) for frame in made]
        assert_frames(frames_of(landmarks), rounded)


@pytest.mark.parametrize("nones", [False, True])
def test_old_pickles_without_shapes_or_stats(tmp_path, nones):
    made = frames()
    write_old_pickle(tmp_path / "old.pkl", made, image_shape=False, nones=nones, stats=False)
    if not nones:  # four Nones and no shape: nothing says that it could not be read
        made = [replace(frame, readable=True) for frame in made]
    with open_landmarks(tmp_path / "old.pkl") as landmarks:
        assert_frames(frames_of(landmarks), made, shapes=False)
        assert math.isnan(landmarks.unlisted("train").seconds)


def test_lists_stand_for_arrays_and_shapes_may_have_channels(tmp_path):
    made = frames()
    path = write_old_pickle(tmp_path / "old.pkl", made, nones=False)
    with path.open("rb") as file:
        data = pickle.load(file)
    for lists in (data["train"], data["dev"]):
        for entry in lists["keypoints"]:
            for name in PACKED:
                entry[name] = None if entry[name] is None else entry[name].tolist()
            entry["image_shape"] = [*entry["image_shape"], 3]
    path.write_bytes(pickle.dumps(data))
    with open_landmarks(path) as landmarks:
        assert_frames(frames_of(landmarks), [replace(frame, readable=True) for frame in made])


def test_splits_that_share_their_lists(tmp_path):
    lists = {"keypoints": [{"face": None, "left_hand": None, "right_hand": None, "pose": np.ones((33, 3))}],
             "image_paths": ["a"], "video_ids": ["v"]}  # fmt: skip
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({"train": lists, "all": lists}))
    with open_landmarks(tmp_path / "old.pkl") as landmarks:
        for split in ("train", "all"):
            (got,) = landmarks.clips(split)
            assert got.valid.tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("stats", "unlisted"),
    [
        ({"train": {"total": 20, "success": 9, "failed": 11, "total_time": 7.5}}, (5, 0, 0, 7.5)),
        ({"train": {"total": 20, "success": 9, "failed": 11, "nobody": 4, "unreadable": 1}}, (5, 4, 1, math.nan)),
        ({"train": {"total": 2, "total_time": True}}, (0, 0, 0, math.nan)),
        ({"train": {"total": "many", "total_time": math.inf}}, (0, 0, 0, math.nan)),
        ({"train": None}, (0, 0, 0, math.nan)),
        ([], (0, 0, 0, math.nan)),
    ],
)
def test_what_old_files_count_beside_their_frames(tmp_path, stats, unlisted):
    path = write_old_pickle(tmp_path / "old.pkl", frames())
    with path.open("rb") as file:
        data = pickle.load(file)
    path.write_bytes(pickle.dumps({**data, "stats": stats}))
    with open_landmarks(path) as landmarks:
        got = landmarks.unlisted("train")
    assert repr((got.total, got.nobody, got.unreadable, got.seconds)) == repr(unlisted)
    assert got.success == 0


LISTS = {"keypoints": [None], "image_paths": ["a"], "video_ids": ["v"]}


def entry(**parts):
    return {"train": {**LISTS, "keypoints": [{"face": None, **parts}]}}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1, 2], "holds a list of 2; expected a dict of splits"),
        (np.zeros(3), r"holds an array float64 \[3\]"),
        ({1: LISTS}, "a key is 1"),
        ({10**5000: LISTS}, "a key is a int"),
        ({"train": []}, "'train': is a list of 0; expected a dict with the lists"),
        ({"train": {}}, "'train': is an empty dict"),
        ({"train": {"keypoints": [], "video_ids": []}}, "is a dict of 'keypoints', 'video_ids'"),
        ({"train": {**LISTS, "image_paths": np.array(["a"])}}, r"image_paths is an array <U1 \[1\]"),
        ({"train": {**LISTS, "image_paths": []}}, "1 keypoints, 0 image_paths, 1 video_ids; expected as many"),
        ({"train": {**LISTS, "video_ids": [7]}}, r"video_ids\[0\] is 7; expected text"),
        ({"train": {**LISTS, "keypoints": [3.5]}}, r"train: keypoints\[0\] is 3\.5; expected a dict of face"),
        ({"train": {**LISTS, "keypoints": [{"nose": 1}]}}, r"keypoints\[0\] is a dict of 'nose'"),
        (entry(face=np.zeros((468, 3))), r"face is an array float64 \[468, 3\]; expected \[68, 3\] numbers"),
        (entry(pose=np.zeros((33, 3), bool)), "pose is an array bool"),
        (entry(pose=[[1, 2, 3], [4]]), "pose is a list of 2"),
        (entry(pose="x" * 1000), "pose is 'x{40}';"),
        (entry(image_shape=(1,)), r"image_shape is a tuple of 1; expected \(height, width\)"),
        (entry(image_shape=(1, -2)), "image_shape is a tuple"),
        (entry(image_shape=(1, 2**31)), "image_shape is a tuple"),
        (entry(image_shape=260), "image_shape is 260"),
    ],
)
def test_other_structures_are_refused_with_what_was_found(tmp_path, data, said):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(data))
    with pytest.raises(InputError, match=rf"a\.pkl: .*{said}"):
        open_landmarks(tmp_path / "a.pkl")


def test_a_hostile_pickle_runs_nothing(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path).encode() + b"/ran'\ntR.")
    with pytest.raises(InputError, match=r"a\.pkl: .*os\.system"):
        open_landmarks(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()


def test_hostile_words_behind_our_own_frames_run_nothing(tmp_path):
    write_pickle(tmp_path / "a.pkl", Held([clip(*at_random(0, 3, 143))], 143), {"note": "x"})
    data = (tmp_path / "a.pkl").read_bytes()
    hostile = data.replace(b"\x8c\x01x", b"cos\nsystem\n(S'touch " + str(tmp_path).encode() + b"/ran'\ntR")
    assert hostile != data
    (tmp_path / "a.pkl").write_bytes(hostile)
    with pytest.raises(InputError, match=r"a\.pkl: .*os\.system"):
        open_landmarks(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()


def test_every_truncation_is_an_input_error(tmp_path):
    write_pickle(tmp_path / "a.pkl", Held([clip(*at_random(0, 2, 143))], 143), {})
    data = (tmp_path / "a.pkl").read_bytes()
    for length in [*range(0, len(data), 97), len(data) - 1]:
        (tmp_path / "a.pkl").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"a\.pkl"):
            open_landmarks(tmp_path / "a.pkl")


@settings(max_examples=150, derandomize=True)  # always the same: a forged memo index could ask for tens of GiB
@given(st.data())
def test_damage_gives_an_input_error_or_frames(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damage"
    folder.mkdir(exist_ok=True)
    write_pickle(folder / "a.pkl", Held([clip(*at_random(0, 3, 143))], 143), {"note": [1, "x"]})
    source = bytearray((folder / "a.pkl").read_bytes())
    structure = [0, 400, 1200, 1560, len(source) - 1]  # most of the rest are points, which may be anything
    for _ in range(data.draw(st.integers(1, 3))):
        near = data.draw(st.sampled_from(structure)) + data.draw(st.integers(-200, 200))
        source[min(max(near, 0), len(source) - 1)] = data.draw(st.integers(0, 255))
    (folder / "a.pkl").write_bytes(source)
    try:
        with open_landmarks(folder / "a.pkl") as landmarks:
            frames_of(landmarks)
    except InputError:
        return


def test_a_file_changed_while_it_is_read(tmp_path):
    write_pickle(tmp_path / "a.pkl", Held([clip(*at_random(0, 3, 143))], 143), {})
    with open_landmarks(tmp_path / "a.pkl") as landmarks:
        data = (tmp_path / "a.pkl").read_bytes()
        (tmp_path / "a.pkl").write_bytes(data[:100] + bytes(len(data) - 100))
        with pytest.raises(InputError, match="changed while it was read"):
            list(landmarks.clips("train"))


def test_memory_does_not_grow_with_the_frames(tmp_path):
    """Nor while a pickle is written, nor while it is read, nor while arrays are made of it."""
    points, valid = at_random(0, 500, 143)
    one = clip(points, valid, shapes=(260, 210))
    peaks = []
    for count in (8, 24):
        source = Held([one] * count, 143)
        tracemalloc.start()
        write_pickle(tmp_path / "a.pkl", source, {})
        with open_landmarks(tmp_path / "a.pkl") as landmarks:
            assert isinstance(landmarks, StreamedPickle)
            assert prepare(landmarks, tmp_path / "m")[0]["num_samples"] == 500 * count
        with open_landmarks(tmp_path / "m") as landmarks:
            assert sum(map(len, landmarks.clips("train"))) == 500 * count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < (tmp_path / "a.pkl").stat().st_size
