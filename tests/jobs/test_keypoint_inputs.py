"""Pictures and videos as people really have them, through the real networks: each has its declared outcome."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from fake_keypoints import FakeKeypointsJob
from model_files import require_networks
from phoenix_like import people, portrait
from PIL import Image
from pyarrow import parquet
from synth import Clip, encode, sound_only, truncate

import gpupipe
from gpupipe.errors import UsageError
from gpupipe.landmarks.contact_sheet import contact_sheet
from gpupipe.landmarks.dataset import open_landmarks
from gpupipe.landmarks.pictures import Pictures
from gpupipe.landmarks.shots import sample
from gpupipe.launch import Run, run
from gpupipe.ops.keypoints.points import PARTS, SLICES
from gpupipe.reports.live import Quiet

SIDE = 384
LARGEST = 4_000_000  # --max-pixels of these runs

FAILED = {
    "cut.png": "TruncatedError",
    "cut.jpg": "TruncatedError",
    "text.png": "DecodeError",
    "empty.png": "DecodeError",
    "dangling.png": "MissingInputError",
    "pipe.png": "MissingInputError",
    "large.png": "InputError",
}
SAME = [
    "rgba.png",
    "deep.png",
    "plain.bmp",
    "PLAIN.TIF",
    "linked.png",
    "new\nline.png",
    *(f"turned{n}.png" for n in range(1, 9)),
]
"""Without loss the picture of ``upright.png``, and so its points."""

# What undoes each EXIF orientation, undone: how a camera would have stored the upright picture.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def save_turned(picture, path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.transpose(_STORED[orientation]) if orientation in _STORED else picture
    stored.save(path, exif=exif)


def save_deep(picture, path):
    """A PNG of 16 bits a channel, which Pillow does not write in colour."""
    pixels = np.asarray(picture).astype(">u2") * 257

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def write_pictures(root):
    """Every kind of picture; returns the names."""
    root.mkdir()
    upright = Image.fromarray(portrait()).resize((SIDE, SIDE - 32))  # not square: turned ones show it
    upright.save(root / "upright.png")
    for orientation in range(1, 9):
        save_turned(upright, root / f"turned{orientation}.png", orientation)
    save_turned(upright, root / "turned6.jpg", 6)
    upright.convert("L").save(root / "gray.png")
    upright.convert("RGBA").save(root / "rgba.png")
    upright.convert("CMYK").save(root / "cmyk.jpg", quality=95)
    save_deep(upright, root / "deep.png")
    upright.save(root / "plain.bmp")
    upright.save(root / "PLAIN.TIF")
    (root / "linked.png").symlink_to("upright.png")
    upright.save(root / "new\nline.png")
    Image.new("RGB", (1, 1), (9, 9, 9)).save(root / "one.png")
    Image.new("RGB", (200, 150), (90, 90, 90)).save(root / "nobody.png")
    upright.crop((0, 0, SIDE, SIDE // 3)).save(root / "no hands.png")
    both = Image.new("RGB", (2 * SIDE, upright.height))
    both.paste(upright, (0, 0))
    both.paste(Image.fromarray(people()[0]).resize(upright.size), (SIDE, 0))
    both.save(root / "two.png")
    Image.new("1", (2001, 2000)).save(root / "large.png")
    data = (root / "upright.png").read_bytes()
    (root / "cut.png").write_bytes(data[: len(data) // 2])
    data = (root / "turned6.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(data[: len(data) // 2])
    (root / "text.png").write_bytes(b"no picture")
    (root / "empty.png").write_bytes(b"")
    (root / "folder.png").mkdir()
    (root / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(root / "pipe.png")
    return sorted(path.name for path in root.iterdir() if not path.is_dir())


def read(out):
    """Rows of the index by path, with what was found."""
    rows = parquet.read_table(out / "index.parquet").to_pylist()
    for row in rows:
        for name in ("keypoints", "valid"):
            shard = None if row["shard"] is None else np.load(out / f"{name}-{row['shard']:05d}.npy", mmap_mode="r")
            row[name] = None if shard is None else shard[row["row"]]
    return {row["path"]: row for row in rows}


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    require_networks()
    folder = tmp_path_factory.mktemp("inputs")
    names = write_pictures(folder / "pictures")
    summary = gpupipe.keypoints(folder / "pictures", folder / "k.pkl", max_pixels=LARGEST)
    out = folder / "k.pkl.gpupipe"
    return SimpleNamespace(folder=folder, names=names, summary=summary, out=out, rows=read(out))


def test_every_picture_has_its_outcome(worked):
    assert sorted(worked.rows) == worked.names
    assert worked.summary.exit_code == 3 and worked.summary.failed == len(FAILED)
    failures = [json.loads(line) for line in (worked.out / "failed.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {failure["id"]: failure["error"] for failure in failures} == FAILED
    assert all(failure["id"] in failure["message"] for failure in failures)
    assert {path for path, row in worked.rows.items() if row["status"] == "failed"} == FAILED.keys()
    assert "max_pixels = 4,000,000" in next(each["message"] for each in failures if each["id"] == "large.png")


@pytest.mark.parametrize("name", SAME)
def test_the_same_picture_has_the_same_points(worked, name):
    upright, row = worked.rows["upright.png"], worked.rows[name]
    assert upright["valid"][PARTS.index("pose")] and upright["valid"][PARTS.index("face")]
    np.testing.assert_array_equal(row["keypoints"], upright["keypoints"])
    np.testing.assert_array_equal(row["valid"], upright["valid"])
    assert (row["height"], row["width"]) == (SIDE - 32, SIDE)


@pytest.mark.parametrize("name", ["gray.png", "cmyk.jpg", "turned6.jpg"])
def test_nearly_the_same_picture_has_nearly_the_same_points(worked, name):
    upright, row = worked.rows["upright.png"], worked.rows[name]
    assert (row["height"], row["width"]) == (SIDE - 32, SIDE)
    # A tenth of the picture: a mirrored or turned one is farther off, other grays are not.
    face = SLICES["face"]
    np.testing.assert_allclose(row["keypoints"][face, :2], upright["keypoints"][face, :2], atol=0.1)


@pytest.mark.parametrize(("name", "size"), [("nobody.png", (150, 200)), ("one.png", (1, 1))])
def test_nobody_is_no_failure(worked, name, size):
    row = worked.rows[name]
    assert row["status"] == "done" and (row["height"], row["width"]) == size
    assert not row["valid"].any() and not row["keypoints"].any()


def test_a_hand_out_of_sight_is_not_made_up(worked):
    row = worked.rows["no hands.png"]
    for hand in ("left_hand", "right_hand"):
        assert not row["valid"][PARTS.index(hand)] and not row["keypoints"][SLICES[hand]].any()
    assert row["valid"][PARTS.index("pose")]


def test_of_two_people_one_is_taken_whole(worked):
    row = worked.rows["two.png"]
    assert row["valid"][PARTS.index("pose")] and row["valid"][PARTS.index("face")]
    nose, face = row["keypoints"][SLICES["pose"]][0, 0], row["keypoints"][SLICES["face"]][:, 0]
    assert ((face < 0.5) == (nose < 0.5)).all()


def test_the_pickle_has_them_all_in_order(worked):
    data = pickle.loads((worked.folder / "k.pkl").read_bytes())
    assert [Path(path).name for path in data["all"]["image_paths"]] == worked.names
    counts = data["stats"]["all"]
    assert (counts["total"], counts["nobody"], counts["unreadable"]) == (len(worked.names), 2, len(FAILED))
    assert data["all"]["keypoints"][worked.names.index("cut.png")]["image_shape"] is None


def test_a_sheet_of_them_can_be_drawn(worked):
    with open_landmarks(worked.folder / "k.pkl") as landmarks, Pictures() as pictures:
        shots = sample(landmarks.clips("all"), 100, 0).shots
        assert len(shots) == len(worked.names) and contact_sheet(shots, pictures, "all", "").width > 400


def test_pictures_of_8k_stay_within_bounds(tmp_path):
    require_networks()
    (tmp_path / "8k").mkdir()
    Image.fromarray(portrait()).resize((7680, 4320)).save(tmp_path / "8k" / "0.jpg")
    for number in range(1, 6):
        (tmp_path / "8k" / f"{number}.jpg").symlink_to("0.jpg")
    summary = gpupipe.keypoints(tmp_path / "8k", tmp_path / "out", num_workers=1, memory_per_worker=512 << 20)
    assert (summary.done, summary.failed) == (6, 0)  # all at once they are 600 MB
    shapes = np.load(tmp_path / "out" / "shape-00000.npy")
    assert shapes.tolist() == [[4320, 7680]] * 6
    points = np.load(tmp_path / "out" / "keypoints-00000.npy")
    assert points[0].any() and (points == points[0]).all()


# ---- without networks


@pytest.fixture
def in_reach(monkeypatch):
    """Workers are new processes: they find the job through the environment."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


