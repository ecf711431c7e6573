"""The graph for many images at once: with networks whose words are written down, and with the real ones."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch")

from test_holistic import SURE, Script, one  # noqa: E402
from test_parity import TYPICAL_PIXELS, Compared, distances  # noqa: E402

from gpupipe.errors import InputError, UsageError  # noqa: E402
from gpupipe.ops.keypoints.batched.album import HostAlbum  # noqa: E402
from gpupipe.ops.keypoints.batched.executor import TorchExecutor, identity, open_runtime  # noqa: E402
from gpupipe.ops.keypoints.batched.holistic import BatchedHolistic  # noqa: E402
from gpupipe.ops.keypoints.batched.networks import TorchNetworks  # noqa: E402
from gpupipe.ops.keypoints.batched.runtime import Runtime  # noqa: E402
from gpupipe.ops.keypoints.batched.stages import BatchedStages  # noqa: E402
from gpupipe.ops.keypoints.batched.video import LockStepHolistic  # noqa: E402
from gpupipe.ops.keypoints.clip_memory import ClipMemory  # noqa: E402
from gpupipe.ops.keypoints.executors import Executor, open_executor  # noqa: E402
from gpupipe.ops.keypoints.holistic import Holistic  # noqa: E402
from gpupipe.ops.keypoints.points import PARTS, Keypoints  # noqa: E402
from gpupipe.ops.keypoints.stages import Stages  # noqa: E402
from gpupipe.ops.keypoints.video import SequentialHolistic  # noqa: E402

BATCH = 4
VIDEO_QUANTILES = (50, 75, 90, 99)
LAST_PLACE = 3e-7
"""Of points of about 1: where detections are, is summed in double and rounded once, by the definition in float."""


def rooms(count):
    """Places for points, with something in them that must go."""
    held = [Keypoints.nobody() for _ in range(count)]
    for each in held:
        each.points[:], each.visibility[:], each.valid[:] = 7, 7, True
    return held


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("points", "visibility", "valid"))


def alike(a, b):
    np.testing.assert_array_equal(a.valid, b.valid)
    np.testing.assert_allclose(a.points, b.points, rtol=LAST_PLACE, atol=LAST_PLACE)
    np.testing.assert_allclose(a.visibility, b.visibility, rtol=LAST_PLACE)


# ---- written networks


class Scripts:
    """For each place of the batch what one image's networks say; a place without an image says what it likes."""

    def __init__(self, batch):
        self.batch = batch
        self.scripts = []

    def run(self, name, images):
        assert len(images) == self.batch  # always the same, so that the same kernels run
        scripts = [*self.scripts, *[Script()] * (self.batch - len(self.scripts))]
        return [torch.from_numpy(np.stack(outputs)) for outputs in zip(*(said(each, name) for each in scripts))]  # noqa: B905


def said(script, name):
    return [output.copy() for output in script.said[name]]


def nobody(script):
    script.said["pose_detection"][1][:] = -SURE


def unsure(script):
    script.said["pose_landmark"][1] = one(0.5)


def one_hand(script):
    script.pose[15, 3] = -3


def no_hands(script):
    script.said["hand_landmark"][1] = one(0.5)


def no_face(script):
    script.said["face_detection"][1][:] = -SURE


def blurred_face(script):
    script.said["face_landmark"][1][:] = 0


def a_dot(script):
    script.pose[:, :2] = 128


def no_extent(script):
    script.said["pose_detection"][0][:, 4:] = 0


def no_numbers(script):
    for name in ("hand_recrop", "face_detection"):
        script.said[name][0] = np.full_like(script.said[name][0], np.nan)


def no_pose_numbers(script):
    script.said["pose_landmark"][0] = np.full_like(script.said["pose_landmark"][0], np.nan)


def everything(script):
    pass


STORIES = (
    *(everything, nobody, unsure, one_hand, no_hands, no_face, blurred_face, a_dot),
    *(no_extent, no_numbers, no_pose_numbers),
)


def told(story):
    script = Script()
    story(script)
    return script


def pictures(count):
    draw = np.random.default_rng(1)
    return [draw.integers(0, 256, (*draw.integers(20, 200, 2), 3), np.uint8) for _ in range(count)]


@pytest.fixture
def scripts():
    return Scripts(BATCH)


