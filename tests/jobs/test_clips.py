"""The clips job as its users meet it: the contract's outputs, bad input, every exit code, kills."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import synth
from synth import Clip
from terminal import on_terminal, shown_until_the_end

from gpupipe.cli.main import main
from gpupipe.decode.sampling import uniform
from gpupipe.jobs.clip_splits import assign_splits
from gpupipe.ops.text import clip_tokenizer

COMMAND = [sys.executable, "-m", "gpupipe.cli.main"]


def tree(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".gpupipe" not in path.parts and path.name != "failed.jsonl"
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of clips, all kinds, named as users name them."""
    folder = tmp_path_factory.mktemp("clips folder é")
    synth.encode(folder / "a_0_10.mp4", Clip(count=60, b_frames=3, gop=30))
    synth.encode(folder / "b_0_10.mp4", Clip(count=50, turn=270))
    synth.encode(folder / "c_3_13.mp4", Clip(count=7))
    synth.encode(folder / "d_0_10.webm", Clip(codec="libvpx-vp9", suffix="webm", count=30))
    synth.encode(folder / "e_0_10.mp4", Clip(codec="libx265", count=40, options={"x265-params": "log-level=none"}))
    return folder


def pairs_of(folder: Path, names, path: Path, **more) -> Path:
    pairs = [
        {"vid": name.split("_")[0], "clip_path": f"/elsewhere/{name}", "transcript": f"text of {name}", **more}
        for name in names
    ]
    path.write_text(json.dumps(pairs))
    return path


@pytest.fixture
def pairs(clips, tmp_path):
    return pairs_of(clips, sorted(path.name for path in clips.iterdir()), tmp_path / "pairs.json")


def run(clips, pairs, out, *flags) -> int:
    return main(["clips", "--pairs-json", str(pairs), "--clips-dir", str(clips), "--output-dir", str(out), *flags])


def failures(out: Path) -> dict[int, dict]:
    return {line["ordinal"]: line for line in map(json.loads, (out / "failed.jsonl").read_text().splitlines())}


# ---- what comes out


def test_a_sample_folder_is_as_the_contract_says(clips, pairs, tmp_path):
    out = tmp_path / "out"
    assert run(clips, pairs, out) == 0
    folder = out / "sample_000000_a"
    assert sorted(path.name for path in folder.iterdir()) == [
        "meta.json",
        "size.json",
        "text_input.pkl",
        "video_input.pkl",
    ]
    frames = pickle.loads((folder / "video_input.pkl").read_bytes())
    assert type(frames) is np.ndarray
    assert (frames.shape, frames.dtype) == ((16, 160, 256, 3), np.uint8)
    text = pickle.loads((folder / "text_input.pkl").read_bytes())
    np.testing.assert_array_equal(text["tokens"], clip_tokenizer().encode("text of a_0_10.mp4"))
    assert text["tokens"].dtype == np.int64
    assert json.loads((folder / "size.json").read_text()) == [0.5] * 16
    meta = json.loads((folder / "meta.json").read_text())
    expected = np.linspace(0, 59, 16, dtype=int)
    assert meta["frame_indices"] == expected.tolist()
    assert [synth.read_number(frame) for frame in frames] == expected.tolist()
    assert meta["valid"] == [True] * 16
    assert meta["pts_seconds"] == pytest.approx(expected / 25)
    assert (meta["vid"], meta["clip"]) == ("a", "a_0_10.mp4")
    assert {**meta["source"], "fps": 25.0} == {
        "width": 128,
        "height": 96,
        "rotation": 0,
        "fps": 25.0,
        "frames": 60,
        "codec": "h264",
        "transfer": meta["source"]["transfer"],
    }
    info = json.loads((out / "dataset_info.json").read_text())
    assert sorted(name for listed in info.values() for name in listed) == sorted(
        path.name for path in out.glob("sample_*")
    )
    assert {name: len(listed) for name, listed in info.items()} == {"train": 3, "val": 1, "test": 1}