def write_small(path, value=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (value, 7, 5)).save(path, "PNG")


def go(root, out, **options):
    job = FakeKeypointsJob(**{"networks": "none", "dataset_path": str(root), **options})
    return run(job, Run(out, workers=1), Quiet())


@pytest.mark.usefixtures("in_reach")
def test_a_picture_that_vanishes_fails_alone(tmp_path, monkeypatch):
    for number in range(4):
        write_small(tmp_path / "tree" / f"{number}.png", 10 + number)
    plan = FakeKeypointsJob.write_items

    def plan_and_lose(job, writer):
        plan(job, writer)
        (job.source() / "1.png").unlink()

    monkeypatch.setattr(FakeKeypointsJob, "write_items", plan_and_lose)
    summary = go(tmp_path / "tree", tmp_path / "out")
    assert (summary.done, summary.failed, summary.reasons) == (3, 1, {"MissingInputError": 1})
    rows = read(tmp_path / "out")
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done", "done"]


@pytest.mark.usefixtures("in_reach")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_picture_that_may_not_be_read_fails_alone(tmp_path):
    for number in range(2):
        write_small(tmp_path / "tree" / f"{number}.png")
    (tmp_path / "tree" / "0.png").chmod(0)
    summary = go(tmp_path / "tree", tmp_path / "out")
    assert (summary.done, summary.failed) == (1, 1)
    assert "Permission denied" in (tmp_path / "out" / "failed.jsonl").read_text(encoding="utf-8")


