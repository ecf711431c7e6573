"""The batched graph on a card; and what is asked of CUDA graphs, of a stand-in where there is none."""

from contextlib import contextmanager

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch")

from test_parity import TYPICAL_PIXELS, distances  # noqa: E402
from test_torch_crops import differing  # noqa: E402
from test_torch_holistic import rooms, same, stepped  # noqa: E402

from gpupipe.errors import DeviceLostError, DeviceMemoryError, UsageError  # noqa: E402
from gpupipe.ops.keypoints.batched import runtime as runtimes  # noqa: E402
from gpupipe.ops.keypoints.batched.card_album import CupyKernels  # noqa: E402
from gpupipe.ops.keypoints.batched.executor import TorchExecutor, identity  # noqa: E402
from gpupipe.ops.keypoints.batched.runtime import Runtime  # noqa: E402
from gpupipe.ops.keypoints.holistic import Holistic  # noqa: E402
from gpupipe.ops.keypoints.points import PARTS  # noqa: E402

BATCH = 8

HYBRID_PIXELS = 0.2
"""Median, of the image: float16 keeps 3 digits of a place in a network's input."""


# ---- CUDA graphs, by a stand-in


class Graph:
    """Runs again what was captured, into the tensors that were given then, as a CUDA graph does."""

    def __init__(self):
        self.work = None

    def replay(self):
        self.work()


@pytest.fixture
def graphs(monkeypatch):
    """Words of what was asked."""
    asked = []

    @contextmanager
    def capture(graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"  # other threads of a worker use the device
        asked.append(stream)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return asked


def test_a_graph_is_captured_once_and_fed_anew(graphs):
    calls = []

    def function(values, more):
        calls.append(values.data_ptr())
        return values * 2, values + more

    captured = runtimes._Captured(function, "stream")
    captured._capture((torch.zeros(3), torch.zeros(3)))

    def again():
        for held, value in zip(captured._outputs, function(*captured._inputs), strict=True):
            held.copy_(value)

    captured._graph.work = again
    for number in (1.0, 2.0):
        doubled, sums = captured(torch.full((3,), number), torch.full((3,), 10.0))
        assert doubled.tolist() == [2 * number] * 3
        assert sums.tolist() == [10 + number] * 3
    assert graphs == ["stream"]
    assert len(set(calls)) == 1  # inputs stay where they are


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (torch.OutOfMemoryError("of 80 GiB"), DeviceMemoryError, "cpu: of 80 GiB"),
        (torch.AcceleratorError("illegal address"), DeviceLostError, "cpu: illegal address; its items go to other"),
    ],
)
def test_errors_of_the_device_are_the_package_s(raised, expected, words):
    threads = torch.get_num_threads()
    with pytest.raises(expected, match=words), Runtime().work():
        raise raised
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("allowed", [(True, True), (False, False), (True, False)])
def test_tf32_is_off_and_then_as_before(allowed):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32, matmul.allow_tf32 = allowed
        with runtimes._exact():
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
            assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        assert (cudnn.allow_tf32, matmul.allow_tf32) == allowed
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


# ---- a card


@pytest.fixture(scope="module")
def card():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        return Runtime("cuda", batch=BATCH)
    except UsageError as error:
        pytest.skip(str(error))


def found_by(executor, images):
    held = rooms(len(images))
    executor.find(images, [executor.begin() for _ in images], held)
    return held


@pytest.mark.needs_cuda
def test_crops_on_a_card_are_the_native_code_s(card):
    assert differing(CupyKernels(card.device), seed=1, trials=200, device="cuda") == 0


@pytest.mark.needs_cuda
@pytest.mark.parametrize(("precision", "pixels"), [("fp32", TYPICAL_PIXELS), ("hybrid", HYBRID_PIXELS)])
def test_points_on_a_card(card, stages, people, precision, pixels):
    images = list(people.values())
    errors, flips = {part: [] for part in PARTS}, 0
    for image, ours in zip(
        images, found_by(TorchExecutor("stateless", 0.5, 0.5, "cuda", precision), images), strict=True
    ):
        theirs = Holistic(stages).find(image)
        flips += int((ours.valid != theirs.valid).sum())
        for part in PARTS:
            if ours.part(part) is not None and theirs.part(part) is not None:
                kept = theirs.visibility > 0.5 if part == "pose" else ...
                errors[part].append(distances(ours.part(part), theirs.part(part), image)[kept])
    assert flips <= (precision == "hybrid")
    for part in filter(errors.get, PARTS):
        assert np.median(np.concatenate(errors[part])) <= pixels, part


@pytest.mark.needs_cuda
@pytest.mark.parametrize("precision", runtimes.PRECISIONS)
def test_order_and_batches_change_nothing_on_a_card(card, people, precision):
    images = list(people.values()) * 2
    executor = TorchExecutor("stateless", device="cuda", precision=precision, batch=BATCH)
    found, draw = found_by(executor, images), np.random.default_rng(0)
    for count in (1, 3, BATCH, len(images)):
        order = draw.permutation(len(images))[:count]
        again = found_by(executor, [images[number] for number in order])
        assert all(same(found[number], each) for number, each in zip(order, again, strict=True)), count


@pytest.mark.needs_cuda
def test_which_clips_are_together_changes_nothing_on_a_card(card, people):
    images = list(people.values())
    clips = [[np.roll(image, 4 * number, axis=1) for number in range(6)] for image in images[:3]]
    lock_step = TorchExecutor("video", device="cuda", batch=BATCH)._sequential
    together = stepped(lock_step, clips, [0, 2, 1])
    for clip, frames in zip(clips, together, strict=True):
        (alone,) = stepped(lock_step, [clip], [0])
        assert all(same(a, b) for a, b in zip(alone, frames, strict=True))


@pytest.mark.needs_cuda
def test_float32_is_float32_on_a_card(card):
    """With TF32 allowed by the user, and allowed again behind the executor."""
    draw = np.random.default_rng(0)
    images, weights = (torch.from_numpy(draw.random(shape, np.float32)) for shape in ((4, 64, 9, 9), (64, 64, 3, 3)))
    exact = torch.nn.functional.conv2d(images.double(), weights.double())
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        with card.work():
            found = torch.nn.functional.conv2d(images.to(card.device), weights.to(card.device)).cpu()
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()  # TF32 has 10 bits: 1e-3


@pytest.mark.needs_cuda
def test_identity_names_the_card(card):
    assert f"cuda ({torch.cuda.get_device_name(0)}) hybrid" in identity("cuda", "hybrid")
