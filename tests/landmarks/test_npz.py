"""The arrays to train on: what numpy reads of them, and what is read back."""

import argparse
import io
import json
import zipfile

import numpy as np
import pytest
from held import Held, at_random, clip
from made import SPLITS, frames, write_dataset, write_old_pickle

from gpupipe.cli import keypoint_prepare
from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.dataset import open_landmarks
from gpupipe.landmarks.npz_file import NpzFolder, prepare
from gpupipe.landmarks.packing import PACKED_INDICES
from gpupipe.landmarks.pickle_file import write_pickle
from gpupipe.ops.keypoints.points import PARTS, POINTS


def command(*words):
    parser = argparse.ArgumentParser()
    keypoint_prepare.add(parser.add_subparsers())
    arguments = parser.parse_args(["prepare", *map(str, words)])
    return arguments.run(arguments)


def load(path):
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(params=[False, True], ids=["pictures", "clips"])
def made(request):
    return frames(clips=request.param)


@pytest.fixture(params=["shards", "pickle", "old pickle"])
def source(request, made, tmp_path):
    if request.param == "old pickle":
        return write_old_pickle(tmp_path / "old.pkl", made, image_shape=False)
    out = write_dataset(tmp_path / "out", made)
    if request.param == "pickle":
        with open_landmarks(out) as landmarks:
            write_pickle(tmp_path / "a.pkl", landmarks, {})
        return tmp_path / "a.pkl"
    return out


def assert_arrays(data, made):
    assert list(data) == ["keypoints", "image_paths", "video_ids", "valid"]
    assert data["keypoints"].dtype == np.float32
    assert data["keypoints"].shape == (len(made), 143, 3)
    points = [frame.points[PACKED_INDICES] for frame in made]
    np.testing.assert_array_equal(data["keypoints"], np.reshape(points, (len(made), 143, 3)))
    assert data["valid"].dtype == np.bool_
    np.testing.assert_array_equal(data["valid"], np.reshape([frame.valid for frame in made], (len(made), 4)))
    assert data["image_paths"].dtype.kind == data["video_ids"].dtype.kind == "U"
    assert data["image_paths"].tolist() == [frame.image_path() for frame in made]
    assert data["video_ids"].tolist() == [frame.video for frame in made]


def test_numpy_reads_the_shards_values(source, made, tmp_path, capsys):
    assert command("--keypoints-file", source, "--output-dir", tmp_path / "in" / "model") == 0
    folder = tmp_path / "in" / "model"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{split}_{name}" for split in SPLITS for name in ("keypoints.npz", "stats.json")
    )
    for split in SPLITS:
        here = [frame for frame in made if frame.split == split]
        assert_arrays(load(folder / f"{split}_keypoints.npz"), here)
        valid = np.array([frame.valid for frame in here])
        assert json.loads((folder / f"{split}_stats.json").read_text()) == {
            "split": split,
            "num_samples": len(here),
            "num_videos": len({frame.video for frame in here}),
            "keypoint_shape": [len(here), 143, 3],
            **{f"{part}_detected": int(valid[:, PARTS.index(part)].sum()) for part in PARTS},
        }
        assert (
            f"{split}: {len(here)} frames of {len({frame.video for frame in here})} videos" in capsys.readouterr().out
            or (split != SPLITS[0])
        )


def test_only_some_splits_clipped_and_without_empty_frames(source, made, tmp_path):
    words = ["--keypoints-file", source, "--output-dir", tmp_path / "m"]
    assert command(*words, "--splits", "dev", "--normalize", "--drop-empty") == 0
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["dev_keypoints.npz", "dev_stats.json"]
    here = [frame for frame in made if frame.split == "dev" and frame.valid.any()]
    assert len(here) < len([frame for frame in made if frame.split == "dev"])
    data = load(tmp_path / "m" / "dev_keypoints.npz")
    points = np.array([frame.points[PACKED_INDICES] for frame in here])
    assert points.min() < 0
    assert points.max() > 1
    np.testing.assert_array_equal(data["keypoints"], np.clip(points, 0, 1))
    assert data["image_paths"].tolist() == [frame.image_path() for frame in here]
    np.testing.assert_array_equal(data["valid"], [frame.valid for frame in here])
    assert json.loads((tmp_path / "m" / "dev_stats.json").read_text())["num_samples"] == len(here)