@pytest.mark.usefixtures("in_reach")
@pytest.mark.parametrize("items", ["pictures", "clips"])
def test_names_that_are_not_utf8(tmp_path, items):
    root, out = tmp_path / "r\udcff", tmp_path / "k\udcfe.pkl.gpupipe"
    try:
        write_small(root / "train" / "v\udcef" / "a\udce9.png")
    except OSError as error:
        pytest.skip(f"this file system takes no such names ({error})")
    write_small(root / "train" / "w" / "a.png")
    (root / "train" / "w" / "b\udce9.png").write_bytes(b"no picture")
    summary = go(root, out, items=items, pickle="k\udcfe.pkl", pose_dir=str(tmp_path / "poses"))
    assert summary.failed == 1 and summary.done == (2 if items == "pictures" else 1)
    with (out / "index.parquet").open("rb") as file:
        rows = parquet.read_table(file).to_pylist()
    assert [(row["video_id"], row["path"]) for row in rows] == [
        ("v\\udcef", "train/v\\udcef/a\\udce9.png"), ("w", "train/w/a.png"), ("w", "train/w/b\\udce9.png")
    ]  # fmt: skip
    (failure,) = [json.loads(line) for line in (out / "failed.jsonl").read_text(encoding="utf-8").splitlines()]
    assert failure["id"] == ("train/w/b\udce9.png" if items == "pictures" else "train/w")  # as JSON holds it
    data = pickle.loads((tmp_path / "k\udcfe.pkl").read_bytes())
    assert data["train"]["image_paths"] == [f"{root}/{row['path']}" for row in rows]
    assert (tmp_path / "poses" / "train" / "v\\udcef.pose").is_file()