def test_a_short_clip_repeats_its_last_frame_and_says_so(clips, pairs, tmp_path):
    run(clips, pairs, tmp_path / "out")
    frames = pickle.loads((tmp_path / "out/sample_000002_c/video_input.pkl").read_bytes())
    assert [synth.read_number(frame) for frame in frames] == [0, 1, 2, 3, 4, 5] + [6] * 10
    meta = json.loads((tmp_path / "out/sample_000002_c/meta.json").read_text())
    assert meta["valid"] == [True] * 7 + [False] * 9


def test_a_rotated_clip_is_upright(clips, pairs, tmp_path):
    assert run(clips, pairs, tmp_path / "out", "--frame-height", "256", "--frame-width", "192") == 0
    frames = pickle.loads((tmp_path / "out/sample_000001_b/video_input.pkl").read_bytes())
    turned = {turns: [_number_or_none(np.rot90(frame, turns)) for frame in frames] for turns in range(4)}
    meta = json.loads((tmp_path / "out/sample_000001_b/meta.json").read_text())
    # The coded picture is read after turning the upright one back, counterclockwise by the tag.
    assert turned[meta["source"]["rotation"] // 90] == meta["frame_indices"]


def _number_or_none(image):
    try:
        return synth.read_number(np.ascontiguousarray(image))
    except ValueError:
        return None


def test_rows_hold_the_same_as_folders_and_the_index_names_them(clips, pairs, tmp_path):
    run(clips, pairs, tmp_path / "a")
    assert run(clips, pairs, tmp_path / "b", "--format", "npy", "--shard-size", "2") == 0
    table = pq.read_table(tmp_path / "b/index.parquet").to_pylist()
    assert [row["id"] for row in table] == ["000000_a", "000001_b", "000002_c", "000003_d", "000004_e"]
    for row in table:
        folder = tmp_path / "a" / f"sample_{row['id']}"
        arrays = {
            name: np.load(tmp_path / "b" / f"{name}-{row['shard']:05d}.npy") for name in ("frames", "tokens", "valid")
        }
        meta = json.loads((folder / "meta.json").read_text())
        np.testing.assert_array_equal(
            arrays["frames"][row["row"]], pickle.loads((folder / "video_input.pkl").read_bytes())
        )
        np.testing.assert_array_equal(
            arrays["tokens"][row["row"]], pickle.loads((folder / "text_input.pkl").read_bytes())["tokens"]
        )
        assert arrays["valid"][row["row"]].tolist() == meta["valid"]
        assert (row["pts"], row["status"]) == (meta["pts_seconds"], "done")
        assert row["text"].startswith("text of")
    assert np.load(tmp_path / "b/frames-00002.npy").shape == (1, 16, 160, 256, 3)
    listed = json.loads((tmp_path / "b/dataset_info.json").read_text())
    assert {name for name, ids in listed.items() for _ in ids} == {row["split"] for row in table}


def test_tars_hold_the_same_as_folders(clips, pairs, tmp_path):
    import io

    run(clips, pairs, tmp_path / "a")
    assert run(clips, pairs, tmp_path / "b", "--format", "webdataset") == 0
    with tarfile.open(tmp_path / "b/00000.tar") as tar:
        names = tar.getnames()
        members = {name: tar.extractfile(name).read() for name in names}
    assert names == [f"{n:06d}.{kind}" for n in range(5) for kind in ("npy", "json")]
    frames = np.load(io.BytesIO(members["000000.npy"]))
    np.testing.assert_array_equal(frames, pickle.loads((tmp_path / "a/sample_000000_a/video_input.pkl").read_bytes()))
    meta = json.loads(members["000000.json"])
    assert meta["text"] == "text of a_0_10.mp4"
    assert len(meta["tokens"]) == 77
    assert meta["split"] in ("train", "val", "test")


@pytest.mark.parametrize("form", ["samples", "webdataset"])
def test_all_frames_are_kept_on_request(clips, pairs, tmp_path, form):
    import io

    assert run(clips, pairs, tmp_path / "out", "--all-frames", "--format", form) == 0
    if form == "samples":
        frames = pickle.loads((tmp_path / "out/sample_000000_a/video_input.pkl").read_bytes())
    else:
        with tarfile.open(tmp_path / "out/00000.tar") as tar:
            frames = np.load(io.BytesIO(tar.extractfile("000000.npy").read()))
    assert [synth.read_number(frame) for frame in frames] == list(range(60))


def test_uncut_videos_are_sampled_by_their_times(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    synth.encode(videos / "x.mkv", Clip(count=250, suffix="mkv", gop=50, b_frames=2))
    synth.encode(videos / "y.mp4", Clip(count=100))
    pairs = tmp_path / "pairs.jsonl"
    spans = [("x", 2.0, 4.0), ("y", 0.0, 1.0), ("x", 8.0, 99.0), ("x", 20.0, 30.0), ("z", 0.0, 1.0), ("x", 0.5, 0.9)]
    pairs.write_text("\n".join(json.dumps({"vid": v, "begin_time": b, "end_time": e}) for v, b, e in spans))
    out = tmp_path / "out"
    flags = ["clips", "--pairs-json", str(pairs), "--videos-dir", str(videos), "--output-dir", str(out)]
    assert main(flags) == 3
    expected = {0: range(50, 100), 1: range(25), 2: range(200, 250), 5: range(13, 23)}
    for ordinal, span in expected.items():
        folder = next(out.glob(f"sample_{ordinal:06d}_*"))
        frames = pickle.loads((folder / "video_input.pkl").read_bytes())
        chosen, _ = uniform(len(span), 16)
        assert [synth.read_number(frame) for frame in frames] == [span[int(n)] for n in chosen]
    assert {n: line["error"] for n, line in failures(out).items()} == {3: "EmptyRangeError", 4: "MissingInputError"}
    one = tmp_path / "one"
    assert main([*flags[:-1], str(one), "--num-workers", "1"]) == 3
    assert tree(one) == tree(out)


def test_splits_are_seeded_and_complete():
    for count in (0, 1, 2, 3, 9, 10, 57):
        splits = assign_splits(count, "random", 42)
        held = max(1, int(0.1 * count)) if count >= 3 else 0
        assert np.bincount(splits, minlength=3).tolist() == [count - 2 * held, held, held]
    assert (assign_splits(57, "random", 42) == assign_splits(57, "random", 42)).all()
    assert (assign_splits(57, "random", 42) != assign_splits(57, "random", 43)).any()
    assert not assign_splits(9, "all_train", 1).any()
    assert (assign_splits(9, "all_test", 1) == 2).all()


def test_max_samples_is_a_seeded_choice_in_input_order(clips, tmp_path):
    pairs = pairs_of(clips, [f"a_{n}_10.mp4" for n in range(50)], tmp_path / "pairs.json")
    out = tmp_path / "out"
    assert run(clips, pairs, out, "--max-samples", "5", "--seed", "7", "--continue-on-error") == 0
    chosen = sorted(random.Random(7).sample(range(50), 5))
    lines = (out / ".gpupipe/plan/items.jsonl").read_text().splitlines()
    assert [json.loads(line)["clip_path"] for line in lines] == [f"/elsewhere/a_{n}_10.mp4" for n in chosen]


def test_size_curves_are_resampled_and_padded(clips, tmp_path):
    pairs = tmp_path / "pairs.json"
    curves = [list(range(31)), [0.25, 0.75], []]
    pairs.write_text(json.dumps([{"vid": "a", "clip_path": "a_0_10.mp4", "size": size} for size in curves]))
    assert run(clips, pairs, tmp_path / "out") == 0
    got = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*/size.json"))]
    assert got == [list(range(0, 31, 2)), [0.25] + [0.75] * 15, [0.5] * 16]


# ---- bad input


def test_every_bad_item_fails_alone_with_its_own_reason(clips, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    good = clips / "a_0_10.mp4"
    (folder / "good.mp4").write_bytes(good.read_bytes())
    (folder / "zero.mp4").touch()
    (folder / "folder.mp4").mkdir()
    (folder / "text.mp4").write_text("these are words, not pictures\n" * 100)
    synth.truncate(good, folder / "cut.mp4", 0.6)
    synth.sound_only(folder / "sound.mp4")
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    cases = [
        ({"vid": "v", "clip_path": "good.mp4"}, None),
        ({"vid": "v", "clip_path": "nowhere.mp4"}, "MissingInputError"),
        ({"vid": "v", "clip_path": "folder.mp4"}, "MissingInputError"),
        ({"vid": "v", "clip_path": "zero.mp4"}, "DecodeError"),
        ({"vid": "v", "clip_path": "text.mp4"}, "DecodeError"),
        ({"vid": "v", "clip_path": "cut.mp4"}, "TruncatedError"),
        ({"vid": "v", "clip_path": "sound.mp4"}, "NoVideoError"),
        ({"vid": "v", "clip_path": "list.mp4"}, "DecodeError"),
        ({"vid": "../../x", "clip_path": "good.mp4"}, "InputError"),
        ({"vid": "a/b", "clip_path": "good.mp4"}, "InputError"),
        ({"vid": "x" * 300, "clip_path": "good.mp4"}, "InputError"),
        ({"vid": "\U0001f408 \u732b", "clip_path": "good.mp4"}, None),
        ({"vid": "v", "clip_path": "good.mp4"}, None),
        ({"vid": 5, "clip_path": "good.mp4"}, "InputError"),
        ({"clip_path": "good.mp4"}, "InputError"),
        ({"vid": "v"}, "InputError"),
        ({"vid": "v", "clip_path": "good.mp4", "size": "big"}, "InputError"),
        ("a word", "InputError"),
        (None, "InputError"),
        ({"vid": "bad\ud800", "clip_path": "good.mp4"}, "InputError"),
        ({"vid": "v\u0000", "clip_path": "good.mp4"}, "InputError"),
        ({"vid": "v", "clip_path": "good.mp4", "transcript": 3}, "InputError"),
    ]
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([case for case, _ in cases]))
    out = tmp_path / "out"
    assert run(folder, pairs, out) == 3
    failed = failures(out)
    classes = {n: line["error"] for n, line in failed.items()}
    expected = {n: reason for n, (_, reason) in enumerate(cases) if reason}
    # What a file that is not a video at all is called may be finer than the class the table names.
    from gpupipe import errors

    assert classes.keys() == expected.keys()
    for ordinal, reason in expected.items():
        assert issubclass(getattr(errors, classes[ordinal]), getattr(errors, reason)), failed[ordinal]
        assert failed[ordinal]["message"]
    assert len(list(out.glob("sample_*"))) == sum(reason is None for _, reason in cases)
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("sample_")) == [
        ".gpupipe",
        "dataset_info.json",
        "failed.jsonl",
    ]
    assert not list(tmp_path.glob("x*"))


def test_a_truncated_clip_says_how_much_can_be_read_and_gives_it_on_request(clips, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    whole = synth.encode(tmp_path / "whole.mp4", Clip(count=60, b_frames=3, gop=30, muxer={"movflags": "faststart"}))
    synth.truncate(whole, folder / "cut.mp4", 0.6)
    pairs = pairs_of(folder, ["cut.mp4"], tmp_path / "pairs.json")
    assert run(folder, pairs, tmp_path / "out") == 3
    line = failures(tmp_path / "out")[0]
    assert "readable" in line["message"]
    assert run(folder, pairs, tmp_path / "part", "--allow-partial") == 0
    meta = json.loads(next((tmp_path / "part").glob("sample_*/meta.json")).read_text())
    frames = pickle.loads(next((tmp_path / "part").glob("sample_*/video_input.pkl")).read_bytes())
    assert [synth.read_number(frame) for frame in frames] == meta["frame_indices"]
    assert 0 < meta["source"]["frames"] < 60
    assert f"{meta['source']['frames']} frames" in line["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"vid": "a"},\n {"vid": }]', ["line 2", "column 10"]),
        ("[]", ["empty"]),
        ("", ["empty"]),
        ("5", ["pairs.json"]),
    ],
)
def test_a_pairs_file_that_is_none_is_a_usage_error_before_any_work(clips, tmp_path, capsys, text, words):
    pairs = tmp_path / "pairs.json"
    pairs.write_text(text)
    assert run(clips, pairs, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "lock" not in path.name]
    assert [path.name for path in left] == ["layout.json"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num-frames", "0"], "--num-frames 0"),
        (["--frame-width", "-3"], "--frame-width -3"),
        (["--max-samples", "0"], "--max-samples 0"),
        (["--shard", "3", "--total-shards", "2"], "--shard 3"),
        (["--all-frames", "--format", "npy"], "--all-frames"),
        (["--strict", "--allow-partial"], "choose one"),
        (["--videos-dir", "."], "one of --clips-dir"),
        (["--num-workers", "0"], "--num-workers 0"),
    ],
)
def test_flags_that_cannot_work_are_usage_errors(clips, pairs, tmp_path, capsys, flags, words):
    assert run(clips, pairs, tmp_path / "out", *flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_folders_and_files_are_usage_errors(clips, pairs, tmp_path, capsys):
    assert run(tmp_path / "nowhere", pairs, tmp_path / "out") == 2
    assert "no such folder" in capsys.readouterr().err
    assert run(clips, tmp_path / "none.json", tmp_path / "out") == 2
    assert "no such file" in capsys.readouterr().err


def test_another_configuration_on_the_same_output_is_shown(clips, pairs, tmp_path, capsys):
    assert run(clips, pairs, tmp_path / "out") == 0
    before = tree(tmp_path / "out")
    assert run(clips, pairs, tmp_path / "out", "--num-frames", "8") == 2
    assert "num_frames: 16 there, 8 asked" in capsys.readouterr().err
    assert tree(tmp_path / "out") == before
    assert run(clips, pairs, tmp_path / "out", "--num-frames", "8", "--overwrite") == 0
    assert run(clips, pairs, tmp_path / "out", "--num-frames", "8", "--num-workers", "1") == 0


# ---- the same bytes, whatever happens


@pytest.mark.parametrize("form", ["samples", "npy", "webdataset"])
def test_same_bytes_for_workers_and_shards(clips, tmp_path, form):
    names = sorted(path.name for path in clips.iterdir()) * 3
    pairs = pairs_of(clips, names, tmp_path / "pairs.json")
    trees = []
    for workers in ("1", "2", "5"):
        out = tmp_path / workers
        assert run(clips, pairs, out, "--num-workers", workers, "--format", form, "--shard-size", "4") == 0
        trees.append(tree(out))
    shards = ["--total-shards", "3", "--format", form, "--shard-size", "4", "--num-workers", "1"]
    for shard in "102":
        assert run(clips, pairs, tmp_path / "many", *shards, "--shard", shard) == 0
    trees.append(tree(tmp_path / "many"))
    assert trees[0] == trees[1] == trees[2] == trees[3]
    assert len(trees[0]) > 4


def test_same_bytes_after_kills(clips, tmp_path):
    """Real decoding, killed at random moments (the whole group at once), continued each time."""
    names = sorted(path.name for path in clips.iterdir()) * 24
    pairs = pairs_of(clips, [*names, "missing.mp4"], tmp_path / "pairs.json")
    assert run(clips, pairs, tmp_path / "calm") == 3
    out = tmp_path / "killed"
    words = [*COMMAND, "clips", "--pairs-json", str(pairs), "--clips-dir", str(clips), "--output-dir", str(out)]
    chance = random.Random(3)
    kills = 0
    while kills < 10:
        process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(0.4, 1.2))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 2
    assert run(clips, pairs, out) == 3
    assert tree(out) == tree(tmp_path / "calm")


