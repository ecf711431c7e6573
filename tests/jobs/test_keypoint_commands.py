"""``gpupipe keypoints`` as the users of the scripts it replaces call it, with the real networks."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_keypoints import FakeKeypointsJob
from model_files import require_networks
from phoenix_like import FEATURES, FRAMES, write_tree
from PIL import Image
from pyarrow import parquet

import gpupipe
from gpupipe.cli.main import _parser, main
from gpupipe.errors import MissingInputError
from gpupipe.jobs import keypoint_poses
from gpupipe.jobs.keypoint_plan import dataset_folder
from gpupipe.landmarks.packing import packed
from gpupipe.launch import Run
from gpupipe.ops.keypoints.original import original_python
from gpupipe.ops.keypoints.points import PARTS
from gpupipe.reports.live import Quiet

ROOT = Path(gpupipe.__file__).parents[1]
SPLITS = ("train", "dev", "test")
COUNTS = {split: sum(n for (there, _), n in FRAMES.items() if there == split) for split in SPLITS}
COUNT = sum(COUNTS.values())
SHARED = ROOT.parent / "shared" / "media"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    require_networks()
    return write_tree(tmp_path_factory.mktemp("corpora") / "PHOENIX-2014-T")


def says(words):
    """Run the command; it must end well."""
    assert main(["keypoints", *map(str, words)]) == 0


@pytest.fixture(scope="module")
def guided(corpus, tmp_path_factory):
    """The folder in which every command line of the users' guide was run, one after the other."""
    folder = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        dataset, gpus = ["--dataset_path", corpus], ["--num_gpus", 4, "--num_workers_per_gpu"]
        train, others = "phoenix_keypoints_train.pkl", "phoenix_keypoints_dev_test.pkl"
        says([*dataset, "--output_path", "phoenix_keypoints_full.pkl", *gpus, 2])
        says(["extract", *dataset, "--output_path", train, "--splits", "train", *gpus, 1])
        says([*dataset, "--output_path", others, "--splits", "dev", "test", *gpus, 1, "--temp_dir", "temp_keypoints"])
        says(["merge", "--input_files", train, others, "--output_path", "phoenix_keypoints_merged.pkl"])
        says(["prepare", "--keypoints_file", "phoenix_keypoints_full.pkl", "--output_dir", "model_input_data"])
        says(["check", "phoenix_keypoints_full.pkl"])
        says(["view", "phoenix_keypoints_full.pkl", "--detailed"])
        says(["visualize", "phoenix_keypoints_full.pkl", "--num_samples", 10, "--splits", "train"])
    return folder