def test_an_empty_tree_is_an_error_before_any_work(tmp_path):
    (tmp_path / "tree" / "train").mkdir(parents=True)
    with pytest.raises(UsageError, match="no pictures and no videos in there"):
        gpupipe.keypoints(tmp_path / "tree", tmp_path / "k.pkl", executor="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


# ---- videos


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A folder of videos, and the outcome of a list of them that names one of them twice."""
    require_networks()
    folder = tmp_path_factory.mktemp("videos")
    person = Image.fromarray(portrait()).resize((256, 256))
    with av.open(str(folder / "person.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for number in range(10):
            moved = np.roll(np.asarray(person), 4 * number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode(None))
    encode(folder / "turned.mp4", Clip(count=3, size=(96, 128), turn=90))
    truncate(folder / "person.mp4", folder / "cut.mp4", 0.7)
    sound_only(folder / "sound.mp4")
    (folder / "nothing.mp4").write_bytes(b"")
    names = ["person.mp4", "turned.mp4", "cut.mp4", "person.mp4", "sound.mp4", "nothing.mp4", "absent.mp4"]
    (folder / "list.txt").write_text("\ufeff# mine\n\n" + "\r\n".join(names), encoding="utf-8")
    summary = gpupipe.keypoints(folder / "list.txt", folder / "k.pkl", fps=5, pose_dir=folder / "poses")
    return SimpleNamespace(folder=folder, summary=summary, out=folder / "k.pkl.gpupipe")


def test_every_video_has_its_outcome(filmed):
    assert (filmed.summary.done, filmed.summary.failed) == (3, 4)
    failures = [json.loads(line) for line in (filmed.out / "failed.jsonl").read_text().splitlines()]
    errors = {failure["id"]: failure["error"] for failure in failures}
    assert errors.pop("cut.mp4") in ("TruncatedError", "DecodeError")  # its index, at the end, is cut off too
    assert errors == {"sound.mp4": "NoVideoError", "nothing.mp4": "DecodeError", "absent.mp4": "MissingInputError"}


def test_frames_at_a_rate_with_their_times(filmed):
    rows = parquet.read_table(filmed.out / "index.parquet").to_pylist()
    first = [row for row in rows if row["video_id"] == "person"]
    assert [row["frame"] for row in first] == [0, 2, 4, 6, 8]
    assert [row["pts"] for row in first] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    points, valid = np.load(filmed.out / "keypoints-00000.npy"), np.load(filmed.out / "valid-00000.npy")
    assert valid[:5, PARTS.index("pose")].all()
    noses = points[:5, 0, 0]
    assert (np.diff(noses) > -0.02).all()
    assert noses[-1] - noses[0] == pytest.approx(8 * 4 / 256, abs=0.04)  # 4 pixels a frame, eight frames


def test_a_video_named_twice_is_there_twice(filmed):
    rows = parquet.read_table(filmed.out / "index.parquet").to_pylist()
    ordinals = np.load(filmed.out / "ordinal-00000.npy")
    points = np.load(filmed.out / "keypoints-00000.npy")
    np.testing.assert_array_equal(points[ordinals == 0], points[ordinals == 3])
    assert list(dict.fromkeys(row["video_id"] for row in rows))[:4] == ["person", "turned", "cut", "person~2"]
    data = pickle.loads((filmed.folder / "k.pkl").read_bytes())["all"]
    assert data["image_paths"][:2] == [f"{filmed.folder}/person.mp4#{number}" for number in (0, 2)]
    assert sorted(path.name for path in (filmed.folder / "poses" / "all").iterdir()) == [
        "person.pose", "person~2.pose", "turned.pose"
    ]  # fmt: skip


def test_a_turned_video_is_upright(filmed):
    rows = parquet.read_table(filmed.out / "index.parquet").to_pylist()
    assert {(row["height"], row["width"]) for row in rows if row["video_id"] == "turned"} == {(128, 96)}


@pytest.mark.parametrize("mode", ["video", "legacy_static"])
def test_one_video_in_other_modes(filmed, tmp_path, mode):
    video = filmed.folder / "person.mp4"
    assert gpupipe.keypoints(video, tmp_path, mode=mode, fps=5).done == 1
    points = np.load(tmp_path / "keypoints-00000.npy")
    alone = np.load(filmed.out / "keypoints-00000.npy")[:5]
    assert points.shape == alone.shape and (points[1:] != alone[1:]).any()
    np.testing.assert_allclose(points[:, 0, 0], alone[:, 0, 0], atol=0.05)