# ---- the command line


def test_the_guides_own_command_lines_run(clips, pairs, tmp_path, monkeypatch, capsys):
    """The users' guide, its script names replaced: flags with _ too, inputs from gpupipe.toml."""
    flags = ["--pairs_json", str(pairs), "--clips_dir", str(clips), "--output_dir", str(tmp_path / "o")]
    assert main(["clips", *flags, "--num_workers", "32", "--split_mode", "all_train", "--resume"]) == 0
    assert json.loads((tmp_path / "o/dataset_info.json").read_text())["val"] == []

    monkeypatch.chdir(tmp_path)
    assert main(["clips", "--shard", "0", "--total-shards", "8"]) == 2
    assert "gpupipe.toml" in capsys.readouterr().err
    Path("gpupipe.toml").write_text(
        f'[clips]\npairs_json = "{pairs}"\nclips-dir = "{clips}"\n'
        f'output_dir = "{tmp_path / "s"}"\nsplit_mode = "all_train"\n'
    )
    for shard in range(8):
        assert main(["clips", "--shard", str(shard), "--total-shards", "8"]) == 0
    assert tree(tmp_path / "s") == tree(tmp_path / "o")
    assert main(["clips", "--num-nodes", "4", "--output-dir", str(tmp_path / "n"), "--gpu-ids", "0", "1"]) == 0
    said = capsys.readouterr().err
    assert "--num-nodes 4" in said
    assert "--gpu-ids 0 1" in said
    assert tree(tmp_path / "n") == tree(tmp_path / "o")


