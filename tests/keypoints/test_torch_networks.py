"""The networks in torch: what their files say, and the same numbers as LiteRT's, whatever the batch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch")

from gpupipe.ops.keypoints import native  # noqa: E402
from gpupipe.ops.keypoints.batched.network import TorchNetwork  # noqa: E402
from gpupipe.ops.keypoints.batched.network_file import _dense, read_network  # noqa: E402
from gpupipe.ops.keypoints.batched.networks import TorchNetworks  # noqa: E402
from gpupipe.ops.keypoints.batched.runtime import Runtime  # noqa: E402
from gpupipe.ops.keypoints.geometry import F, Roi  # noqa: E402
from gpupipe.ops.keypoints.graph import NETWORKS  # noqa: E402
from gpupipe.ops.keypoints.tflite import pruned  # noqa: E402

COMPARED = 8
"""Crops that LiteRT sees, too, one by one."""

SAME = 3e-6
"""Of an output's largest number in any of them. The two libraries add a convolution's products up in different orders;
a weight or an operator that is wrong shows in the first digits."""

SAME_POSE = 3e-5
"""Of the pose's landmarks, whose network is the deepest: LiteRT itself is 2e-5 from what float64 gives."""

NO_WORSE = 3
"""Times LiteRT's own distance from what float64 gives."""


def shown(people, name, count):
    """Crops of images with people as a network gets them, [count, size, size, 3]."""
    draw, how = np.random.default_rng(0), NETWORKS[name].crop
    images = [np.ascontiguousarray(image) for image in people.values()]
    crops = np.empty((count, how.size, how.size, 3), np.float32)
    for number, crop in enumerate(crops):
        image = images[number % len(images)]
        height, width, _ = image.shape
        x, y, side = draw.uniform(0.3, 0.7) * width, draw.uniform(0.2, 0.6) * height, draw.uniform(0.3, 1)
        region = (x, y, side * min(height, width), side * min(height, width), draw.uniform(-0.5, 0.5))
        native.crop(image, Roi(*(F(value) for value in region)), how, crop)
    return crops


def litert(networks, name, crops):
    """Its outputs, [count, ...] each."""
    said = []
    for crop in crops:
        networks.input(name)[:] = crop
        said.append(networks.run(name))
    return [np.stack(outputs) for outputs in zip(*said, strict=True)]


@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_litert_s(models, networks, people, name, batch):
    crops, runtime = shown(people, name, max(batch, COMPARED)), Runtime(batch=batch)
    network = TorchNetwork(pruned(models[name], NETWORKS[name].outputs), runtime.device)
    theirs, bound = litert(networks, name, crops[:COMPARED]), SAME_POSE if name == "pose_landmark" else SAME
    with runtime.work():
        runs = [network(torch.from_numpy(crops[first : first + batch])) for first in range(0, len(crops), batch)]
    for ours, each in zip((torch.cat(outputs).numpy() for outputs in zip(*runs, strict=True)), theirs, strict=True):
        assert ours.shape == (len(crops), *each.shape[1:])
        assert np.abs(ours[:COMPARED] - each).max() <= bound * np.abs(each).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_round_no_worse_than_litert(models, networks, people, name):
    crops, runtime = shown(people, name, COMPARED), Runtime()
    model = pruned(models[name], NETWORKS[name].outputs)
    with runtime.work():
        ours, exact = (
            [output.numpy() for output in TorchNetwork(model, runtime.device, dtype)(torch.from_numpy(crops))]
            for dtype in (torch.float32, torch.float64)
        )
    for mine, other, true in zip(ours, litert(networks, name, crops), exact, strict=True):
        assert np.abs(mine - true).max() <= NO_WORSE * np.abs(other - true).max()


def test_an_image_s_neighbours_change_nothing(models, people):
    """Bit for bit, in a batch of one size; on a card too, there see test_torch_card.py."""
    runtime = Runtime(batch=4)
    with runtime.work():
        networks = TorchNetworks(models, runtime)
    for name in NETWORKS:
        crops = shown(people, name, 6)
        with runtime.work():
            first = [output.numpy() for output in networks.run(name, torch.from_numpy(crops[:4]))]
            second = [output.numpy() for output in networks.run(name, torch.from_numpy(crops[[5, 2, 4, 0]]))]
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one[2], other[1], name)
            np.testing.assert_array_equal(one[0], other[3], name)


def test_the_files_are_read_whole(models):
    for name, network in NETWORKS.items():
        file = read_network(pruned(models[name], network.outputs))
        assert file.shapes[file.input] == (1, network.crop.size, network.crop.size, 3)
        assert len(file.outputs) == len(network.outputs)
        for number, constant in file.constants.items():
            assert constant.shape == file.shapes[number]
            assert constant.dtype in (np.float32, np.int32)


# ---- sparse weights


class Level:
    """A level of a sparse tensor, in the words of the file's tables."""

    def __init__(self, size=0, bounds=None, places=None):
        self.size, self.lists = size, {3: bounds, 5: places}

    def number(self, field, kind="i", default=0):
        return {0: int(self.lists[3] is not None), 1: self.size, 2: 1, 4: 1}[field]

    def table(self, field):
        return Numbers(self.lists[field])


class Numbers:
    def __init__(self, values):
        self.values = values

    def numbers(self, field, kind="i"):
        return self.values


class Sparsity:
    def __init__(self, order, blocks, levels):
        self.lists, self.levels = {0: order, 1: blocks}, levels

    def numbers(self, field, kind="i"):
        return self.lists[field]

    def tables(self, field):
        return self.levels


def test_rows_of_a_sparse_matrix():
    sparsity = Sparsity([0, 1], [], [Level(3), Level(0, [0, 2, 2, 3], [0, 3, 1])])
    found = _dense(sparsity, np.array([1, 2, 3], np.float32), (3, 4))
    np.testing.assert_array_equal(found, [[1, 0, 0, 2], [0, 0, 0, 0], [0, 3, 0, 0]])


def test_columns_of_a_sparse_matrix():
    sparsity = Sparsity([1, 0], [], [Level(2), Level(0, [0, 1, 3], [2, 0, 1])])
    found = _dense(sparsity, np.array([1, 2, 3], np.float32), (3, 2))
    np.testing.assert_array_equal(found, [[0, 2], [0, 3], [1, 0]])


def test_blocks_of_a_sparse_matrix():
    sparsity = Sparsity([0, 1, 2], [0], [Level(2), Level(0, [0, 1, 2], [1, 0]), Level(2)])
    found = _dense(sparsity, np.array([1, 2, 3, 4], np.float32), (4, 2))
    np.testing.assert_array_equal(found, [[0, 1], [0, 2], [3, 0], [4, 0]])