def test_bytes_are_the_same_whatever_they_come_from(made, tmp_path):
    out = write_dataset(tmp_path / "out", made)
    with open_landmarks(out) as landmarks:
        prepare(landmarks, tmp_path / "a")
        write_pickle(tmp_path / "a.pkl", landmarks, {})
    with open_landmarks(tmp_path / "a.pkl") as landmarks:
        prepare(landmarks, tmp_path / "b")
    with open_landmarks(tmp_path / "a") as landmarks:
        prepare(landmarks, tmp_path / "c")
    for split in SPLITS:
        for name in (f"{split}_keypoints.npz", f"{split}_stats.json"):
            data = (tmp_path / "a" / name).read_bytes()
            assert data == (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "a" / "train_keypoints.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_prepared_folder_is_read_back(made, tmp_path):
    with open_landmarks(write_dataset(tmp_path / "out", made)) as landmarks:
        prepare(landmarks, tmp_path / "m")
    with open_landmarks(tmp_path / "m") as landmarks:
        assert isinstance(landmarks, NpzFolder)
        assert landmarks.points == 143
        assert list(landmarks.splits) == list(SPLITS)
        for split in (*SPLITS, *SPLITS):
            clips = list(landmarks.clips(split))
            here = [frame for frame in made if frame.split == split]
            assert [path for each in clips for path in each.paths] == [frame.image_path() for frame in here]
            assert [each.video for each in clips for _ in each.paths] == [frame.video for frame in here]
            points = np.concatenate([each.points for each in clips])
            np.testing.assert_array_equal(points, [frame.points[PACKED_INDICES] for frame in here])
            np.testing.assert_array_equal(
                np.concatenate([each.valid for each in clips]), [frame.valid for frame in here]
            )
            assert {each.visibility for each in clips} == {None}
            assert all(each.readable.all() and not each.shapes.any() for each in clips)


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 3000])
def test_splits_of_any_length(tmp_path, count):
    points, valid = at_random(count, count, POINTS if count < 3000 else 143)
    held = Held([clip(points, valid), clip(*at_random(1, 1, points.shape[1]), split="test")], points.shape[1])
    made = prepare(held, tmp_path / "m")
    assert [stats["num_samples"] for stats in made] == [count, 1]
    assert load(tmp_path / "m" / "train_keypoints.npz")["keypoints"].shape == (count, 143, 3)
    with open_landmarks(tmp_path / "m") as landmarks:
        got = list(landmarks.clips("train"))
    assert sum(map(len, got)) == count
    if count:
        np.testing.assert_array_equal(
            np.concatenate([each.points for each in got]), points if count == 3000 else points[:, PACKED_INDICES]
        )


def test_texts_of_any_letters(tmp_path):
    paths = ["/a/é🙂", "/b\udc80", "c" * 500]
    prepare(Held([clip(*at_random(0, 3), video="ü", paths=paths)]), tmp_path / "m")
    data = load(tmp_path / "m" / "train_keypoints.npz")
    assert data["image_paths"].tolist() == paths
    assert data["video_ids"].tolist() == ["ü"] * 3


def test_splits_come_in_the_usual_order(tmp_path):
    prepare(Held([clip(*at_random(0, 1), split=split) for split in ("zoo", "test", "alt", "train")]), tmp_path / "m")
    with open_landmarks(tmp_path / "m") as landmarks:
        assert list(landmarks.splits) == ["train", "test", "alt", "zoo"]


# --- what cannot be


def test_usage_errors_name_what_is_wrong(tmp_path):
    source = write_old_pickle(tmp_path / "a.pkl", frames())
    with pytest.raises(UsageError, match=r"split 'tset': not there; these are: train, dev"):
        command("--keypoints-file", source, "--output-dir", tmp_path / "m", "--splits", "tset")
    with pytest.raises(UsageError, match=r"no\.pkl: no such file"):
        command("--keypoints-file", tmp_path / "no.pkl", "--output-dir", tmp_path / "m")
    assert not (tmp_path / "m").exists()
    with pytest.raises(UsageError, match=r"a\.pkl: is a file; expected a folder"):
        command("--keypoints-file", source, "--output-dir", source)


def test_a_split_that_leads_elsewhere_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be the name of a file"):
        prepare(Held([clip(*at_random(0, 1), split="../up")]), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_is_there_stays_until_the_new_is_whole(tmp_path):
    folder = write_dataset(tmp_path / "out", frames())
    with open_landmarks(folder) as landmarks:
        prepare(landmarks, tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    (folder / "valid-00001.npy").unlink()
    with open_landmarks(folder) as landmarks, pytest.raises(InputError, match="missing"):
        prepare(landmarks, tmp_path / "m", normalize=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


def arrays(**changed):
    whole = {
        "keypoints": np.zeros((2, 143, 3), np.float32),
        "image_paths": np.array(["a", "b"]),
        "video_ids": np.array(["v", "v"]),
        "valid": np.zeros((2, 4), bool),
    }
    return {name: array for name, array in {**whole, **changed}.items() if array is not None}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"valid": None}, r"no item named 'valid\.npy'.*; expected keypoints, image_paths, video_ids, valid"),
        ({"keypoints": np.zeros((2, 543, 3), np.float32)}, r"keypoints: is float32 \[2, 543, 3\]; expected float32"),
        ({"keypoints": np.zeros((2, 143, 3), np.int32)}, "keypoints: is int32"),
        ({"image_paths": np.array(["a", "b"], object)}, "image_paths: is object"),
        ({"video_ids": np.array(["v"])}, "2 keypoints, 2 image_paths, 1 video_ids, 2 valid; expected as many"),
        ({"valid": np.array(True)}, r"valid: is bool \[\]"),
    ],
)
def test_other_arrays_are_refused(tmp_path, changed, said):
    np.savez(tmp_path / "train_keypoints.npz", **arrays(**changed), allow_pickle=True)
    with pytest.raises(InputError, match=rf"train_keypoints\.npz.*{said}"):
        open_landmarks(tmp_path)


def test_arrays_that_numpy_wrote_compressed_are_read(tmp_path):
    np.savez_compressed(tmp_path / "train_keypoints.npz", **arrays(keypoints=np.ones((2, 143, 3))))
    with open_landmarks(tmp_path) as landmarks:
        (got,) = landmarks.clips("train")
    assert got.points.dtype == np.float32
    assert got.points.all()
    assert got.paths == ["a", "b"]


def test_every_damage_is_an_input_error_or_values(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays())
    whole = buffer.getvalue()
    rng = np.random.default_rng(0)
    for number in range(300):
        data = bytearray(whole)
        if number % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        (tmp_path / "train_keypoints.npz").write_bytes(data)
        try:
            with open_landmarks(tmp_path) as landmarks:
                assert sum(map(len, landmarks.clips("train"))) <= 2
        except InputError as error:
            assert "train_keypoints.npz" in str(error)
