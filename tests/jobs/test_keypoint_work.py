"""The operators of the keypoints job over an executor without networks: order, batches, clips, and whose fault."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_keypoints import BAD, NOBODY, FakeExecutor
from PIL import Image

from gpupipe.decode.images import open_images
from gpupipe.job import Work
from gpupipe.jobs.keypoint_frames import ClipFrame, pictures
from gpupipe.jobs.keypoint_work import CLIP_ROWS, PICTURE_ROWS, ClipOperator, PictureOperator
from gpupipe.memory import HostSlots


def picture(path: Path, first: int, seed: int, size=(20, 30)) -> Path:
    pixels = np.random.default_rng(seed).integers(3, 255, (*size, 3), dtype=np.uint8)
    pixels[0, 0, 0] = first
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        picture(tmp_path / f"{number:02d}.png", {3: NOBODY, 5: BAD}.get(number, 9), number, (20 + number, 30))
    (tmp_path / "07.png").write_bytes((tmp_path / "07.png").read_bytes()[:200])
    return tmp_path


def worked_pictures(folder, batch, threads=1, order=range(12)):
    operator = PictureOperator(lambda item: folder / item, FakeExecutor("stateless", batch), open_images(), threads)
    slots = HostSlots(PICTURE_ROWS, operator.depth)
    made, failed = {}, {}

    def stream():
        for ordinal in order:
            yield Work(ordinal, f"{ordinal:02d}.png", slots.acquire(ordinal))

    for completion in operator.run(stream()):
        work = completion.work
        assert work.ordinal not in made and work.ordinal not in failed
        if completion.error is None:
            made[work.ordinal] = {name: row.tobytes() for name, row in completion.sample.rows.items()}
        else:
            failed[work.ordinal] = f"{type(completion.error).__name__} in {work.stages.failed_in}"
        slots.release(work.slot)
    operator.close()
    return made, failed


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (4, 1), (4, 3), (64, 2)])
def test_pictures_are_the_same_in_any_batch_and_order(folder, batch, threads):
    order = list(range(12))
    random.Random(batch).shuffle(order)
    alone = worked_pictures(folder, 1)
    assert worked_pictures(folder, batch, threads, order) == alone
    made, failed = alone
    assert failed == {5: "InputError in keypoints", 7: "TruncatedError in read"}
    assert sorted(made) == [n for n in range(12) if n not in failed]


def test_what_a_picture_gives(folder):
    made, _ = worked_pictures(folder, 2)
    pixels = np.asarray(Image.open(folder / "04.png"))
    points = np.frombuffer(made[4]["keypoints"], "<f4").reshape(543, 3)
    assert points[0, 0] == np.float32(int(pixels.sum()) / 1e6) and not points[54:].any()
    assert np.frombuffer(made[4]["valid"], bool).tolist() == [True, True, False, False]
    assert np.frombuffer(made[4]["shape"], "<i4").tolist() == [24, 30]
    assert not np.frombuffer(made[3]["keypoints"], "<f4").any()
    assert not np.frombuffer(made[3]["valid"], bool).any()
    assert np.frombuffer(made[3]["shape"], "<i4").tolist() == [23, 30]


def worked_clips(clips, batch, tmp_path, mode="video"):
    """`clips`: by name, what makes the frames."""
    executor = FakeExecutor(mode, batch)
    operator = ClipOperator(lambda item: clips[item](), lambda work: work.item, executor, open_images(), tmp_path)
    slots = HostSlots((), operator.depth)
    made, failed = {}, {}
    stream = (Work(n, name, slots.acquire(n)) for n, name in enumerate(clips))
    for completion in operator.run(stream):
        name = completion.work.item
        assert name not in made and name not in failed
        if completion.error is None:
            assert completion.sample.name == name
            made[name] = {key: b"".join(pieces) for key, pieces in completion.sample.files().items()}
        else:
            failed[name] = str(completion.error)
        slots.release(completion.work.slot)
    operator.close()
    return made, failed, executor.sizes


def frames_of(count, seed, bad_at=None):
    def frames():
        for place in range(count):
            rgb = np.random.default_rng(seed + place).integers(3, 255, (8, 6, 3), dtype=np.uint8)
            rgb[0, 0, 0] = BAD if place == bad_at else 9
            yield ClipFrame(place, 2 * place, place / 25, rgb)

    return frames


CLIPS = {f"clip{n}": frames_of(count, 100 * n) for n, count in enumerate([5, 1, 9, 0, 3, 7, 2])}


def in_company(clips):
    """The same clips; the first has its first frame once two others are open, so that one of them is ready by then."""
    opened = threading.Semaphore(0)

    def frames(number, make):
        def first():
            for _ in range(3):
                assert opened.acquire(timeout=60), "no other clip was opened"
            opened.release(3)
            yield from make()

        def opening():
            opened.release()
            return first() if number == 0 else make()

        return opening

    return {name: frames(number, make) for number, (name, make) in enumerate(clips.items())}


@pytest.mark.parametrize("batch", [2, 3, 8])
@pytest.mark.parametrize("mode", ["video", "stateless"])
def test_clips_are_the_same_in_any_company(tmp_path, batch, mode):
    alone, failed, _ = worked_clips(CLIPS, 1, tmp_path, mode)
    together, failed_too, sizes = worked_clips(in_company(CLIPS), batch, tmp_path, mode)
    assert together == alone and failed == failed_too == {}
    assert max(sizes) > 1 and sum(sizes) == 27
    turned, _, _ = worked_clips(in_company(dict(reversed(CLIPS.items()))), batch, tmp_path, mode)
    assert turned == alone


def test_what_a_clip_gives(tmp_path):
    made, _, _ = worked_clips(CLIPS, 1, tmp_path)
    sizes = {spec.name: spec.nbytes for spec in CLIP_ROWS}
    assert {name: len(data) for name, data in made["clip2"].items()} == {n: 9 * size for n, size in sizes.items()}
    assert np.frombuffer(made["clip2"]["frame"], "<i4").tolist() == list(range(0, 18, 2))
    assert np.frombuffer(made["clip2"]["pts"], "<f8").tolist() == [n / 25 for n in range(9)]
    totals = [int(frame.rgb.sum()) for frame in CLIPS["clip2"]()]
    points = np.frombuffer(made["clip2"]["keypoints"], "<f4").reshape(9, 543, 3)
    np.testing.assert_array_equal(points[:, 0, 0], (np.cumsum(totals) / 1e6).astype(np.float32))
    assert {len(data) for data in made["clip3"].values()} == {0}


def test_a_bad_clip_costs_no_other(tmp_path):
    clips = {"bad": frames_of(6, 900, bad_at=4), "long": frames_of(9, 950), **CLIPS}
    alone, failed, _ = worked_clips(clips, 1, tmp_path)
    assert failed == {"bad": "a picture that no network takes"}
    together, failed_too, sizes = worked_clips(in_company(clips), 4, tmp_path)
    assert (together, failed_too) == (alone, failed) and max(sizes) > 1


def test_a_folder_with_a_bad_picture_fails_and_names_it(tmp_path, folder):
    names = [path.name for path in sorted(folder.glob("*.png"))]
    clips = {
        "good": lambda: pictures(folder, names[:3], open_images()),
        "bad": lambda: pictures(folder, names, open_images()),
    }
    made, failed, _ = worked_clips(clips, 1, tmp_path, "stateless")
    assert list(made) == ["good"] and "a picture that no network takes" in failed["bad"]
    picture(folder / "05.png", 9, 5)
    _, failed, _ = worked_clips(clips, 1, tmp_path, "stateless")
    assert "07.png" in failed["bad"]


def test_a_clip_begins_anew_where_all_before_was_void(tmp_path):
    def frames():
        yield from list(frames_of(4, 0)())[:2]
        yield from frames_of(5, 40)()

    again, _, _ = worked_clips({"again": frames}, 1, tmp_path)
    plain, _, _ = worked_clips({"again": frames_of(5, 40)}, 1, tmp_path)
    assert again == plain