@pytest.fixture
def written(scripts):
    runtime = Runtime(batch=BATCH)
    return BatchedHolistic(runtime, BatchedStages(scripts, HostAlbum(BATCH)))


@pytest.mark.parametrize("first", range(0, len(STORIES), BATCH))
def test_each_image_by_itself(written, scripts, first):
    stories = STORIES[first : first + BATCH]
    scripts.scripts, images, found = [told(story) for story in stories], pictures(len(stories)), rooms(len(stories))
    written.find_all(images, found)
    for image, story, ours in zip(images, stories, found, strict=True):
        with np.errstate(invalid="ignore"):
            alike(ours, Holistic(Stages(told(story))).find(image))
    assert first or [ours.valid.all() for ours in found] == [True, False, False, False]


def test_confidences(scripts):
    runtime = Runtime(batch=BATCH)
    scripts.scripts = [told(everything) for _ in range(3)]
    for script, presence in zip(scripts.scripts, (0.3, 0.30001, 1.0), strict=True):
        script.said["pose_landmark"][1] = one(presence)
    scores = scripts.scripts[2].said["pose_detection"][1]
    scores[scores > 0] = np.log(0.7 / 0.3) - 0.001
    for detection, tracking, valid in ((0.5, 0.3, [False, True, True]), (0.7, 0.3, [False, True, False])):
        found = rooms(3)
        stages = BatchedStages(scripts, HostAlbum(BATCH), detection, tracking)
        BatchedHolistic(runtime, stages).find_all(pictures(3), found)
        assert [bool(each.valid[0]) for each in found] == valid


def test_nothing_asked_nothing_done(written):
    written.find_all([], [])


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_other_arrays_are_refused_before_anything_is_written(written, image):
    found = rooms(2)
    with pytest.raises(InputError, match=r"expected uint8 \[height, width, 3\], RGB"):
        written.find_all([np.zeros((9, 9, 3), np.uint8), image], found)
    assert (found[0].points == 7).all()


def test_places_for_all_are_asked_for(written):
    with pytest.raises(UsageError, match="2 images, places for the points of 1"):
        written.find_all(pictures(2), rooms(1))


# ---- written networks, clips


def step_in(script, number):
    """A body that moves a little, is lost for a frame, and comes back; its left hand is lost at times."""
    hand, face = np.full((21, 3), 112, np.float32), np.full((468, 3), 96, np.float32)
    hand[0, 1], hand[[5, 9, 13], 1] = 168, 56  # upright, as large as its place
    face[[33, 263], 0], face[[10, 152], 1] = (40, 152), (40, 152)
    script.said["hand_landmark"][0], script.said["face_landmark"][0] = hand.reshape(-1), face.reshape(1, 1, -1)
    draw = np.random.default_rng(number)
    script.pose[:, :2] += draw.uniform(-2, 2, script.pose[:, :2].shape) + number
    if number == 4:
        unsure(script)
    if number % 3 == 2:
        one_hand(script)
    if number == 6:
        no_face(script)


@pytest.mark.parametrize("static", [False, True])
def test_clips_in_lock_step_are_those_one_by_one(scripts, static):
    """Three clips, one of which is behind the others, beside each other and by themselves."""
    lock_step = LockStepHolistic(Runtime(batch=BATCH), BatchedStages(scripts, HostAlbum(BATCH)))
    clips, images = [ClipMemory(static) for _ in range(3)], pictures(3)
    sequences = [SequentialHolistic(None, static) for _ in range(3)]
    tracked = apart = 0
    for number in range(9):
        going = [clip for clip in range(3) if number >= clip and number - clip < 7]
        scripts.scripts = [Script() for _ in going]
        for script, clip in zip(scripts.scripts, going, strict=True):
            step_in(script, number - clip)
        found = rooms(len(going))
        lock_step.step([clips[clip] for clip in going], [images[clip] for clip in going], found)
        for script, clip, ours in zip(scripts.scripts, going, found, strict=True):
            sequences[clip]._stages = Stages(script)
            alike(ours, sequences[clip].find(images[clip]))
            tracked += "pose_detection" not in script.ran
            alone = Holistic(Stages(script)).find(images[clip])
            apart += np.array([not np.array_equal(ours.part(part), alone.part(part)) for part in PARTS])
    assert (tracked > 0) is not static
    assert (apart[1:] > 0).all()  # hands and face were read where they had been
    assert bool(apart[0]) is not static


