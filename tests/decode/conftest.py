"""Makes ``synth`` and the contract importable, and keeps encoded clips for the session."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from fixtures import make, media  # noqa: E402

__all__ = ["make", "media"]
