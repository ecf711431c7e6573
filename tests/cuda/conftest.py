"""Makes ``synth``, the decoders' contract and the fakes importable, and keeps encoded clips for the session."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "decode")]

from fixtures import make, media  # noqa: E402

__all__ = ["make", "media"]
