"""The crops' kernels: compiled for cards, and run on a CPU, where their bytes are those of the native code."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch")

from compilers import ARCHITECTURES, nvcc, nvrtc  # noqa: E402
from test_torch_holistic import STORIES, Scripts, everything, pictures, rooms, told  # noqa: E402

from gpupipe.ops.keypoints.batched import card_album  # noqa: E402
from gpupipe.ops.keypoints.batched.album import HostAlbum  # noqa: E402
from gpupipe.ops.keypoints.batched.card_album import CardAlbum  # noqa: E402
from gpupipe.ops.keypoints.batched.holistic import BatchedHolistic  # noqa: E402
from gpupipe.ops.keypoints.batched.runtime import Runtime  # noqa: E402
from gpupipe.ops.keypoints.batched.stages import BatchedStages  # noqa: E402
from gpupipe.ops.keypoints.graph import NETWORKS, Crop  # noqa: E402
from gpupipe.ops.keypoints.stages import picture_of  # noqa: E402

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
COMPILER = (os.environ.get("CXX") or "g++").split()[0]
BATCH = 5


class Emulation:
    """Kernels on a CPU, whose own memory is the device's."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))

    def launch(self, name, blocks, arguments):
        for each in arguments:
            assert isinstance(each, int) or each.is_contiguous()
        given = [
            ctypes.c_int32(each) if isinstance(each, int) else ctypes.c_void_p(each.data_ptr()) for each in arguments
        ]
        self._library[f"emulate_{name}"](*blocks, *given)