def bytes_of(folder):
    """Hash of every file but the bookkeeping."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".gpupipe" not in path.relative_to(folder).parts
    }


# ---- the guide


def test_the_guide_reads_its_pickle(guided, corpus):
    with (guided / "phoenix_keypoints_full.pkl").open("rb") as f:
        data = pickle.load(f)
    assert list(data) == [*SPLITS, "stats", "keypoint_info", "dataset_info"]
    for split in SPLITS:
        videos = [video for (there, video), n in FRAMES.items() if there == split for _ in range(n)]
        assert data[split]["video_ids"] == videos
        paths = [f"{v}/images{n:04d}.png" for (s, v), k in FRAMES.items() if s == split for n in range(1, k + 1)]
        assert data[split]["image_paths"] == [str(corpus / FEATURES / split / path) for path in paths]
        assert data["stats"][split]["total"] == COUNTS[split] == len(data[split]["keypoints"])
    first, nobody = data["train"]["keypoints"][0], data["test"]["keypoints"][-1]
    assert first["pose"].shape == (33, 3) and first["face"].shape == (68, 3) and first["pose"].dtype == np.float32
    assert nobody == {"face": None, "left_hand": None, "right_hand": None, "pose": None, "image_shape": (260, 210)}
    assert (data["stats"]["test"]["success"], data["stats"]["test"]["failed"]) == (1, 1)


def test_the_guide_reads_its_arrays(guided, corpus):
    out = guided / "phoenix_keypoints_full.pkl.gpupipe"
    points, valid = np.load(out / "keypoints-00000.npy"), np.load(out / "valid-00000.npy")
    start = 0
    for split in SPLITS:
        data = np.load(guided / "model_input_data" / f"{split}_keypoints.npz")
        arrays = {name: data[name] for name in data.files}  # each opens without pickles
        assert arrays.keys() == {"keypoints", "image_paths", "video_ids", "valid"}
        here = slice(start, start + COUNTS[split])
        np.testing.assert_array_equal(arrays["keypoints"], packed(points[here]))
        np.testing.assert_array_equal(arrays["valid"], valid[here])
        assert arrays["keypoints"].shape == (COUNTS[split], 143, 3)
        assert list(zip(arrays["video_ids"].tolist(), map(Path, arrays["image_paths"].tolist()), strict=True)) == [
            (video, path)
            for (there, video) in FRAMES
            if there == split
            for path in sorted(corpus.rglob(f"{video}/*.png"))
        ]
        stats = json.loads((guided / "model_input_data" / f"{split}_stats.json").read_text())
        assert stats["pose_detected"] == int(valid[here, PARTS.index("pose")].sum())
        start += COUNTS[split]


def test_runs_by_split_merged_are_one_run(guided):
    with (
        (guided / "phoenix_keypoints_full.pkl").open("rb") as f,
        (guided / "phoenix_keypoints_merged.pkl").open("rb") as g,
    ):
        full, merged = pickle.load(f), pickle.load(g)
    for split in SPLITS:
        assert merged[split]["image_paths"] == full[split]["image_paths"]
        for one, other in zip(merged[split]["keypoints"], full[split]["keypoints"], strict=True):
            np.testing.assert_equal(one, other)
    assert not (guided / "temp_keypoints").exists()
    with Image.open(guided / "keypoint_visualizations" / "train.png") as sheet:
        assert sheet.width > 400
    assert {path.name for path in guided.iterdir() if path.suffix == ".pkl"} == {
        f"phoenix_keypoints_{part}.pkl" for part in ("full", "train", "dev_test", "merged")
    }


def test_annotations_of_the_tree_are_in_the_index(guided):
    rows = parquet.read_table(guided / "phoenix_keypoints_full.pkl.gpupipe" / "index.parquet").to_pylist()
    assert {row["translation"] for row in rows} == {f"und nun das wetter für {split} ." for split in SPLITS}
    assert len(rows) == COUNT


def test_in_the_background_it_writes_a_plain_log(corpus, tmp_path):
    words = [sys.executable, "-m", "gpupipe.cli.main", "keypoints", "extract", "--dataset_path", str(corpus),
             "--output_path", "full.pkl", "--splits", "dev", "--num_gpus", "4"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "extraction.log").open("wb") as log:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
    text = (tmp_path / "extraction.log").read_text()
    assert done.returncode == 0, text
    assert "2/2 (100%)" in text and "2 pictures: 2 done, 0 failed" in text and "\x1b" not in text and "\r" not in text
    assert (tmp_path / "full.pkl").is_file()


@pytest.mark.parametrize("companion", ["check", "view"])
def test_what_is_not_there_is_the_one_thing_said(tmp_path, capsys, companion):
    assert main(["keypoints", companion, str(tmp_path / "none.pkl")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "none.pkl: no such file or folder of keypoints" in said.err


# ---- again, from elsewhere, with other words


def test_again_nothing_is_done_and_no_byte_changes(guided, corpus, monkeypatch, capsys):
    monkeypatch.chdir(guided)
    before = bytes_of(guided)
    says(["--dataset-path", corpus, "--num-workers", 1])  # the guide's output is the default
    assert f"{COUNT} done, 0 failed ({COUNT} from before)" in capsys.readouterr().out
    assert bytes_of(guided) == before


def test_settings_paths_and_another_folder(guided, corpus, tmp_path, monkeypatch):
    here = tmp_path / "ein Ordner ü 中"
    here.mkdir()
    (here / "Daten 🤟").symlink_to(corpus)
    (here / "gpupipe.toml").write_text(
        '[keypoints]\ndataset_path = "Daten 🤟"\nsplits = ["dev"]\nnum-workers = 1\nshard_size = 1\n', encoding="utf-8"
    )
    monkeypatch.chdir(here)
    says(["--output_path=aus gabe/k ü.pkl", "--pose_dir", "posen/neu"])
    assert sorted(path.name for path in (here / "aus gabe").iterdir()) == ["k ü.pkl", "k ü.pkl.gpupipe"]
    assert [path.name for path in (here / "posen" / "neu" / "dev").iterdir()] == ["03June-3.pose"]
    out = here / "aus gabe" / "k ü.pkl.gpupipe"
    rows = np.concatenate([np.load(out / f"keypoints-0000{shard}.npy") for shard in range(COUNTS["dev"])])
    whole = np.load(guided / "phoenix_keypoints_full.pkl.gpupipe" / "keypoints-00000.npy")
    np.testing.assert_array_equal(rows, whole[COUNTS["train"] :][: COUNTS["dev"]])


def test_a_dry_run_leaves_nothing(corpus, tmp_path, capsys):
    words = ["--dataset-path", corpus, "--output-path", tmp_path / "k.pkl", "--dry-run"]
    says(words)
    assert f"{COUNT} pictures: {COUNT} to do" in capsys.readouterr().out
    says([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["items"]["to_do"] == COUNT and found["survey"]["sizes"] == {"260x210": COUNT}
    assert found["trial"]["done"] > 0 and not any(tmp_path.iterdir())


def test_the_function_does_as_the_command(guided, corpus, tmp_path):
    summary = gpupipe.keypoints(corpus, tmp_path / "phoenix_keypoints_full.pkl")
    assert (summary.items, summary.done, summary.exit_code) == (COUNT, COUNT, 0)
    full = {name: digest for name, digest in bytes_of(guided).items() if name.startswith("phoenix_keypoints_full")}
    assert bytes_of(tmp_path) == full != {}


def test_the_function_takes_one_split_as_it_is(corpus, tmp_path):
    assert gpupipe.keypoints(corpus, tmp_path, splits="dev", dry_run=True).items.total == COUNTS["dev"]


def test_the_functions_defaults_are_the_commands():
    _, jobs = _parser()
    flags = {action.dest: action.default for action in jobs["keypoints", "extract"]._actions}
    parameters = inspect.signature(gpupipe.keypoints).parameters
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty and name != "progress":
            default = Path(parameter.default) if name == "output_path" else parameter.default
            assert (list(default) if name == "splits" else default) == flags[name], name
    # Flags without a parameter: those that only a shell needs, and what is accepted and means nothing.
    assert flags.keys() - parameters.keys() == {
        "help",
        "temp_dir",
        "resume",
        "num_nodes",
        "batch_size",
        "quiet",
        "json",
        "audit",
    }


def test_one_dataset_in_two_parts(guided, corpus, tmp_path, capsys):
    words = ["--dataset-path", corpus, "--output-path", tmp_path / "k.pkl", "--shard-size", 2, "--total-shards", 2]
    says([*words, "--shard", 0])
    assert not (tmp_path / "k.pkl").exists()
    says(["check", tmp_path / "k.pkl"])
    assert "stopped" in capsys.readouterr().out
    says([*words, "--shard", 1])
    full = (guided / "phoenix_keypoints_full.pkl").read_bytes()
    assert (tmp_path / "k.pkl").read_bytes() == full


def test_the_folder_beside_a_pickle_is_its_output_too(corpus, tmp_path):
    says(["--dataset-path", corpus, "--output-path", tmp_path / "k.pkl", "--splits", "dev"])
    (tmp_path / "k.pkl").unlink()
    says(["--dataset-path", corpus, "--output-path", tmp_path / "k.pkl.gpupipe", "--splits", "dev"])
    assert (tmp_path / "k.pkl").is_file() and gpupipe.verify(tmp_path / "k.pkl").faults == []


def test_a_folder_of_the_pickles_name_is_no_output(corpus, tmp_path, capsys):
    (tmp_path / "k.pkl").mkdir()
    words = ["keypoints", "--dataset-path", str(corpus), "--output-path", str(tmp_path / "k.pkl"), "--overwrite"]
    assert main(words) == 2
    assert "is a folder; expected the name of a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["k.pkl"]


def test_pose_files_go_into_a_folder(corpus, tmp_path, capsys):
    (tmp_path / "poses").write_bytes(b"a file")
    words = ["--dataset-path", str(corpus), "--output-path", str(tmp_path / "k.pkl")]
    assert main(["keypoints", *words, "--pose-dir", str(tmp_path / "poses" / "new")]) == 2
    assert f"{tmp_path / 'poses'} is no folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["poses"]


# ---- a run that is ended, and what is damaged


@pytest.fixture(scope="module")
def long_tree(corpus, tmp_path_factory):
    """Pictures enough for a run to be in the middle of."""
    root = tmp_path_factory.mktemp("long")
    (picture, *_) = sorted(corpus.rglob("*.png"))
    for number in range(60):
        path = root / f"v{number % 4}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(picture)
    return root


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_half_way_and_continued(long_tree, tmp_path, number):
    words = [sys.executable, "-m", "gpupipe.cli.main", "keypoints", "--dataset-path", str(long_tree), "--output-path",
             str(tmp_path / "k.pkl"), "--num-workers", "1", "--shard-size", "8"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                          start_new_session=True) as process:  # fmt: skip
        first = next(line for line in process.stderr if re.search(r"\d+/60", line))
        assert "60/60" not in first
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.stderr.read()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert not (tmp_path / "k.pkl").exists()
    assert gpupipe.status(tmp_path / "k.pkl")["state"] == "stopped"
    assert subprocess.run([*words, "--quiet"], env=environment, check=False).returncode == 0
    data = pickle.loads((tmp_path / "k.pkl").read_bytes())["all"]
    assert len(data["keypoints"]) == 60 and data["video_ids"] == sorted(data["video_ids"])
    assert all((frame["pose"] == data["keypoints"][0]["pose"]).all() for frame in data["keypoints"])


def test_damage_is_found_told_and_repaired(corpus, tmp_path, capsys):
    output = tmp_path / "k.pkl"
    words = ["--dataset-path", corpus, "--output-path", output, "--splits", "train", "--quiet"]
    says([*words, "--checkpoint-file", tmp_path / "progress.json"])
    assert json.loads((tmp_path / "progress.json").read_text())["processed_indices"] == list(range(COUNTS["train"]))
    whole = bytes_of(tmp_path)
    assert main(["verify", str(output), "--deep", "3"]) == 0
    assert "3 made again" in capsys.readouterr().out
    shard = tmp_path / "k.pkl.gpupipe" / "keypoints-00000.npy"
    data = bytearray(shard.read_bytes())
    data[-1000] ^= 1
    shard.write_bytes(data)
    assert main(["verify", str(output)]) == 1
    assert main(["verify", str(output), "--repair"]) == 1
    assert f"item {COUNTS['train'] - 1} is altered" in capsys.readouterr().out
    says(words)
    assert bytes_of(tmp_path) == whole
    assert main(["verify", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    assert main(["status", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "complete"
    assert main(["retry", str(output)]) == 0
    assert main(["report", str(output)]) == 0
    page = (tmp_path / "k.pkl.gpupipe" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == COUNTS["train"]


def test_without_its_pictures_a_dataset_has_its_pickle_made_again(corpus, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    shutil.copytree(corpus / FEATURES / "dev" / "03June-3", pictures)
    says(["--dataset-path", pictures, "--output-path", tmp_path / "k.pkl"])
    whole = bytes_of(tmp_path / "k.pkl.gpupipe"), (tmp_path / "k.pkl").read_bytes()
    shutil.rmtree(pictures)
    (tmp_path / "k.pkl").unlink()
    assert main(["retry", str(tmp_path / "k.pkl")]) == 0
    assert "the inputs of 2 done items are gone; what was made of them stays" in capsys.readouterr().err
    assert (bytes_of(tmp_path / "k.pkl.gpupipe"), (tmp_path / "k.pkl").read_bytes()) == whole
    assert main(["verify", str(tmp_path / "k.pkl"), "--deep", "1"]) == 1
    assert f"{pictures}/images000" in capsys.readouterr().out


def test_pose_files_asked_for_later_are_written(tmp_path, monkeypatch):
    """Without networks: a complete dataset has nothing left to work."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    for video in ("a", "b"):
        (tmp_path / "tree" / video).mkdir(parents=True)
        Image.new("RGB", (9, 8), (50, 60, 70)).save(tmp_path / "tree" / video / "1.png")
    (tmp_path / "tree" / "b" / "1.png").write_bytes(b"no picture")

    def go(poses):
        out, name = dataset_folder(tmp_path / "k.pkl")
        job = FakeKeypointsJob(networks="none", dataset_path=str(tmp_path / "tree"), pickle=name, pose_dir=poses)
        reporter = Quiet()
        assert keypoint_poses.run(job, Run(out, workers=1), reporter).done == 1
        return [text for text in reporter.notices if "written" in text]

    assert go(str(tmp_path / "poses")) == []  # by the run itself
    there = tmp_path / "poses" / "all" / "a.pose"
    assert there.is_file() and len(list(there.parent.iterdir())) == 1
    assert go(str(tmp_path / "poses")) == []
    data = there.read_bytes()
    there.unlink()
    assert go(str(tmp_path / "poses")) == [f"1 .pose files written in {tmp_path / 'poses'}"]
    assert there.read_bytes() == data
    assert go(str(tmp_path / "other")) == [f"1 .pose files written in {tmp_path / 'other'}"]
    assert (tmp_path / "other" / "all" / "a.pose").read_bytes() == data


