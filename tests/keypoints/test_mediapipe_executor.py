"""MediaPipe in a process of its own: the process and what is said to it, with a stand-in; then MediaPipe itself.

Every image of the stand-in says by its first pixel what becomes of it, see fake_mediapipe.py.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_mediapipe import (
    CHATTER,
    CHATTERS,
    FAILS,
    HALF_ANSWERS,
    HANGS_UP,
    KILLED,
    NOBODY,
    PERSON,
    SLEEPS,
    checksum,
)

from gpupipe.errors import InputError, MissingInputError, UsageError
from gpupipe.machine import usage
from gpupipe.ops.keypoints import mediapipe_executor, mediapipe_server
from gpupipe.ops.keypoints.holistic import Holistic
from gpupipe.ops.keypoints.mediapipe_executor import MediaPipe, identity
from gpupipe.ops.keypoints.models import VERSION
from gpupipe.ops.keypoints.original import environment_folder, original_python
from gpupipe.ops.keypoints.points import COUNTS, PARTS, Keypoints

FAKE = Path(__file__).with_name("fake_mediapipe.py")
MODES = ("stateless", "video", "legacy_static")
TYPICAL_PIXELS = 0.1
GROWN_BYTES = 8 << 20
"""More than the pieces an allocator keeps, less than a thousand images of the least size."""

LITTLE_BYTES = 250 << 20
"""Enough to import MediaPipe and too little to open its networks."""

TOO_WIDE = 40_000
"""OpenCV inside MediaPipe counts sides in 16 bits and aborts."""


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(mediapipe_executor, "original_python", lambda: Path(sys.executable))
    monkeypatch.setattr(mediapipe_executor, "SERVER", FAKE)


@pytest.fixture(scope="module")
def real():
    try:
        original_python()
    except MissingInputError as error:
        pytest.skip(str(error))


def image_of(what, height=4, width=6, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image[0, 0, 0] = what
    return image


def children():
    """Processes of this one that have not ended."""
    listed = {
        int(pid)
        for path in Path("/proc/self/task").glob("*/children")
        for pid in path.read_text(encoding="ascii").split()
    }
    return {pid for pid in listed if "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")}


def kill_process(executor):
    pid = executor._process.pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # and leave its end to be found out


def open_files():
    return sorted(Path("/proc/self/fd").iterdir())


def assert_person(found, image, count):
    assert found.valid.tolist() == [True, False, True, False]
    assert found.points[0].tolist() == [*image.shape[:2], checksum(image)]
    assert found.points[1, 0] == count
    np.testing.assert_array_equal(found.points[2:33, 2], np.arange(33)[2:] * 4 + 2)
    np.testing.assert_array_equal(found.visibility, np.arange(33) * 4 + 3)
    np.testing.assert_array_equal(found.part("right_hand").ravel(), -np.arange(63))
    assert not found.points[33:54].any()
    assert not found.points[75:].any()


# ---- what is said


def test_both_sides_know_the_same_parts():
    assert dict(mediapipe_server.PARTS) == COUNTS
    assert tuple(dict(mediapipe_server.PARTS)) == PARTS


def test_server_is_python_of_mediapipes_environment_and_needs_nothing_of_ours():
    tree = ast.parse(mediapipe_executor.SERVER.read_text(encoding="utf-8"), feature_version=(3, 9))
    imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imports |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in imports} - sys.stdlib_module_names == {"numpy", "mediapipe"}


def landmarks(points):
    """Protobuf's NormalizedLandmarkList."""
    records = (b"".join(struct.pack("<Bf", 8 * field + 13, value) for field, value in enumerate(row)) for row in points)
    return b"".join(bytes([0x0A, len(record)]) + record for record in records)