def compiled(folder, *flags, planted=("", "")):
    """Build the emulation; `planted` is one text of kernel or header and what stands there instead."""
    for name in ("keypoints_crop.cu", "keypoints_warp.h"):
        text = (CSRC / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace(*planted) if planted[0] else text, encoding="utf-8")
    library = folder / "emulation.so"
    command = [
        COMPILER,
        "-D__restrict__=__restrict",
        "-std=c++17",
        "-O1",
        "-g",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    command += [*flags, "-shared", "-fPIC", f"-I{folder}", str(HERE / "emulate_crop.cpp"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Emulation(library)


@pytest.fixture(scope="module")
def emulation(tmp_path_factory):
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no compiler {COMPILER} to build the emulation with")
    return compiled(tmp_path_factory.mktemp("emulation"))


def regions_of(draw, images):
    """One in each image's pixels, anywhere, and some that are monstrous."""
    rows = np.empty((BATCH, 5), np.float32)
    for row, image in zip(rows, images, strict=True):
        height, width, _ = image.shape
        sides = draw.uniform(0.02, 3, 2) * (width, height)
        row[:] = draw.uniform(-0.5, 1.5) * width, draw.uniform(-0.5, 1.5) * height, *sides, draw.uniform(-7, 7)
    rows[0] = 8, 8, 0.5, 0.5, 0  # of 32 pixels every second lies between two steps of the grid
    monsters = ((1e30, 0, 5, 5, 0), (9, 9, 1e-30, 1, 0), (9, 9, 1e30, 1e30, 1), (np.nan, 9, 9, 9, 0))
    if draw.random() < 0.3:
        rows[draw.integers(1, BATCH)] = monsters[draw.integers(len(monsters))]
    return rows


def differing(kernels, seed, trials=40, device="cpu"):
    """How many batches of crops differ from the native code's."""
    draw, runtime = np.random.default_rng(seed), Runtime(device, batch=BATCH)
    with runtime.work():
        host, card = HostAlbum(BATCH), CardAlbum(runtime, kernels)
    hows = [Crop(size, low, zeros, True) for size in (1, 7, 32) for low in (0.0, -1.0) for zeros in (False, True)]
    wrong = 0
    for trial in range(trials):
        images = [draw.integers(0, 256, (*draw.integers(1, 60, 2), 3), np.uint8) for _ in range(BATCH)]
        count = int(draw.integers(1, BATCH + 1))
        regions, wanted = torch.from_numpy(regions_of(draw, images)), torch.from_numpy(draw.random(BATCH) < 0.8)
        how = hows[trial % len(hows)] if trial % 4 else list(NETWORKS.values())[trial % 3].crop
        crops = []
        for album in (host, card):
            with runtime.work():
                album.load([picture_of(image) for image in images[:count]])
                given = (each.to(album.frames.device) for each in (regions, wanted))
                crops.append(album.crop(*given, how).cpu().numpy())
        wrong += crops[0].tobytes() != crops[1].tobytes()
    return wrong


def test_the_bytes_are_the_native_code_s(emulation):
    assert differing(emulation, seed=0, trials=120) == 0


PLANTED = {
    "a pixel's row and column mixed": ("place / size, place % size", "place % size, place / size"),
    "the edge goes on": ("zeros != 0}", "false}"),
    "outside is black": ("zeros != 0}", "true}"),
    "one matrix for all": ("matrices + 9 * crop, place / size", "matrices, place / size"),
    "the first image for all": ("images[crop]", "images[0]"),
    "what is not wanted is not black": ("to[0] = to[1] = to[2] = 0;", "to[0] = to[1] = to[2] = 1;"),
    "ties upwards": ("(value + shift) - shift", "floor(value + 0.5)"),
    "half forgotten": ("(half | half << kLane | half << 2 * kLane)", "0 * half"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_error_is_found(emulation, tmp_path, fault):
    flags = ("-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unused-const-variable")
    assert (CSRC / "keypoints_crop.cu").read_text().count(PLANTED[fault][0]) + (
        CSRC / "keypoints_warp.h"
    ).read_text().count(PLANTED[fault][0]) == 1
    assert differing(compiled(tmp_path, *flags, planted=PLANTED[fault]), seed=0) > 0


def test_the_graph_on_the_card_s_crops(emulation):
    """From the images of a batch to points, the crops by the kernels."""
    runtime, scripts = Runtime(batch=BATCH), Scripts(BATCH)
    images, found = pictures(12), []
    for album in (HostAlbum(BATCH), CardAlbum(runtime, emulation)):
        holistic, held = BatchedHolistic(runtime, BatchedStages(Seeing(scripts), album)), rooms(12)
        for first in range(0, 12, BATCH):
            scripts.scripts = [told(story) for story in [*STORIES, everything][first : first + BATCH]]
            holistic.find_all(images[first : first + BATCH], held[first : first + BATCH])
        found.append(held)
    for host, card in zip(*found, strict=True):
        np.testing.assert_array_equal(host.points, card.points)
        np.testing.assert_array_equal(host.visibility, card.visibility)
        np.testing.assert_array_equal(host.valid, card.valid)


class Seeing:
    """Networks whose words depend on what they are shown, a little."""

    def __init__(self, scripts):
        self._scripts = scripts

    def run(self, name, images):
        first, *others = self._scripts.run(name, images)
        shown = images.flatten(1).double().mean(1).float()
        return [first + shown.reshape(-1, *[1] * (first.dim() - 1)), *others]


# ---- the compilers of cards


def test_the_source_is_whole():
    text = card_album.source()
    assert '#include "keypoints_warp.h"' not in text and "#pragma once" not in text
    for name in card_album.NAMES:
        assert f"{name}(const" in text
    assert f"kThreads = {card_album.THREADS};" in text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_nvcc(tmp_path, architecture):
    """Without a warning, and without values that spill out of registers."""
    said = nvcc(card_album.source(), tmp_path / "keypoints_crop.cu", card_album.OPTIONS, architecture)
    assert set(re.findall(r"(\d+) bytes spill (?:stores|loads)", said)) == {"0"}, said


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_nvrtc(architecture):
    made = nvrtc(card_album.source(), "keypoints_crop.cu", card_album.OPTIONS, architecture)
    for name in card_album.NAMES:
        assert name.encode() in made
