"""Reads damaged files in a process of its own: one request a line on stdin, what came of it a line on stdout.

A request is a JSON object: ``path``, ``mode`` (of :data:`MODES`) and ``frames``, how many to take. An answer says
``error`` (a class name, or null), ``own`` (whether that is one of the package's), ``text``, and ``frames`` taken.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import numpy as np

from gpupipe import decode
from gpupipe.decode.base import Decoder
from gpupipe.decode.index import FrameIndex
from gpupipe.errors import GpupipeError
from gpupipe.transform import Resizer
from gpupipe.types import Surface

MODES = ("plain", "strict", "partial", "near")
SIZE = (40, 64)


def read(path: str, mode: str, frames: int) -> int:
    """Take frames evenly over a file, as the clips job does; return how many."""
    out = np.empty((*SIZE, 3), np.uint8)
    resizer = Resizer(SIZE)
    with decode.open(path) as decoder:

        def choose(index: FrameIndex) -> np.ndarray:
            chosen = np.unique(np.linspace(0, len(index) - 1, frames, dtype=np.int64))
            return np.asarray(near(decoder, chosen) if mode == "near" else chosen, np.int64)

        def put(position: int, surface: Surface) -> None:
            resizer.resize(surface, out)

        decoder.prepare()
        taken = decoder.read(choose, put, strict=mode == "strict", partial=mode == "partial")
        assert len(str(decoder.info)) > 0
        return len(taken)


def near(decoder: Decoder, chosen: np.ndarray) -> Any:
    return decoder.near(chosen, 0.5, 0, int(chosen[-1]) + 1)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"error": None, "own": True, "text": "", "frames": read(**request)}
    except GpupipeError as error:
        return {"error": type(error).__name__, "own": True, "text": str(error), "frames": 0}
    except Exception as error:  # whoever asks judges it
        return {"error": type(error).__name__, "own": False, "text": traceback.format_exc(), "frames": 0}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
