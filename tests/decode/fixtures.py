"""Where tests get their clips from; conftest.py of every folder that decodes imports it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import synth

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Encode a clip once a session; give its path."""
    folder = tmp_path_factory.mktemp("clips")

    def encoded(clip: synth.Clip, *more: synth.Clip, **extra: bool) -> Path:
        name = hashlib.sha256(repr((clip, more, sorted(extra.items()))).encode()).hexdigest()[:16]
        path = folder / f"{name}.{clip.suffix}"
        if not path.exists():
            synth.encode(path, clip, *more, **extra)
        return path

    return encoded


@pytest.fixture
def media() -> Callable[[str], Path]:
    """Give the path of a real file, or skip."""

    def path(name: str) -> Path:
        found = MEDIA / name
        if not found.exists():
            pytest.skip(f"no {name} beside the checkout")
        return found

    return path
