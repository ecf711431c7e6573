"""``gpupipe keypoints visualize``: whose hand is where, over which picture."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from held import Held, at_random, clip  # noqa: E402
from made import Frame, write_dataset, write_old_pickle  # noqa: E402
from synth import Clip, encode, read_number  # noqa: E402

from gpupipe.cli.main import main  # noqa: E402
from gpupipe.errors import MissingInputError  # noqa: E402
from gpupipe.landmarks.drawing import GROUND, INK, LEFT, MIDDLE, RIGHT, draw_person, legend, missing, tile  # noqa: E402
from gpupipe.landmarks.overlays import write_overlays  # noqa: E402
from gpupipe.landmarks.packing import packed  # noqa: E402
from gpupipe.landmarks.pictures import NOT_FOUND, UNREADABLE, Pictures  # noqa: E402
from gpupipe.landmarks.shots import Shot, sample, shots  # noqa: E402
from gpupipe.ops.keypoints.points import PARTS, POINTS, SLICES  # noqa: E402

SHARED = Path(__file__).parents[2].parent / "shared"
NEAR = 60  # of 255, by channel: what smoothing and H.264 leave of a colour on a line some pixels wide
SIZE = (260, 210)
GRAY = 128


def nobody():
    return np.zeros((POINTS, 3), np.float32), np.zeros(4, np.bool_)


def put(points, valid, part, where):
    points[SLICES[part]] = where
    valid[PARTS.index(part)] = True


def upright_hand(x):
    """A hand seen from its side: all points on a line at x, from the wrist at 0.8 up to 0.4."""
    return np.stack([np.full(21, x), np.linspace(0.8, 0.4, 21), np.zeros(21)], axis=1)


def two_hands(left=0.75, right=0.25):
    points, valid = nobody()
    put(points, valid, "left_hand", upright_hand(left))
    put(points, valid, "right_hand", upright_hand(right))
    return points, valid


def shot(points, valid, visibility=None, shape=SIZE, readable=True, path="/data/train/one/images0001.png"):
    return Shot("train", "one", path, np.asarray(points, np.float32), valid, visibility, shape, readable)


def drawn(one, size=SIZE):
    picture = Image.new("RGB", (size[1], size[0]), (GRAY, GRAY, GRAY))
    draw_person(picture, one)
    return np.asarray(picture)


def colour_at(pixels, x, y):
    """The colour there, x and y in shares of the picture."""
    height, width = pixels.shape[:2]
    return pixels[round(y * (height - 1)), round(x * (width - 1))]


def near(pixel, colour):
    return np.abs(pixel.astype(int) - colour).max() <= NEAR


def share_of(pixels, colour):
    return (np.abs(pixels.astype(int) - colour).max(axis=-1) <= NEAR).mean()


HAND_Y = 0.59  # between two joints, neither of them a tip


@pytest.mark.parametrize("size", [SIZE, (720, 960), (97, 61)])
def test_each_hand_has_its_colour_where_it_is(size):
    pixels = drawn(shot(*two_hands()), size)
    assert near(colour_at(pixels, 0.75, HAND_Y), LEFT)
    assert near(colour_at(pixels, 0.25, HAND_Y), RIGHT)
    assert near(colour_at(pixels, 0.5, HAND_Y), (GRAY,) * 3)
    pixels = drawn(shot(*two_hands(left=0.25, right=0.75)), size)  # arms crossed
    assert near(colour_at(pixels, 0.25, HAND_Y), LEFT)
    assert near(colour_at(pixels, 0.75, HAND_Y), RIGHT)


def test_a_hand_that_was_not_found_is_not_drawn():
    points, valid = two_hands()
    valid[PARTS.index("left_hand")] = False
    pixels = drawn(shot(points, valid))
    assert share_of(pixels, LEFT) == 0
    assert share_of(pixels, RIGHT) > 0


def test_143_points_are_drawn_as_543_are():
    points, valid = two_hands()
    pixels = drawn(shot(packed(points[None])[0], valid))
    np.testing.assert_array_equal(pixels, drawn(shot(points, valid)))


def test_arms_have_the_colour_of_their_hands():
    points, valid = nobody()
    pose = np.full((33, 3), -5.0)  # beyond the picture
    pose[[11, 13, 15]] = [[0.7, 0.2, 0], [0.7, 0.5, 0], [0.7, 0.8, 0]]
    pose[[12, 14, 16]] = [[0.3, 0.2, 0], [0.3, 0.5, 0], [0.3, 0.8, 0]]
    put(points, valid, "pose", pose)
    pixels = drawn(shot(points, valid), (520, 420))
    for y in (0.35, 0.65):
        assert near(colour_at(pixels, 0.7, y), LEFT)
        assert near(colour_at(pixels, 0.3, y), RIGHT)
    assert near(colour_at(pixels, 0.5, 0.2), MIDDLE)  # from shoulder to shoulder
    hidden = drawn(shot(points, valid, np.zeros(33, np.float32)), (520, 420))
    assert share_of(hidden, LEFT) < share_of(pixels, LEFT) / 4


def test_the_persons_own_left_eye_is_left():
    points, valid = nobody()
    face = np.full((468, 3), 0.5)
    left = [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466]
    right = [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([0.12 * np.cos(turn), 0.12 * np.sin(turn), 0 * turn], axis=1)
    face[left], face[right] = ring + np.array([0.75, 0.3, 0]), ring + np.array([0.25, 0.3, 0])
    put(points, valid, "face", face)
    pixels = drawn(shot(points, valid), (520, 420))
    half = pixels.shape[1] // 2
    assert share_of(pixels[:, half:], LEFT) > 0 == share_of(pixels[:, half:], RIGHT)
    assert share_of(pixels[:, :half], RIGHT) > 0 == share_of(pixels[:, :half], LEFT)


def test_letters_of_hands_that_touch_are_both_seen():
    one = shot(*two_hands(0.5, 0.5))
    pixels = drawn(one, (520, 420))
    below = pixels[round(0.8 * 520) :]  # behind the wrists
    assert share_of(below, LEFT) == pytest.approx(share_of(below, RIGHT), rel=0.4)
    assert share_of(below, LEFT) > 0


@pytest.mark.parametrize("value", [1e6, -1e6, np.inf, np.nan])
def test_points_far_outside_or_nowhere(value):
    points, valid = two_hands()
    put(points, valid, "pose", np.full((33, 3), value))
    put(points, valid, "face", np.full((468, 3), value))
    points[SLICES["right_hand"]][:] = value
    points[SLICES["left_hand"]][3] = value
    pixels = drawn(shot(points, valid))
    assert near(colour_at(pixels, 0.75, HAND_Y), LEFT)
    assert share_of(pixels, RIGHT) == 0


def test_what_is_missing_is_said():
    points, valid = two_hands()
    assert [words for words, _ in missing(shot(points, valid))] == ["no body", "no face"]
    valid[:] = [True, False, True, True]
    assert missing(shot(points, valid)) == [("no left hand", LEFT)]
    valid[:] = True
    assert missing(shot(points, valid)) == []
    valid[:] = False
    assert missing(shot(points, valid)) == [("nobody found", INK)]
    assert missing(shot(points, valid, readable=False)) == [("the picture could not be read", INK)]


def test_the_legend_has_the_colours_and_fits():
    for width in (480, 1640):
        made = np.asarray(legend(width))
        assert made.shape[1] == width
        for colour in (LEFT, RIGHT, MIDDLE):
            assert share_of(made, colour) > 0
        assert not share_of(made[:, -2:], INK)


def test_words_too_long_are_cut_within_the_tile():
    points, valid = two_hands()
    one = Shot("train", "w" * 300, "/data/" + "m" * 300 + ".png", points, valid, None, SIZE, True)
    made = np.asarray(tile(one, NOT_FOUND, (100, 200)))
    assert made.shape[1] == 200
    assert not share_of(made[:, -5:], INK)
    assert share_of(made[100:], INK) > 0


def test_a_name_with_a_line_feed_stays_on_its_line():
    points, valid = two_hands()
    made = [
        np.asarray(
            tile(Shot("train", f"v{mark}w", f"/d/a{mark}b.png", points, valid, None, SIZE, True), NOT_FOUND, (9, 200))
        )
        for mark in (" ", "\n", "\t")
    ]
    np.testing.assert_array_equal(made[1], made[0])
    np.testing.assert_array_equal(made[2], made[0])


def test_every_frame_is_as_likely_in_a_sample():
    clips = [clip(*at_random(0, count), video=str(count)) for count in (3, 1, 6)]
    seen = np.zeros(10)
    for seed in range(400):
        chosen = sample(clips, 4, seed)
        places = [int(one.path[-8:-4]) - 1 + {"3": 0, "1": 3, "6": 4}[one.video] for one in chosen.shots]
        assert places == sorted(set(places))
        assert (chosen.frames, chosen.videos) == (10, ["3", "1", "6"])
        seen[places] += 1
    assert np.abs(seen / 400 - 0.4).max() < 0.12  # five deviations
    assert len(sample(clips, 20, 0).shots) == 10
    assert sample(clips, 0, 0).shots == []


# --- pictures


def still(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE[1], SIZE[0]), colour).save(path)
    return path


def test_pictures_are_found_where_they_are_now(tmp_path):
    still(tmp_path / "new" / "train" / "a" / "1.png", (200, 10, 10))
    still(tmp_path / "new" / "a" / "1.png", (10, 200, 10))  # fits less of the path
    still(tmp_path / "old" / "2.png", (10, 10, 200))
    paths = ["/gone/data/train/a/1.png", str(tmp_path / "old" / "2.png"), "/gone/data/train/a/3.png", ""]
    with Pictures(tmp_path / "new") as pictures:
        moved, there, gone, empty = pictures.each(paths)
    assert moved[0, 0].tolist() == [200, 10, 10]
    assert there[0, 0].tolist() == [10, 10, 200]
    assert (gone, empty) == (NOT_FOUND, NOT_FOUND)


def test_frames_of_videos_and_stills_mixed(tmp_path):
    video = encode(tmp_path / "v.mp4", Clip(count=30))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    good = still(tmp_path / "x#y.png", (1, 2, 3))
    names = ["v.mp4#3", "v.mp4#7", "bad.png", "v.mp4#7", "v.mp4#29", "v.mp4#30", "bad.mp4#0", "none.mp4#1", good.name]
    with Pictures() as pictures:
        found = list(pictures.each(str(tmp_path / name) for name in names))
    assert [each if isinstance(each, str) else read_number(each) for each in found[:-1]] == [
        *(3, 7, UNREADABLE, 7, 29, UNREADABLE, UNREADABLE, NOT_FOUND),
    ]
    assert found[-1][0, 0].tolist() == [1, 2, 3]
    assert video.exists()


# --- the command


def dataset(tmp_path, length=6):
    """Pictures of one colour, and a folder of shards: left hand at the right, right hand at the left of each."""
    made = []
    for split, videos in {"train": ("a", "b"), "dev": ("c",)}.items():
        for video in videos:
            for number in range(length):
                name = f"{split}/{video}/images{number:04d}.png"
                still(tmp_path / "data" / name, (90, 60, 120))
                points, valid = two_hands()
                seen = np.zeros(33, np.float32)
                made.append(Frame(split, video, name, number, None, points, valid, seen, SIZE))
    return made


def visualize(path, out, *flags):
    return main(["keypoints", "visualize", str(path), "--output-dir", str(out), *map(str, flags)])


def pixels_of(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_a_sheet_a_split(tmp_path, capsys):
    out = tmp_path / "sheets"
    folder = write_dataset(tmp_path / "out", dataset(tmp_path), root=str(tmp_path / "data"))
    assert visualize(folder, out, "--num_samples", 10) == 0
    assert capsys.readouterr().out.split() == [str(out / "train.png"), str(out / "dev.png")]
    sheet = pixels_of(out / "train.png")
    assert share_of(sheet, (90, 60, 120)) > 0.5  # the pictures, ten of twelve
    assert share_of(sheet, LEFT) > 0.002
    assert share_of(sheet, RIGHT) > 0.002
    few = pixels_of(out / "dev.png")  # six frames: two rows of four, where train has three
    assert few.shape[1] == sheet.shape[1]
    assert few.shape[0] < sheet.shape[0]
    assert sorted(path.name for path in out.iterdir()) == ["dev.png", "train.png"]


def test_left_and_right_on_the_sheet(tmp_path):
    folder = write_dataset(tmp_path / "out", dataset(tmp_path, 1)[:1], root=str(tmp_path / "data"))
    assert visualize(folder, tmp_path / "sheets") == 0
    sheet = pixels_of(tmp_path / "sheets" / "train.png")
    rows = np.flatnonzero((np.abs(sheet.astype(int) - (90, 60, 120)).max(axis=-1) < 8).mean(axis=1) > 0.3)
    picture = sheet[rows[0] : rows[-1] + 1]
    half = picture.shape[1] // 2
    assert share_of(picture[:, half:], LEFT) > 0.001
    assert share_of(picture[:, :half], LEFT) == 0
    assert share_of(picture[:, :half], RIGHT) > 0.001
    assert share_of(picture[:, half:], RIGHT) == 0


def test_an_old_pickle_whose_pictures_are_gone_or_elsewhere(tmp_path):
    path = write_old_pickle(tmp_path / "old.pkl", dataset(tmp_path))
    assert visualize(path, tmp_path / "dark", "--splits", "train") == 0
    dark = pixels_of(tmp_path / "dark" / "train.png")
    assert share_of(dark, LEFT) > 0.002
    assert (dark.max(axis=-1) <= max(GROUND)).mean() > 0.8
    assert not (tmp_path / "dark" / "dev.png").exists()
    assert visualize(path, tmp_path / "moved", "--splits", "train", "--dataset-path", tmp_path / "data") == 0
    assert share_of(pixels_of(tmp_path / "moved" / "train.png"), (90, 60, 120)) > 0.5


def test_a_seed_is_a_choice(tmp_path):
    made = dataset(tmp_path)
    for number, frame in enumerate(made):
        still(tmp_path / "data" / frame.path, (10 * number, 40, 40))
    folder = write_dataset(tmp_path / "out", made, root=str(tmp_path / "data"))
    sheets = {}
    for name, seed in (("one", 0), ("same", 0), ("other", 5)):
        assert visualize(folder, tmp_path / name, "--num-samples", 3, "--seed", seed) == 0
        sheets[name] = (tmp_path / name / "train.png").read_bytes()
    assert sheets["one"] == sheets["same"] != sheets["other"]


def read_video(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        rate = stream.average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    return rate, frames


@pytest.mark.parametrize("encoders", ["h264", "vp9"])
def test_a_video_shows_each_frame_under_its_points(tmp_path, monkeypatch, encoders):
    """Every third picture of a file, as a run with --fps leaves them; the hands move with the frame's number."""
    if encoders == "vp9":
        monkeypatch.setattr(av, "codecs_available", {"libvpx-vp9"})
    (tmp_path / "data").mkdir()
    encode(tmp_path / "data" / "v.mp4", Clip(count=30, size=(192, 256)))
    made = []
    for number in range(0, 30, 3):
        points, valid = nobody()
        put(points, valid, "left_hand", upright_hand(0.5 + number / 100) * [1, 0.5, 1] + [0, 0.55, 0])
        made.append(
            Frame("all", "v", "v.mp4", number, number / 30, points, valid, np.zeros(33, np.float32), (192, 256))
        )
    folder = write_dataset(tmp_path / "out", made, root=str(tmp_path / "data"))
    assert visualize(folder, tmp_path / "seen", "--num-samples", 0, "--videos", "v") == 0
    (path,) = (path for path in (tmp_path / "seen").rglob("*.*"))
    assert path == tmp_path / "seen" / "all" / ("v.mp4" if encoders == "h264" else "v.webm")
    rate, frames = read_video(path)
    assert rate == Fraction(10)
    assert len(frames) == 10
    assert frames[0].shape[1] == 960  # 256x192, enlarged
    top = frames[0].shape[0] - 720 - 60  # the legend above, the words below
    for number, frame in zip(range(0, 30, 3), frames, strict=True):
        picture = frame[top // 2 * 2 :][:720]
        assert read_number(picture) == number
        like = np.abs(picture[int(0.76 * 720) : int(0.94 * 720)].astype(int) - LEFT).max(axis=-1) <= NEAR
        assert like.sum(axis=0).argmax() / 960 == pytest.approx(0.5 + number / 100, abs=0.005)


def test_videos_asked_for_and_videos_at_random(tmp_path, capsys):
    folder = write_dataset(tmp_path / "out", dataset(tmp_path, 2), root=str(tmp_path / "data"))
    assert visualize(folder, tmp_path / "one", "--videos", "b", "--num-samples", 0) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "one" / "train" / "b.mp4")]
    rate, frames = read_video(tmp_path / "one" / "train" / "b.mp4")
    assert (rate, len(frames)) == (25, 2)  # pictures of a folder have no times
    assert share_of(frames[0], (90, 60, 120)) > 0.3
    assert visualize(folder, tmp_path / "all", "--num-videos", 5) == 0
    assert sorted(path.name for path in (tmp_path / "all").rglob("*.mp4")) == ["a.mp4", "b.mp4", "c.mp4"]
    assert visualize(folder, tmp_path / "some", "--num-videos", 1, "--num-samples", 0) == 0
    assert len(list((tmp_path / "some").rglob("*.mp4"))) == 2  # one of each split


