"""Which of the clips are for training, for validation and for testing."""

from __future__ import annotations

import random

import numpy as np

SPLITS = ("train", "val", "test")
SPLIT_MODES = ("random", "all_train", "all_test")


def assign_splits(count: int, mode: str, seed: int) -> np.ndarray:
    """Split of every item: index into :data:`SPLITS`.

    ``random``: a seeded shuffle; the first n - 2k of it train, the next k val, the last k test, with
    k = max(1, int(0.1 n)). Fewer than three items are all train.

    Returns
    -------
    numpy.ndarray
        uint8 [N].
    """
    splits = np.zeros(count, dtype=np.uint8)
    if mode == "all_test":
        splits[:] = SPLITS.index("test")
    elif mode == "random" and count >= 3:
        order = list(range(count))
        random.Random(seed).shuffle(order)
        held = max(1, int(0.1 * count))
        splits[order[count - 2 * held : count - held]] = SPLITS.index("val")
        splits[order[count - held :]] = SPLITS.index("test")
    return splits