@pytest.mark.parametrize(("count", "fields"), [(33, 4), (21, 3), (21, 5), (468, 3)])
def test_serialised_landmarks_are_their_numbers(count, fields):
    points = np.random.default_rng(0).normal(size=(count, fields)).astype(np.float32)
    points[0] = 0
    found = mediapipe_server.numbers(landmarks(points), count)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, points)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        landmarks(np.ones((20, 3))),
        landmarks(np.ones((21, 2))),
        landmarks(np.ones((21, 6))),
        landmarks(np.ones((20, 3))) + landmarks(np.ones((1, 4))),
        landmarks(np.ones((21, 3)))[::-1],
        landmarks(np.ones((21, 3))).replace(b"\x15", b"\x25"),
        b"\x12" + landmarks(np.ones((21, 3)))[1:],
    ],
    ids=["empty", "too few", "two fields", "six fields", "uneven", "backwards", "other field", "other message"],
)
def test_anything_else_is_refused(message):
    with pytest.raises(ValueError):
        mediapipe_server.numbers(message, 21)


# ---- the process


def test_points_come_back(fake):
    with MediaPipe("stateless", 0.25, 0.75) as executor:
        image = image_of(PERSON)
        found = executor.find(image)
        assert_person(found, image, 1)
        np.testing.assert_array_equal(found.points[1, 1:], np.float32([0.25, 0.75]))
        executor.find_into(image_of(NOBODY), found)
        assert not (found.valid.any() or found.points.any() or found.visibility.any())


def test_images_of_all_sizes(fake):
    with MediaPipe("video") as executor:
        shapes = [(1, 1), (4, 6), (1200, 1601), (3, 5), (1, 2000), (2500, 1), (2160, 3840), (1, 1)]
        for count, shape in enumerate(shapes, 1):
            image = image_of(PERSON, *shape, seed=count)
            assert_person(executor.find(image), image, count)


def test_rows_need_not_be_close_nor_arrays_whole(fake):
    whole = image_of(PERSON, 40, 50)
    image = whole[:-3:2, :-7:3]
    image.flags.writeable = False
    room = np.full((2, 543, 6), np.nan, np.float32)
    found = Keypoints(room[1, :, ::2], np.ones(66, np.float32)[::2], np.ones(8, np.bool_)[::2])
    with MediaPipe("stateless") as executor:
        executor.find_into(image, found)
    assert_person(found, image, 1)
    assert np.isnan(room[0]).all()
    assert np.isnan(room[1, :, 1::2]).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
    ids=["grayscale", "one channel", "RGBA", "empty", "float"],
)
def test_what_is_no_image_is_the_items_fault(fake, image):
    with MediaPipe("video") as executor:
        before = executor._process.pid
        with pytest.raises(InputError, match=r"expected uint8 \[height, width, 3\]"):
            executor.find(image)
        assert executor._process.pid == before
        assert_person(executor.find(image_of(PERSON)), image_of(PERSON), 1)


def test_a_clip_begins_at_reset(fake):
    with MediaPipe("video") as executor:
        counts = []
        for number in range(6):
            if number == 4:
                executor.reset()
            counts.append(int(executor.find(image_of(PERSON)).points[1, 0]))
    assert counts == [1, 2, 3, 4, 1, 2]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (KILLED, r"MediaPipe was ended by signal 9, Killed, as when memory runs out at this image of 4 x 6\. "),
        (HALF_ANSWERS, r"MediaPipe was ended by signal 9, Killed"),
        (FAILS, r"MediaPipe ended with exit status 1 \(.*RuntimeError: cannot see\) at this image of 4 x 6\. "),
        (HANGS_UP, r"MediaPipe hung up at this image of 4 x 6\. Leave the image out"),
    ],
    ids=["killed", "half an answer", "fails", "hangs up"],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_death_costs_one_image(fake, monkeypatch, mode, what, words):
    monkeypatch.setattr(mediapipe_executor, "_END_SECONDS", 0.2 if what == HANGS_UP else 60.0)
    with MediaPipe(mode) as executor:
        others = children() - {executor._process.pid}
        found = executor.find(image_of(PERSON))
        with pytest.raises(InputError, match=words):
            executor.find_into(image_of(what), found)
        assert not (found.valid.any() or found.points.any() or found.visibility.any())
        assert children() <= others
        assert_person(executor.find(image_of(PERSON, 9, 9)), image_of(PERSON, 9, 9), 1)


def test_its_last_words_are_told_and_notes_are_not(fake):
    with MediaPipe("stateless") as executor, pytest.raises(InputError, match=r"\(the last words \| Runtime"):
        executor.find(image_of(FAILS))