def test_what_is_not_there_is_said_before_anything_is_written(tmp_path, capsys):
    folder = write_dataset(tmp_path / "out", dataset(tmp_path, 1))
    for flags, words in (
        (("--videos", "a", "nope"), "video 'nope'"),
        (("--splits", "test"), "split 'test'"),
        (("--num-samples", -1), "-1 samples"),
    ):
        assert visualize(folder, tmp_path / "seen", *flags) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "seen").exists()


def test_unreadable_frames_of_any_shape_make_a_sheet_and_a_video(tmp_path):
    points, valid = two_hands()
    nothing, none = nobody()
    frames = [(points, valid), (nothing, none), (points, valid)]
    there = Held(
        [
            clip(
                np.stack([points for points, _ in frames]),
                np.stack([valid for _, valid in frames]),
                shapes=[(260, 210), (0, 0), (100, 333)],
                paths=["/gone/1.png", "/gone/2.png", "/gone/3.png"],
                readable=np.array([True, False, True]),
            )
        ]
    )
    sheet, video = write_overlays(there, tmp_path, videos=["one"])
    assert share_of(pixels_of(sheet), LEFT) > 0
    assert len(read_video(video)[1]) == 3


def test_names_lead_nowhere_else(tmp_path, capsys):
    points, valid = two_hands()
    made = [Frame("train", "../out", "x.png", 0, None, points, valid, np.zeros(33, np.float32), SIZE)]
    path = write_old_pickle(tmp_path / "old.pkl", made)
    assert visualize(path, tmp_path / "seen", "--videos", "../out") == 2
    assert "cannot be the name of a file" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.mp4"))


