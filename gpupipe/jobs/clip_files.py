"""The files of one clip: its frames, its tokens, its sizes and what is known of it, for a folder or for a tar."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.frames import Frames
from gpupipe.jobs.pairs import Pair, size_curve
from gpupipe.sinks.files import Buffer
from gpupipe.sinks.npy import npy_header
from gpupipe.sinks.pickles import array_pieces, dumps

SIZE_POINTS = 16


def folder_files(pair: Pair, path: Path, frames: Frames, tokens: np.ndarray) -> dict[str, Iterable[Buffer]]:
    """The files of its folder, in their order.

    Parameters
    ----------
    pair : Pair
        As planned.
    path : Path
        Its video.
    frames : Frames
        Those that were taken.
    tokens : numpy.ndarray
        int64 [77].
    """
    header, trailer = array_pieces(frames.shape, "|u1")
    return {
        "video_input.pkl": _concatenate([header], frames.pieces(), [trailer]),
        "text_input.pkl": [dumps({"tokens": tokens})],
        "size.json": [_json(size_curve(pair.size, SIZE_POINTS))],
        "meta.json": [_json(_meta(pair, path, frames))],
    }


def tar_members(pair: Pair, path: Path, frames: Frames, tokens: np.ndarray, split: str) -> dict[str, Iterable[Buffer]]:
    """Its members in a tar by their extensions, in their order; see :func:`folder_files`."""
    meta = {
        **_meta(pair, path, frames),
        "text": pair.text,
        "tokens": tokens.tolist(),
        "size": size_curve(pair.size, SIZE_POINTS),
        "split": split,
    }
    return {
        "npy": _concatenate([npy_header(frames.shape, "|u1")], frames.pieces()),
        "json": [_json(meta)],
    }


def _meta(pair: Pair, path: Path, frames: Frames) -> dict[str, Any]:
    info = frames.info
    return {
        "vid": pair.vid,
        "clip": path.name,
        "frame_indices": [int(index) for index in frames.indices],
        "pts_seconds": [float(second) for second in frames.pts_seconds],
        "valid": [bool(ok) for ok in frames.valid],
        "source": {
            "width": info.width,
            "height": info.height,
            "rotation": info.rotation,
            "fps": info.fps,
            "frames": frames.total,
            "codec": info.codec,
            "transfer": info.transfer,
        },
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _concatenate(*parts: Iterable[Buffer]) -> Iterator[Buffer]:
    for part in parts:
        yield from part
