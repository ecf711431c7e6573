"""Several files of keypoints as one."""

import argparse
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from held import Held, at_random, clip
from made import ROOT, SPLITS, frames, write_dataset, write_old_pickle

from gpupipe.cli import keypoint_merge, keypoint_prepare
from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.dataset import open_landmarks
from gpupipe.landmarks.merge import merge
from gpupipe.landmarks.packing import PACKED_INDICES
from gpupipe.landmarks.pickle_file import write_pickle


def command(*words):
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    keypoint_merge.add(commands)
    keypoint_prepare.add(commands)
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


def load(path):
    with path.open("rb") as file:
        return pickle.load(file)


def made_pickle(path, made):
    """A pickle of ours, with no run beside it."""
    with open_landmarks(write_dataset(path.parent / f"{path.stem}_shards", made)) as landmarks:
        write_pickle(path, landmarks, {})
    return path


def paths_of(data, split):
    return data[split]["image_paths"]


def of(made, *splits):
    return [frame for frame in made if frame.split in splits]


@pytest.mark.parametrize("clips", [False, True], ids=["pictures", "clips"])
def test_shards_to_pickle_to_merge_to_arrays(tmp_path, clips):
    """The whole way, as people go it: a run a split, merged, prepared; the numbers are those of the shards."""
    made = frames(splits=("train", "dev", "test"), clips=clips)
    first = made_pickle(tmp_path / "train.pkl", of(made, "train"))
    second = write_dataset(tmp_path / "rest.pkl.gpupipe", of(made, "dev", "test"))
    merged = tmp_path / "merged.pkl"
    assert command("merge", "--input-files", first, second.with_name("rest.pkl"), "--output-path", merged) == 0
    assert command("prepare", "--keypoints-file", merged, "--output-dir", tmp_path / "m") == 0
    for split in ("train", "dev", "test"):
        with np.load(tmp_path / "m" / f"{split}_keypoints.npz", allow_pickle=False) as data:
            here = of(made, split)
            np.testing.assert_array_equal(data["keypoints"], [frame.points[PACKED_INDICES] for frame in here])
            np.testing.assert_array_equal(data["valid"], [frame.valid for frame in here])
            assert data["image_paths"].tolist() == [frame.image_path() for frame in here]
    data = load(merged)
    assert list(data) == ["train", "dev", "test", "stats", "keypoint_info", "dataset_info"]
    for frame, entry in zip(made, [e for s in ("train", "dev", "test") for e in data[s]["keypoints"]], strict=True):
        assert entry["image_shape"] == (frame.shape if frame.readable else None)


def test_files_come_in_order_and_the_first_of_a_path_wins(tmp_path, capsys):
    made = frames()
    older = [replace(frame, points=frame.points + np.float32(1)) for frame in made]
    a = write_old_pickle(tmp_path / "a.pkl", of(older, "dev")[:7] + of(older, "train")[:4], np.float32, stats=False)
    b = made_pickle(tmp_path / "b.pkl", made)
    assert command("merge", "--input-files", a, b, "--output-path", tmp_path / "m.pkl") == 0
    data = load(tmp_path / "m.pkl")
    assert list(data)[:2] == ["dev", "train"]
    for split, count in (("dev", 7), ("train", 4)):
        here, old = of(made, split), of(older, split)
        assert paths_of(data, split) == [frame.image_path() for frame in here]
        assert data[split]["video_ids"] == [frame.video for frame in here]
        for place, entry in enumerate(data[split]["keypoints"]):
            frame = (old if place < count else here)[place]
            for name in ("face", "left_hand", "right_hand", "pose"):
                np.testing.assert_array_equal(entry[name], frame.part(name))
        success = sum(bool(frame.valid.any()) for frame in here)
        unreadable = sum(not frame.readable for frame in here)
        stats = {"total": 15, "success": success, "failed": 15 - success,
                 "nobody": 15 - success - unreadable, "unreadable": unreadable}  # fmt: skip
        assert {**data["stats"][split], "total_time": 0} == {**stats, "total_time": 0}
        assert math.isnan(data["stats"][split]["total_time"])
    assert data["dataset_info"] == {"merged_from": [str(a), str(b)]}
    said = capsys.readouterr().out
    assert "dev: 15 frames" in said
    assert "7 duplicates left out" in said
    assert "4 duplicates left out" in said


def test_a_path_twice_in_one_file_or_in_two_splits(tmp_path):
    points, valid = at_random(0, 3, 143)
    twice = [clip(points, valid, paths=["x", "y", "x"]), clip(points, valid, split="dev", paths=["x", "z", "y"])]
    write_pickle(tmp_path / "a.pkl", Held(twice, 143), {})
    made = merge([tmp_path / "a.pkl"], tmp_path / "m.pkl")
    data = load(tmp_path / "m.pkl")
    assert paths_of(data, "train") == ["x", "y"]
    np.testing.assert_array_equal(data["train"]["keypoints"][0]["face"], points[0, :68])
    assert paths_of(data, "dev") == ["x", "z", "y"]  # another split: not a copy
    assert {split: one.duplicates for split, one in made.items()} == {"train": 1, "dev": 0}