def test_numbers_of_gpus_may_stand_in_the_settings(clips, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs = f'[clips]\npairs-json = "{pairs}"\nclips-dir = "{clips}"\n'
    Path("gpupipe.toml").write_text(inputs + "gpu-ids = [0, 1]\n")
    assert main(["clips", "--output-dir", "a"]) == 0
    assert "--gpu-ids 0 1" in capsys.readouterr().err
    Path("gpupipe.toml").write_text(inputs + "gpus = 2\n")
    assert main(["clips", "--output-dir", "b"]) == 0
    assert "--gpus 2" in capsys.readouterr().err


def test_a_settings_file_with_an_unknown_word_is_refused(clips, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("gpupipe.toml").write_text("[clips]\nnum_framez = 3\n")
    assert main(["clips"]) == 2
    assert "num_framez" in capsys.readouterr().err
    Path("gpupipe.toml").write_text("[clips\n")
    assert main(["clips"]) == 2


def test_summary_as_json_and_status(clips, pairs, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(clips, pairs, out, "--json", "--quiet") == 0
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert (summary["items"], summary["done"], summary["failed"]) == (5, 5, 0)
    assert summary["bottleneck"] in summary["stages"]
    assert 0 < summary["ceiling_share"] <= 1
    assert said.err == ""
    assert main(["status", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["items"], found["done"], found["pending"]) == ("complete", 5, 5, 0)
    assert main(["status", str(out)]) == 0
    assert "5/5 (100%)" in capsys.readouterr().out
    assert main(["status", str(tmp_path)]) == 2


def test_closing_words_name_failures_their_file_and_the_bottleneck(clips, tmp_path, capsys):
    pairs = pairs_of(clips, ["a_0_10.mp4", "missing.mp4"], tmp_path / "pairs.json")
    assert run(clips, pairs, tmp_path / "out") == 3
    said = capsys.readouterr()
    assert "2 clips: 1 done, 1 failed" in said.out
    assert f"MissingInputError 1; listed in {tmp_path / 'out' / 'failed.jsonl'}" in said.out
    assert "bottleneck: " in said.out
    assert "2/2 (100%)" in said.err
    assert run(clips, pairs, tmp_path / "quiet", "--quiet") == 3
    assert capsys.readouterr() == ("", "")


def test_half_a_surrogate_pair_and_deep_nesting_end_no_run(clips, tmp_path):
    deep: list = []
    for _ in range(900):
        deep = [deep]
    pairs = tmp_path / "pairs.json"
    good = {"vid": "a", "clip_path": "a_0_10.mp4"}
    pairs.write_text(
        json.dumps([{**good, "transcript": "x \ud83d y"}, {**good, "vid": "v\ud800"}, {**good, "size": deep}])
    )
    for _ in range(2):
        assert run(clips, pairs, tmp_path / "out", "--format", "npy") == 3
    rows = pq.read_table(tmp_path / "out/index.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["done", "failed", "failed"]
    assert rows[0]["text"] == "x \\ud83d y"


def test_an_item_that_failed_for_its_id_is_not_tried_again(clips, tmp_path, capsys):
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"vid": "../x", "clip_path": "a_0_10.mp4"}, {"vid": "a", "clip_path": "none.mp4"}]))
    assert run(clips, pairs, tmp_path / "out") == 3
    capsys.readouterr()
    assert run(clips, pairs, tmp_path / "out") == 3
    assert "done again" not in capsys.readouterr().err


def test_a_reader_that_goes_away_changes_no_exit_code(clips, pairs, tmp_path):
    words = f"clips --pairs-json '{pairs}' --clips-dir '{clips}' --output-dir '{tmp_path}/out'"
    command = f"'{sys.executable}' -m gpupipe.cli.main {words}"
    script = f"set -o pipefail; {command} 2>&1 | true; {command} --json > /dev/full; echo $?; {command} 2>&-; echo $?"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[0] == "4"
    assert done.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr
    assert "standard output" in done.stderr
    piped = subprocess.run(["bash", "-c", f"set -o pipefail; {command} 2>&1 | true"], timeout=60, check=False)
    assert piped.returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clips = 3", "expected a table"),
        ('[clips]\nbackend = "cuda"', "expected one of auto, ffmpeg, nvdec"),
        ("[clips]\ngpus = 1.5", "expected text"),
        ("[clips]\nclips-dir = 5", "expected text"),
        ('[clips]\nquiet = "no"', "true or false"),
        ("[clips]\ngpu-ids = 0", "expected a list"),
        ('[clips]\nnum-frames = "many"', "expected a number"),
    ],
)
def test_settings_of_the_wrong_kind_are_usage_errors(tmp_path, monkeypatch, capsys, text, words):
    monkeypatch.chdir(tmp_path)
    Path("gpupipe.toml").write_text(text)
    assert main(["clips"]) == 2
    assert words in capsys.readouterr().err