# ---- executors, modes, sources


@pytest.mark.parametrize("executor", ["mediapipe", "torch"])
def test_another_executor_finds_the_same(guided, corpus, tmp_path, executor):
    if executor == "torch":
        pytest.importorskip("torch")
    else:
        try:
            original_python()
        except MissingInputError as error:
            pytest.skip(str(error))
    says(["--dataset-path", corpus, "--output-path", tmp_path, "--executor", executor, "--splits", "dev", "--backend",
          "ffmpeg"])  # fmt: skip
    here = slice(COUNTS["train"], COUNTS["train"] + COUNTS["dev"])
    ours = guided / "phoenix_keypoints_full.pkl.gpupipe"
    np.testing.assert_array_equal(np.load(tmp_path / "valid-00000.npy"), np.load(ours / "valid-00000.npy")[here])
    # Noise of the arithmetic, not of the finding: MediaPipe's own against one bit of one pixel is larger, at worst.
    apart = np.abs(np.load(tmp_path / "keypoints-00000.npy") - np.load(ours / "keypoints-00000.npy")[here])
    assert apart[..., :2].max() * 260 < 3


@pytest.mark.parametrize("mode", ["video", "legacy_static"])
def test_modes_over_folders_of_pictures(guided, corpus, tmp_path, mode):
    says(["--dataset-path", corpus, "--output-path", tmp_path / "k.pkl", "--mode", mode, "--splits", "train", "test"])
    rows = parquet.read_table(tmp_path / "k.pkl.gpupipe" / "index.parquet").to_pylist()
    assert [row["frame"] for row in rows] == [0, 1, 2, 0, 1, 0, 1] and len({row["ordinal"] for row in rows}) == 3
    points = np.load(tmp_path / "k.pkl.gpupipe" / "keypoints-00000.npy")
    alone = np.load(guided / "phoenix_keypoints_full.pkl.gpupipe" / "keypoints-00000.npy")
    np.testing.assert_allclose(points[0, :33], alone[0, :33], atol=1e-3)  # nothing is remembered yet
    assert (points[1] != alone[1]).any()
    assert main(["verify", str(tmp_path / "k.pkl"), "--deep", "1"]) == 0
