"""The keypoints job as a whole, without networks: what is written, by however many, however often killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from fake_keypoints import NOBODY, FakeKeypointsJob
from PIL import Image
from pyarrow import parquet

import gpupipe
from gpupipe.cli.main import main
from gpupipe.errors import UsageError
from gpupipe.fingerprint import change, fingerprint
from gpupipe.landmarks.merge import merge
from gpupipe.launch import Run, run
from gpupipe.plan import Plan
from gpupipe.remains import Remains
from gpupipe.reports.live import Quiet
from gpupipe.sinks.base import Place

HERE = Path(__file__).parent
SPLITS = {"train": {"v1": 5, "v2": 3}, "dev": {"w": 4}}


@pytest.fixture(autouse=True)
def in_reach(monkeypatch):
    """Workers are new processes: they find the job through the environment."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))


def write_picture(path, first=9, seed=0, size=(12, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(3, 255, (*size, 3), dtype=np.uint8)
    pixels[0, 0, 0] = first
    Image.fromarray(pixels).save(path)


@pytest.fixture
def tree(tmp_path):
    """A split tree with one frame of nobody and one that cannot be read."""
    root = tmp_path / "Bilder ü"
    for split, videos in SPLITS.items():
        for video, count in videos.items():
            for number in range(count):
                first = NOBODY if (video, number) == ("v1", 2) else 9
                seed = hash_of(f"{video}{number}")
                write_picture(root / split / video / f"images{number:04d}.png", first, seed)
    (root / "train" / "v2" / "images0001.png").write_bytes(b"no picture")
    return root


def hash_of(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def job_of(root, items="pictures", **options):
    return FakeKeypointsJob(
        **{"items": items, "networks": "none", "shard_size": 4, "dataset_path": str(root), **options}
    )


def go(job, out, **how):
    return run(job, Run(out, **{"workers": 2, **how}), Quiet())


def bytes_of(out):
    """Of every file but the bookkeeping and the failures, which name times and tries."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and ".gpupipe/" not in f"{name}/" and path.name != "failed.jsonl":
            found[name] = path.read_bytes()
    return found


def table(out):
    return parquet.read_table(out / "index.parquet").to_pylist()


def test_every_picture_has_its_row_and_its_line(tree, tmp_path):
    out = tmp_path / "out"
    summary = go(job_of(tree), out)
    assert (summary.items, summary.done, summary.failed, summary.exit_code) == (12, 11, 1, 3)
    rows = table(out)
    paths = [f"{s}/{v}/images{n:04d}.png" for s, videos in SPLITS.items() for v, k in videos.items() for n in range(k)]
    assert [row["path"] for row in rows] == [row["id"] for row in rows] == paths
    assert [row["ordinal"] for row in rows] == list(range(12))
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]
    assert [row["split"] for row in rows] == ["train"] * 8 + ["dev"] * 4
    bad = rows[6]
    assert (bad["status"], bad["shard"], bad["row"], bad["height"]) == ("failed", None, None, None)
    for row in rows:
        if row is bad:
            continue
        assert (row["status"], row["height"], row["width"], row["pts"]) == ("done", 12, 16, None)
        points = np.load(out / f"keypoints-{row['shard']:05d}.npy")[row["row"]]
        valid = np.load(out / f"valid-{row['shard']:05d}.npy")[row["row"]]
        total = int(np.asarray(Image.open(tree / row["path"])).sum())
        nobody = row["ordinal"] == 2
        assert points[0, 0] == (0 if nobody else np.float32(total / 1e6))
        assert valid.tolist() == [not nobody, not nobody, False, False]
    assert not np.load(out / "keypoints-00001.npy")[2].any()
    (failure,) = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert failure["id"] == "train/v2/images0001.png" and failure["stage"] == "read"


@pytest.mark.parametrize("items", ["pictures", "clips"])
def test_workers_and_run_shards_change_nothing(tree, tmp_path, items):
    mode = "stateless" if items == "pictures" else "video"
    job = job_of(tree, items, mode=mode, shard_size=2)
    go(job, tmp_path / "one", workers=1)
    for shard in range(2):
        go(job, tmp_path / "two", workers=1, shard=shard, total_shards=2)
    go(job, tmp_path / "many", workers=3)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two") == bytes_of(tmp_path / "many") != {}


KILLED = """
import sys
from pathlib import Path
import fake_keypoints, gpupipe.launch as launch
from gpupipe.reports.live import Quiet
options = dict(eval(sys.argv[1]))
how = launch.Run(Path(sys.argv[2]), workers=2)
sys.exit(launch.run(fake_keypoints.FakeKeypointsJob(**options), how, Quiet()).exit_code)
"""


@pytest.mark.parametrize("items", ["pictures", "clips"])
def test_killed_at_any_moment_and_resumed_it_is_the_same(tmp_path, items):
    root = tmp_path / "tree"
    for number in range(120):
        write_picture(root / f"v{number % 9}" / f"{number:04d}.png", seed=number, size=(64, 64))
    options = {
        "items": items, "mode": "stateless" if items == "pictures" else "video", "networks": "none", "shard_size": 8,
        "dataset_path": str(root), "pickle": "all.pkl",
    }  # fmt: skip
    whole = tmp_path / "whole" / "all.pkl.gpupipe"
    assert go(FakeKeypointsJob(**options), whole).exit_code == 0
    killed = tmp_path / "killed" / "all.pkl.gpupipe"
    killed.parent.mkdir()
    chance = random.Random(1)
    kills, code = 0, None
    while code is None:
        process = subprocess.Popen([sys.executable, "-c", KILLED, repr(options), str(killed)], start_new_session=True)
        try:
            code = process.wait(0.4 + chance.random() if kills < 4 else 120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert code == 0
    assert bytes_of(killed) == bytes_of(whole)
    assert (killed.parent / "all.pkl").read_bytes() == (whole.parent / "all.pkl").read_bytes()


def test_clips_of_frames_are_composed_in_order(tree, tmp_path):
    out = tmp_path / "out"
    summary = go(job_of(tree, "clips", mode="video", shard_size=2), out)
    assert (summary.items, summary.done, summary.failed) == (3, 2, 1)
    rows = table(out)
    assert [(row["video_id"], row["frame"], row["status"]) for row in rows] == [
        *[("v1", n, "done") for n in range(5)],
        *[("v2", n, "failed") for n in range(3)],
        *[("w", n, "done") for n in range(4)],
    ]
    assert [row["shard"] for row in rows] == [0] * 5 + [None] * 3 + [1] * 4
    assert [row["row"] for row in rows] == [*range(5), None, None, None, *range(4)]
    assert rows[6]["path"] == "train/v2/images0001.png"
    points = np.load(out / "keypoints-00000.npy")
    totals = [int(np.asarray(Image.open(tree / row["path"])).sum()) for row in rows[:5]]
    expected = (np.cumsum(totals) / 1e6).astype(np.float32)
    assert points.shape == (5, 543, 3)
    assert points[:, 0, 0].tolist() == [0 if n == 2 else expected[n] for n in range(5)]
    failure = json.loads((out / "failed.jsonl").read_text())
    assert failure["id"] == "train/v2" and "images0001.png" in failure["message"]


def test_a_video_that_is_listed_twice_is_two_items(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("a.mp4\na.mp4\n")
    out = tmp_path / "out"
    go(job_of(tmp_path / "list.txt", "clips"), out)
    failures = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert [failure["id"] for failure in failures] == ["a.mp4", "a.mp4~2"]
    assert [(row["id"], row["path"], row["video_id"]) for row in table(out)] == [
        ("a.mp4", "a.mp4", "a"),
        ("a.mp4~2", "a.mp4", "a~2"),
    ]


def two_streams(path):
    """A grey video of 64 x 48 pixels that FFmpeg calls best, and a red one of 32 x 24."""
    with av.open(str(path), "w") as container:
        made = []
        for size, colour in (((48, 64), (90, 90, 90)), ((24, 32), (200, 10, 10))):
            stream = container.add_stream("ffv1", rate=10)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv444p"
            made.append((stream, np.full((*size, 3), colour, np.uint8)))
        for number in range(4):
            for stream, pixels in made:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream, _ in made:
            container.mux(stream.encode(None))


def red(pixels):
    return (pixels[..., 0] > 150) & (pixels[..., 1] < 60)


def test_what_is_shown_of_a_video_is_the_stream_that_was_read(tmp_path):
    (tmp_path / "data").mkdir()
    two_streams(tmp_path / "data" / "a.mkv")
    out, file = tmp_path / "all.pkl.gpupipe", tmp_path / "all.pkl"
    job = job_of(tmp_path / "data", "clips", mode="video", stream=1, pickle="all.pkl")
    assert go(job, out).done == 1
    assert table(out)[0]["width"] == 32
    with closing(Plan(out / ".gpupipe" / "plan")) as plan:
        place = Place(out, out / ".gpupipe", out, plan.count, 4)
        shown = job.thumbnail(place, 0, plan.item(0), None)
    assert red(shown).mean() > 0.2
    merge([file], tmp_path / "merged.pkl")
    (tmp_path / "alone.pkl").write_bytes(file.read_bytes())
    for name in ("all.pkl", "alone.pkl", "merged.pkl"):
        words = ["keypoints", "visualize", str(tmp_path / name), "--output-dir", str(tmp_path / f"shown {name}")]
        assert main(words) == 0
        with Image.open(tmp_path / f"shown {name}" / "all.png") as sheet:
            assert red(np.asarray(sheet.convert("RGB"))).mean() > 0.05, name


def test_new_pictures_are_another_configuration_and_changed_ones_are_done_again(tree, tmp_path):
    out = tmp_path / "out"
    go(job_of(tree), out)
    before = np.load(out / "keypoints-00000.npy")[0]
    write_picture(tree / "train" / "v1" / "images0000.png", seed=999, size=(13, 16))
    assert go(job_of(tree), out).earlier == 11
    assert (np.load(out / "keypoints-00000.npy")[0] != before).any() and table(out)[0]["height"] == 13
    write_picture(tree / "train" / "v1" / "images9999.png")
    with pytest.raises(UsageError, match=r"items: 12 from .* there, 13 others"):
        go(job_of(tree), out)


def test_a_changed_frame_has_its_clip_done_again(tree, tmp_path):
    out = tmp_path / "out"
    job = job_of(tree, "clips", mode="video")
    go(job, out)
    write_picture(tree / "train" / "v2" / "images0001.png", seed=3)
    summary = go(job, out)
    assert (summary.done, summary.failed, summary.earlier) == (3, 0, 2)
    rows = table(out)
    assert {row["status"] for row in rows} == {"done"} and len(rows) == 12
    assert np.load(out / "keypoints-00000.npy").shape == (12, 543, 3)


def test_a_crash_costs_its_picture_alone(tree, tmp_path):
    write_picture(tree / "dev" / "w" / "images0001.png", first=2)
    summary = go(job_of(tree), tmp_path / "out")
    assert (summary.done, summary.failed) == (10, 2)
    assert table(tmp_path / "out")[9]["status"] == "failed"


def test_annotations_stand_beside_their_frames(tree, tmp_path):
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("name|orth|translation\nv1|HALLO WELT|hallo welt .\nw|TSCHÜSS|tschüss .\n", encoding="utf-8")
    from gpupipe.jobs.annotations import annotation_files, annotations_digest

    digest = annotations_digest(annotation_files(tree, str(corpus), ["train", "dev"]))
    job = job_of(tree, annotations=digest, annotations_path=str(corpus))
    go(job, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert (rows[0]["orth"], rows[0]["translation"]) == ("HALLO WELT", "hallo welt .")
    assert (rows[5]["orth"], rows[11]["orth"]) == (None, "TSCHÜSS")
    corpus.write_text("name|orth|translation\nv1|ANDERS|anders .\n")
    with pytest.raises(gpupipe.StoppedError, match="annotations are others"):
        go(replace(job), tmp_path / "later")


def test_a_shard_that_was_damaged_before_the_index_was_made(tree, tmp_path):
    out = tmp_path / "out"
    go(job_of(tree), out)
    whole = bytes_of(out)
    (out / "index.parquet").unlink()
    (out / "shape-00000.npy").write_bytes(b"")
    with pytest.raises(gpupipe.StoppedError, match=r"shape-00000\.npy: .* gpupipe verify --repair"):
        go(job_of(tree), out)
    (out / "shape-00000.npy").write_bytes(whole["shape-00000.npy"])
    go(job_of(tree), out)
    assert bytes_of(out) == whole


def test_a_folder_is_another_one_when_anything_in_it_is(tmp_path):
    folder = tmp_path / "clip"
    write_picture(folder / "a.png")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "inner").mkdir()
    for kind in ("stat", "content"):
        before = fingerprint(str(folder), kind)
        assert before.count(":") == (2 if kind == "content" else 1)
        assert change(before, str(folder)) == "same"
        write_picture(folder / "a.png", seed=hash_of(kind), size=(14, 16))
        assert change(before, str(folder)) == "changed"
        (folder / "gone.png").rename(folder / f"gone {kind}.png")
        (folder / f"gone {kind}.png").rename(folder / "gone.png")
    assert change(before, str(tmp_path / "nowhere")) == "gone"


def test_what_is_removed_with_an_index_is_never_a_folder(tree, tmp_path):
    out = tmp_path / "out"
    go(job_of(tree), out)
    (out / "index.parquet").unlink()
    (out / "index.parquet").mkdir()
    (out / "index.parquet" / "work").write_text("of years")
    with pytest.raises(gpupipe.OutputError, match=r"index\.parquet"):
        Remains(out).remove(["index.parquet"])
    assert (out / "index.parquet" / "work").read_text() == "of years"
