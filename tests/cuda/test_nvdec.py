"""The NVDEC backend, on an engine without a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract import DecoderTests
from fakes import FakeEngine

from gpupipe.decode.base import Decoder
from gpupipe.decode.nvdec import NvdecDecoder
from gpupipe.decode.pool import DecoderPool


class TestNvdec(DecoderTests):
    """The contract, as ``auto``: what the card cannot, and every verdict, is FFmpeg's."""

    @staticmethod
    def open(path: Path, **more: Any) -> Decoder:
        return NvdecDecoder(path, pool=DecoderPool(FakeEngine()), **more)