def test_merging_twice_or_with_itself_changes_nothing(tmp_path):
    a = made_pickle(tmp_path / "a.pkl", frames())
    b = tmp_path / "b.pkl"
    b.write_bytes(a.read_bytes())
    merge([a], tmp_path / "one.pkl")
    merge([a], tmp_path / "again.pkl")
    assert (tmp_path / "one.pkl").read_bytes() == (tmp_path / "again.pkl").read_bytes()
    merge([a, b], tmp_path / "two.pkl")
    one, two = load(tmp_path / "one.pkl"), load(tmp_path / "two.pkl")
    assert repr(one["stats"]) == repr(two["stats"])
    for split in SPLITS:
        assert one[split]["image_paths"] == two[split]["image_paths"]


def test_old_counts_of_dropped_frames_and_times_are_summed(tmp_path):
    made = frames(splits=("train",))
    there = [frame for frame in made if frame.valid.any()]
    for name, part in (("a", there[:6]), ("b", there[4:])):
        write_old_pickle(tmp_path / f"{name}.pkl", part)
        data = load(tmp_path / f"{name}.pkl")
        data["stats"]["train"] |= {"total": len(part) + 2, "failed": 2}
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(data))
    merge([tmp_path / "a.pkl", tmp_path / "b.pkl"], tmp_path / "m.pkl")
    assert load(tmp_path / "m.pkl")["stats"]["train"] == {
        "total": len(there) + 4,
        "success": len(there),
        "failed": 4,
        "nobody": 0,
        "unreadable": 0,
        "total_time": 3.0,
    }


def test_dropped_frames_stay_counted_through_merges(tmp_path):
    made = frames()
    with open_landmarks(write_dataset(tmp_path / "out", made)) as landmarks:
        whole = write_pickle(tmp_path / "whole.pkl", landmarks, {})
        write_pickle(tmp_path / "dropped.pkl", landmarks, {}, drop_empty=True)
    merge([tmp_path / "whole.pkl"], tmp_path / "a.pkl", drop_empty=True)
    merge([tmp_path / "dropped.pkl"], tmp_path / "b.pkl")
    merge([tmp_path / "a.pkl"], tmp_path / "c.pkl")
    for name in ("a", "b", "c"):
        data = load(tmp_path / f"{name}.pkl")
        for split in SPLITS:
            assert repr(data["stats"][split]) == repr(whole[split].to_json())
            assert all(any(e[p] is not None for p in ("face", "pose", "left_hand", "right_hand"))
                       for e in data[split]["keypoints"])  # fmt: skip


# --- what is refused


def test_an_input_is_never_overwritten(tmp_path):
    a = write_old_pickle(tmp_path / "a.pkl", frames())
    before = a.read_bytes()
    (tmp_path / "link.pkl").symlink_to(a)
    for output in (a, tmp_path / "." / "a.pkl", tmp_path / "link.pkl"):
        for flags in ([], ["--overwrite"]):
            with pytest.raises(UsageError, match="is one of the files to merge"):
                command("merge", "--input-files", a, "--output-path", output, *flags)
    write_dataset(tmp_path / "run.pkl.gpupipe", frames())
    with pytest.raises(UsageError, match=r"run\.pkl: is the output of a run"):
        command("merge", "--input-files", a, "--output-path", tmp_path / "run.pkl", "--overwrite")
    assert a.read_bytes() == before


def test_other_files_are_overwritten_only_when_asked(tmp_path):
    a = write_old_pickle(tmp_path / "a.pkl", frames())
    out = tmp_path / "thesis.pkl"
    out.write_bytes(b"years of work")
    with pytest.raises(UsageError, match=r"thesis\.pkl: is there and no pickle of keypoints"):
        command("merge", "--input-files", a, "--output-path", out)
    assert out.read_bytes() == b"years of work"
    assert command("merge", "--input-files", a, "--output-path", out, "--overwrite") == 0
    assert paths_of(load(out), "dev")
    write_old_pickle(out, frames(splits=("other",)))
    assert command("merge", "--input-files", a, "--output-path", out) == 0  # one of keypoints: made anew
    assert list(load(out))[:2] == list(SPLITS)


def test_inputs_that_cannot_be_read_leave_nothing(tmp_path):
    a = write_old_pickle(tmp_path / "a.pkl", frames())
    (tmp_path / "b.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for name, said in (("b.pkl", r"b\.pkl: .*os\.system"), ("no.pkl", r"no\.pkl: no such file")):
        with pytest.raises(UsageError, match=said):
            command("merge", "--input-files", a, tmp_path / name, "--output-path", tmp_path / "m.pkl")
    with pytest.raises(UsageError, match="expected the name of a file"):
        command("merge", "--input-files", a, "--output-path", tmp_path)
    with pytest.raises(UsageError, match="expected the name of a file"):
        command("merge", "--input-files", a, "--output-path", tmp_path / "no" / "m.pkl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pkl", "b.pkl"]


def test_a_shard_that_is_missing_leaves_nothing(tmp_path):
    out = write_dataset(tmp_path / "out", frames())
    (out / "keypoints-00003.npy").unlink()
    with pytest.raises(InputError, match="missing"):
        merge([out], tmp_path / "m.pkl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_other_roots_are_other_pictures(tmp_path):
    a = write_old_pickle(tmp_path / "a.pkl", frames(splits=("train",)))
    b = write_old_pickle(tmp_path / "b.pkl", frames(splits=("train",)), root="/else")
    merge([a, b], tmp_path / "m.pkl")
    paths = paths_of(load(tmp_path / "m.pkl"), "train")
    assert len(paths) == 30
    assert paths[0].startswith(ROOT)
    assert paths[-1].startswith("/else")