def test_options_are_not_abbreviated(clips, pairs, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(clips, pairs, tmp_path / "out", "--num", "3")
    assert stop.value.code == 2


def test_exit_codes_of_a_held_lock_and_of_a_full_disk(clips, pairs, tmp_path, capsys):
    import resource

    from gpupipe.ownership import Ownership

    out = tmp_path / "out"
    out.mkdir()
    with Ownership(out / ".gpupipe", 0, 1):
        assert run(clips, pairs, out) == 4
    assert f"held by process {os.getpid()}" in capsys.readouterr().err
    words = [*COMMAND, "clips", "--pairs-json", str(pairs), "--clips-dir", str(clips), "--output-dir", str(out)]
    limited = subprocess.run(
        words,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert limited.returncode == 4
    assert "limit was hit" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not list(out.glob("sample_*"))
    assert not (out / "dataset_info.json").exists()
    assert run(clips, pairs, out) == 0


def test_an_interrupt_ends_with_130_and_continues(clips, tmp_path):
    pairs = pairs_of(clips, ["a_0_10.mp4"] * 3000, tmp_path / "pairs.json")
    out = tmp_path / "out"
    words = [*COMMAND, "clips", "--pairs-json", str(pairs), "--clips-dir", str(clips), "--output-dir", str(out)]
    process = subprocess.Popen(
        [*words, "--format", "npy"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(out.glob("*.partial")):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to continue" in said
    assert "Traceback" not in errors
    assert "Traceback" not in (out / ".gpupipe/shard-0/worker-0.log").read_text()


def test_a_worker_stays_small_on_full_hd(tmp_path):
    """Peak memory of a worker over 1080p clips, all frames kept and sampled: below 300 MB."""
    folder = tmp_path / "clips"
    folder.mkdir()
    synth.encode(folder / "hd.mp4", Clip(size=(1080, 1920), count=48, b_frames=3, options={"preset": "ultrafast"}))
    pairs = pairs_of(folder, ["hd.mp4"] * 3, tmp_path / "pairs.json")
    code = (
        "import resource, sys; from gpupipe.cli.main import main; code = main(sys.argv[1:]);"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = ["clips", "--pairs-json", str(pairs), "--clips-dir", str(folder), "--quiet"]
    for flags in (["--output-dir", str(tmp_path / "a")], ["--output-dir", str(tmp_path / "b"), "--all-frames"]):
        said = subprocess.run(
            [sys.executable, "-c", code, *words, *flags], capture_output=True, text=True, timeout=120, check=True
        ).stdout
        exit_code, peak_kilobytes = map(int, said.split())
        assert exit_code == 0
        assert peak_kilobytes * 1024 < 300e6


def test_a_terminal_shows_the_live_display(clips, tmp_path):
    """Under a pseudo-terminal: bar, rate, workers, reasons; and the closing words stay."""
    pairs = pairs_of(clips, ["a_0_10.mp4"] * 60 + ["missing.mp4"], tmp_path / "pairs.json")
    words = [*COMMAND, "clips", "--pairs-json", str(pairs), "--clips-dir", str(clips)]
    process, reading = on_terminal([*words, "--output-dir", str(tmp_path / "out")])
    text = shown_until_the_end(reading).decode()
    assert process.wait(60) == 3
    for words in ("clips/s", "worker 0", "decode", "MissingInputError 1", "61 clips: 60 done, 1 failed"):
        assert words in text, words


@pytest.mark.parametrize("form", ["samples", "npy", "webdataset"])
def test_verify_and_retry_from_the_command_line(clips, pairs, tmp_path, capsys, form):
    out = tmp_path / "out é"
    truncated = tmp_path / "clips"
    truncated.mkdir()
    for path in clips.iterdir():
        (truncated / path.name).write_bytes(path.read_bytes()[: 2000 if path.name == "b_0_10.mp4" else None])
    assert run(truncated, pairs, out, "--format", form, "--quiet") == 3
    assert main(["verify", str(out), "--deep"]) == 0
    assert "4 done and 1 failed items" in capsys.readouterr().out
    largest = max((path for path in out.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))
    assert main(["verify", str(out), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 1
    assert main(["verify", str(out), "--repair"]) == 1
    assert "1 items are pending now" in capsys.readouterr().out
    for path in clips.iterdir():
        (truncated / path.name).write_bytes(path.read_bytes())
    assert main(["retry", str(out), "--quiet", "--ids", "1"]) == 0
    assert main(["verify", str(out), "--deep", "9"]) == 0
    assert run(clips, pairs, tmp_path / "whole", "--format", form, "--quiet") == 0
    assert tree(out) == tree(tmp_path / "whole")


def test_verify_of_no_output_is_a_usage_error(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert main(["retry", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("no output of gpupipe here") == 2