def test_on_a_person():
    """The networks' own left and right, over the picture: her left hand is at the picture's right."""
    pytest.importorskip("ai_edge_litert", reason="pip install gpupipe[keypoints]")
    from gpupipe.ops.keypoints.holistic import Holistic
    from gpupipe.ops.keypoints.models import read_models
    from gpupipe.ops.keypoints.networks import Networks
    from gpupipe.ops.keypoints.stages import Stages

    path = SHARED / "people" / "fake_human.png"
    if not path.exists():
        pytest.skip("no pictures of people beside the checkout")
    try:
        models = read_models()
    except MissingInputError as error:
        pytest.skip(f"the networks are not there: {error}")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((482, 482)))
    found = Holistic(Stages(Networks(models))).find(pixels)
    one = next(shots(clip(found.points[None], found.valid[None], shapes=(482, 482), visibility=found.visibility[None])))
    made = Image.fromarray(pixels)
    draw_person(made, one)
    fresh = np.asarray(made)
    lines = np.where((fresh.astype(int) != pixels).any(axis=-1, keepdims=True), fresh, 0)
    half = pixels.shape[1] // 2
    assert share_of(lines[:, half:], LEFT) > 5 * share_of(lines[:, :half], LEFT)
    assert share_of(lines[:, :half], RIGHT) > 5 * share_of(lines[:, half:], RIGHT)