def test_a_clip_is_once_in_a_step(scripts):
    lock_step = LockStepHolistic(Runtime(batch=BATCH), BatchedStages(scripts, HostAlbum(BATCH)))
    clip = ClipMemory()
    for clips in ([clip, clip], [clip]):
        with pytest.raises(UsageError, match="expected one for each, each clip once"):
            lock_step.step(clips, pictures(2), rooms(2))


# ---- what torch is told


def test_settings_are_as_before():
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    with Runtime().work():
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (threads, tf32)
    assert not torch.is_inference_mode_enabled()


def test_identity_says_what_decides_the_numbers():
    release = torch.__version__.partition("+")[0]
    assert identity("cpu", "fp32") == f"torch {release} cpu fp32"


@pytest.mark.parametrize(
    ("device", "precision", "batch", "words"),
    [
        ("cpu", "hybrid", 8, "'hybrid' on the CPU.*use fp32, or a GPU"),
        ("cpu", "fp16", 8, "'fp16'; expected one of fp32, hybrid"),
        ("cpu", "fp32", 0, "batches of 0 images; expected at least 1"),
        ("tpu", "fp32", 8, "device 'tpu'; expected cpu, cuda or cuda:N"),
        ("cuda:x", "fp32", 8, "expected cpu, cuda or cuda:N"),
        ("cuda:99", "fp32", 8, r"torch .* sees \d+ GPUs. Use cpu; or install a torch"),
    ],
)
def test_what_cannot_be_is_refused(device, precision, batch, words):
    with pytest.raises(UsageError, match=words):
        open_runtime(device, precision, batch)
    with pytest.raises(UsageError, match=words):
        TorchExecutor("video", device=device, precision=precision, batch=batch)


def test_without_torch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        UsageError, match=r"need torch: .*pip install 'gpupipe\[cu13\]'; for the CPU: pip install torch"
    ):
        TorchExecutor("stateless")
    with pytest.raises(UsageError, match="need torch"):
        identity("cpu", "fp32")


# ---- the real networks


@pytest.fixture(scope="module")
def real(models):
    runtime = Runtime(batch=BATCH)
    with runtime.work():
        return runtime, BatchedStages(TorchNetworks(models, runtime), HostAlbum(BATCH))


@pytest.fixture(scope="module")
def found(real, people):
    held = rooms(len(people))
    BatchedHolistic(*real).find_all(list(people.values()), held)
    return held


def test_points_are_those_of_one_image_at_a_time(stages, people, found):
    errors = {part: [] for part in PARTS}
    for image, ours in zip(people.values(), found, strict=True):
        theirs = Holistic(stages).find(image)
        np.testing.assert_array_equal(ours.valid, theirs.valid)
        for part in PARTS:
            if theirs.part(part) is not None:
                kept = theirs.visibility > 0.5 if part == "pose" else ...
                errors[part].append(distances(ours.part(part), theirs.part(part), image)[kept])
    assert errors["pose"]
    assert errors["face"]
    for part in filter(errors.get, PARTS):
        assert np.median(np.concatenate(errors[part])) <= TYPICAL_PIXELS, part


@pytest.fixture(scope="module")
def against_the_original(judged, found):
    return Compared(judged, "fresh", "noise-", dict(enumerate(found)), dict(enumerate(judged.images)))


def test_no_part_appears_or_vanishes_more_than_by_noise(against_the_original):
    assert against_the_original.flips <= against_the_original.noise_flips


@pytest.mark.parametrize("part", PARTS)
def test_points_are_within_the_originals_noise(against_the_original, part):
    against_the_original.check(part, TYPICAL_PIXELS)


def test_order_and_batches_change_nothing(real, people, found):
    images, holistic = list(people.values()), BatchedHolistic(*real)
    draw = np.random.default_rng(0)
    for count in (1, 3, len(images)):
        order = draw.permutation(len(images))[:count]
        again = rooms(count)
        holistic.find_all([images[number] for number in order], again)
        for number, each in zip(order, again, strict=True):
            assert same(each, found[number]), (count, number)