def test_a_death_between_images_is_no_images_fault(fake):
    with MediaPipe("stateless") as executor:
        executor.find(image_of(PERSON))
        kill_process(executor)
        assert_person(executor.find(image_of(PERSON)), image_of(PERSON), 1)


@pytest.mark.parametrize("mode", ["video", "legacy_static"])
def test_a_death_within_a_clip_is_told_once(fake, mode):
    with MediaPipe(mode) as executor:
        kill_process(executor)  # before it remembers anything
        assert_person(executor.find(image_of(PERSON)), image_of(PERSON), 1)
        kill_process(executor)
        with pytest.raises(InputError, match=r"what it remembered of this clip is lost; do the clip again"):
            executor.find(image_of(PERSON))
        executor.reset()
        assert_person(executor.find(image_of(PERSON)), image_of(PERSON), 1)
        kill_process(executor)
        executor.reset()
        assert_person(executor.find(image_of(PERSON)), image_of(PERSON), 1)


def test_an_interrupted_image_is_not_mistaken_for_the_next(fake, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        others = children()
        with MediaPipe("video") as executor:
            with pytest.raises(KeyboardInterrupt):
                executor.find(image_of(SLEEPS))
            assert children() <= others
            assert_person(executor.find(image_of(PERSON)), image_of(PERSON), 1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_close_leaves_nothing(fake):
    others, files = children(), open_files()
    for _ in range(3):
        with MediaPipe("stateless") as executor:
            executor.find(image_of(PERSON))
            assert children() - others == {executor._process.pid}
        executor.close()  # twice does no harm
    assert children() <= others
    assert open_files() == files


def test_it_dies_with_its_parent():
    code = f"""
import sys
from pathlib import Path
import numpy as np
from gpupipe.ops.keypoints import mediapipe_executor
mediapipe_executor.original_python = lambda: Path(sys.executable)
mediapipe_executor.SERVER = Path({str(FAKE)!r})
import signal
signal.signal(signal.SIGUSR1, lambda *_: print(executor._process.pid, flush=True))
executor = mediapipe_executor.MediaPipe("stateless")
executor.find(np.full((2, 2, 3), {SLEEPS}, np.uint8))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with parent:
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([child], [], [], 60.0)[0], "it is still there"
    os.close(child)


def test_memory_does_not_grow(fake):
    image, found = image_of(CHATTERS, 100, 30), Keypoints.nobody()
    with MediaPipe("video") as executor:
        for _ in range(50):
            executor.find_into(image, found)
        before = usage().resident_bytes
        for _ in range(1000):
            executor.find_into(image, found)
            assert os.fstat(executor._words.fd).st_size <= CHATTER
        assert usage().resident_bytes - before < GROWN_BYTES


# ---- what does not start


def test_what_cannot_be_imported_is_told_with_the_command(fake, monkeypatch):
    monkeypatch.setenv("FAKE_VERSION", "none")
    others, files = children(), open_files()
    with pytest.raises(UsageError, match="No module named 'mediapipe_that_is_not_there'") as caught:
        MediaPipe("stateless")
    said = str(caught.value)
    assert "it ended with exit status 1" in said
    assert f"remove {environment_folder()} and run: gpupipe models fetch mediapipe --environment" in said
    assert children() <= others
    assert open_files() == files


def test_another_version_is_refused(fake, monkeypatch):
    monkeypatch.setenv("FAKE_VERSION", "0.10.9")
    others = children()
    with pytest.raises(UsageError, match=f"it is 0.10.9, expected {VERSION}"):
        MediaPipe("stateless")
    assert children() <= others


def test_another_mode_is_refused(fake):
    with pytest.raises(UsageError, match="mode 'static': expected one of stateless, video, legacy_static"):
        MediaPipe("static")


def test_an_interpreter_that_is_gone_is_told(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(mediapipe_executor, "original_python", lambda: tmp_path / "python")
    with pytest.raises(UsageError, match=r"MediaPipe does not start: .*No such file"):
        MediaPipe("stateless")


def test_a_new_start_that_fails_is_no_images_fault(fake, monkeypatch):
    with MediaPipe("stateless") as executor:
        kill_process(executor)
        monkeypatch.setenv("FAKE_VERSION", "none")
        with pytest.raises(UsageError):
            executor.find(image_of(PERSON))
        monkeypatch.delenv("FAKE_VERSION")
        assert_person(executor.find(image_of(PERSON)), image_of(PERSON), 1)


def test_an_environment_that_was_not_made_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for ask in (identity, lambda: MediaPipe("stateless")):
        with pytest.raises(MissingInputError, match="Run: gpupipe models fetch mediapipe --environment"):
            ask()


# ---- MediaPipe itself


def assert_judged(found, judged, run, name):
    """To the bit."""
    for part in PARTS:
        theirs, ours = judged.found(run, name, part), found.part(part)
        assert (ours is None) == (theirs is None), (name, part)
        if theirs is not None:
            np.testing.assert_array_equal(ours, theirs, f"{name} {part}")
    theirs = judged.found(run, name, "visibility")
    np.testing.assert_array_equal(found.visibility, np.zeros(33) if theirs is None else theirs)


def test_identity(real):
    assert identity() == "MediaPipe 0.10.21"


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_stateless_is_a_new_graph_for_each_image(real, judged, backwards):
    images = list(enumerate(judged.images))
    with MediaPipe("stateless") as executor:
        for number, image in images[::-1] if backwards else images:
            assert_judged(executor.find(image), judged, "fresh", number)


def test_legacy_static_is_one_graph_for_all(real, judged):
    with MediaPipe("legacy_static") as executor:
        for _ in range(2):  # reset forgets
            executor.reset()
            for number, image in enumerate(judged.images):
                assert_judged(executor.find(image), judged, "leak", number)


def test_video_is_a_new_graph_for_each_clip(real, judged):
    with MediaPipe("video") as executor:
        for clip, frames in enumerate(judged.clips):
            executor.reset()
            for number, frame in enumerate(frames):
                assert_judged(executor.find(frame), judged, "video", f"{clip}-{number}")


def test_ours_finds_the_same(real, people, stages):
    ours, errors = Holistic(stages), {part: [] for part in PARTS}
    with MediaPipe("stateless") as executor:
        for name, image in people.items():
            a, b = ours.find(image), executor.find(image)
            assert a.valid.tolist() == b.valid.tolist(), name
            for part in PARTS:
                if b.part(part) is not None:
                    sides = image.shape[1::-1]
                    off = (a.part(part)[:, :2].astype(np.float64) - b.part(part)[:, :2]) * sides
                    errors[part].append(np.linalg.norm(off, axis=1))
    assert errors["pose"]
    assert errors["face"]
    for part in PARTS:
        assert np.median(np.concatenate(errors[part] or [[0]])) <= TYPICAL_PIXELS, part


def test_confidences_are_mediapipes(real, people):
    image = next(iter(people.values()))
    with MediaPipe("stateless") as executor:
        assert executor.find(image).part("pose") is not None
    for confidences in ((1.0, 0.5), (0.5, 1.0)):
        with MediaPipe("stateless", *confidences) as executor:
            assert not executor.find(image).valid.any()


def test_an_image_that_kills_it_fails_alone(real, people):
    image = next(iter(people.values()))
    with MediaPipe("stateless") as executor:
        before = executor.find(image)
        with pytest.raises(InputError, match=rf"signal 6, Aborted .*SHRT_MAX.* at this image of 1 x {TOO_WIDE}"):
            executor.find(np.zeros((1, TOO_WIDE, 3), np.uint8))
        assert not executor.find(np.zeros((9, 9, 3), np.uint8)).valid.any()
        kill_process(executor)
        after = executor.find(image)
    np.testing.assert_array_equal(before.points, after.points)


def test_too_little_memory_is_no_images_fault(real):
    code = f"""
import resource
from gpupipe.ops.keypoints.mediapipe_executor import MediaPipe
resource.setrlimit(resource.RLIMIT_DATA, ({LITTLE_BYTES}, {LITTLE_BYTES}))
MediaPipe("stateless")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UsageError" in done.stderr
    assert "It needs 400 MiB" in done.stderr


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (7, 3), (3, 2000), (2160, 3840)])
def test_odd_images_have_nobody_in_them(real, shape):
    with MediaPipe("stateless") as executor:
        assert not executor.find(np.zeros((*shape, 3), np.uint8)).valid.any()