def test_rows_with_gaps_are_taken(real, people, found):
    image = next(iter(people.values()))
    gaps = np.zeros((image.shape[0], image.shape[1] + 5, 3), np.uint8)[:, : image.shape[1]]
    gaps[:] = image
    (again,) = held = rooms(1)
    BatchedHolistic(*real).find_all([gaps], held)
    assert same(again, found[0])


# ---- the real networks, clips


def stepped(lock_step, clips, delays):
    """Points of each clip's frames; a clip begins so many steps late."""
    memories, points = [ClipMemory() for _ in clips], [[] for _ in clips]
    for step in range(max(len(clip) + delay for clip, delay in zip(clips, delays, strict=True))):
        going = [place for place, clip in enumerate(clips) if 0 <= step - delays[place] < len(clip)]
        held = rooms(len(going))
        images = [clips[place][step - delays[place]] for place in going]
        lock_step.step([memories[place] for place in going], images, held)
        for place, each in zip(going, held, strict=True):
            points[place].append(each)
    return points


@pytest.fixture(scope="module")
def video(judged, real):
    return stepped(LockStepHolistic(*real), judged.clips, [0] * len(judged.clips))


def errors_of(judged, part, found):
    """Pixels between points that `found` gives for the name of a clip's frame, and MediaPipe's; and how often one of
    the two has none."""
    errors, flips = [], 0
    for clip, frames in enumerate(judged.clips):
        for number, image in enumerate(frames):
            name = f"{clip}-{number}"
            ours, theirs = found(name), judged.found("video", name, part)
            flips += (ours is None) != (theirs is None)
            if ours is not None and theirs is not None:
                kept = judged.found("video", name, "visibility") > 0.5 if part == "pose" else ...
                errors.append(distances(ours, theirs, image)[kept])
    return np.concatenate(errors or [np.zeros(0)]), flips


@pytest.mark.parametrize("part", PARTS)
def test_video_is_within_the_originals_noise(judged, video, part):
    """Of the runs with one bit turned, the worst is the measure: once a frame's face or hand is followed in one run and
    found anew in another, all frames after it differ, and not each of the few runs meets such a frame."""

    def ours(name):
        clip, _, number = name.partition("-")
        return video[int(clip)][int(number)].part(part)

    errors, flips = errors_of(judged, part, ours)
    runs = sorted({name.partition("/")[0] for name in judged.answer if name.startswith("video-noise-")})
    noise = [errors_of(judged, part, lambda name, run=run: judged.found(run, name, part)) for run in runs]
    assert flips <= max(lost for _, lost in noise)
    if not len(errors):
        pytest.skip(f"no {part} in these clips")
    worst = np.max([np.percentile(each, VIDEO_QUANTILES) for each, _ in noise], axis=0)
    found = np.percentile(errors, VIDEO_QUANTILES)
    assert (found <= worst).all(), f"ours {found.round(4)}, noise {worst.round(4)} at {VIDEO_QUANTILES}"


def test_which_clips_are_together_changes_nothing(judged, real, video):
    clips = [clip[:6] for clip in judged.clips]
    lock_step = LockStepHolistic(*real)
    for order, delays in (([0], [0]), ([*range(len(clips))][::-1], [2, 0][: len(clips)])):
        again = stepped(lock_step, [clips[place] for place in order], delays)
        for place, frames in zip(order, again, strict=True):
            assert all(same(a, b) for a, b in zip(frames, video[place], strict=False)), (order, place)


def test_the_executor_of_the_job(models, people, found):
    images = list(people.values())[:2]
    stateless: Executor = TorchExecutor("stateless", batch=BATCH)
    assert (stateless.name, stateless.batch, stateless.begin()) == ("torch", BATCH, None)
    held = rooms(2)
    stateless.find(images, [None, None], held)
    assert all(same(a, b) for a, b in zip(held, found, strict=False))
    stateless.close()
    for mode in ("video", "legacy_static"):
        executor, held = TorchExecutor(mode, batch=BATCH), rooms(2)
        executor.find(images, [executor.begin(), executor.begin()], held)
        assert [each.valid.tolist() for each in held] == [each.valid.tolist() for each in found[:2]]
        executor.close()
    assert isinstance(open_executor("torch", "stateless", 0.5, 0.5, "cpu", "fp32"), TorchExecutor)
