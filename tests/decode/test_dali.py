"""Still pictures by DALI, on the CPU, and on a GPU where there is one. DALI is optional: without it most tests skip."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from images_contract import DAMAGED, JPEG, LIKE_PILLOW, PNG, SCENE, ImageTests
from pictures import saved, scene

from gpupipe.decode import dali
from gpupipe.decode.dali import DaliImages, missing
from gpupipe.decode.image_cpu import CpuImages
from gpupipe.decode.image_file import ImageFile, ImageInfo
from gpupipe.decode.images import ImageDecoder, Images, RoutedImages, Still, open_images
from gpupipe.errors import DecodeError, DeviceMemoryError, StoppedError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other people's modules, while they are imported
    _REASON = missing()

needs_dali = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")


def _no_card() -> str | None:
    """Why there is no GPU to decode on."""
    if _REASON is not None:
        return _REASON
    from gpupipe.cuda.devices import no_device

    return no_device()


@needs_dali
class TestDali(ImageTests):
    """The contract, on the CPU; what DALI cannot hold it must refuse by name."""

    @staticmethod
    def open(**more: int) -> ImageDecoder:
        return DaliImages(**more)

    def test_what_is_refused(self) -> None:
        with self.open() as decoder:
            refused = {name for name, data in LIKE_PILLOW.items() if decoder.refuses(decoder.load(data()).info)}
        others = {"jpeg rgb", "jpeg cmyk", "jpeg cmyk without Adobe", "jpeg ycck"}
        others |= {name for name in LIKE_PILLOW if name.startswith("png palette")}
        assert refused == others | {name for name in LIKE_PILLOW if not name.startswith(("jpeg", "png"))}


@needs_dali
class TestRouted(ImageTests):
    """The contract without exceptions, as ``auto`` has it on a GPU."""

    @staticmethod
    def open(**more: int) -> ImageDecoder:
        return RoutedImages(DaliImages(**more), CpuImages(**more))

    def test_takes_everything(self) -> None:
        with self.open() as decoder:
            assert {decoder.refuses(decoder.load(data()).info) for data in LIKE_PILLOW.values()} == {None}
            assert decoder.decode(JPEG).backend == "dali"
            assert decoder.decode(PNG).backend == "cpu"


@needs_dali
class Unchecked(DaliImages):
    """DALI without the look at each file before it: what would happen then."""

    def _check(self, file: ImageFile) -> None:
        pass


@needs_dali
def test_a_failed_batch_costs_no_other() -> None:
    with Unchecked() as decoder:
        data = [JPEG, b"\xff\xd8\xff" + JPEG[3 : len(JPEG) // 2], PNG, PNG[: len(PNG) // 2] + PNG[-12:], JPEG]
        info = ImageInfo("a.jpg", "jpeg", 120, 160, "ycbcr")
        outcomes = decoder.decode_all([ImageFile(info, each) for each in data])
        assert [type(outcome) for outcome in outcomes] == [Still, DecodeError, Still, DecodeError, Still]
        assert all("--backend auto" in str(outcome) for outcome in outcomes if not isinstance(outcome, Still))
        first = outcomes[2]
        assert isinstance(first, Still)
        assert np.array_equal(first.rgb, SCENE)


@needs_dali
def test_why_each_jpeg_is_walked() -> None:
    """DALI hands out what libjpeg filled in: were this to fail, the walk could be left out."""
    with Unchecked() as decoder:
        file = CpuImages().load(DAMAGED["jpeg ended in the midst"])
        assert isinstance(decoder.decode_all([file])[0], Still)


@needs_dali
def test_a_wrong_size_is_an_error() -> None:
    with Unchecked() as decoder:
        (outcome,) = decoder.decode_all([ImageFile(ImageInfo("a.jpg", "jpeg", 100, 160, "ycbcr"), JPEG)])
        assert isinstance(outcome, DecodeError)
        assert "[120, 160, 3]" in str(outcome)


@needs_dali
@pytest.mark.parametrize("pixels", [1, 3 * 120 * 160, 1 << 30])
def test_batches_are_cut(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    """By pixels as by number, and back together in order."""
    monkeypatch.setattr(dali, "_PIXELS_AT_ONCE", pixels)
    data = [saved(scene(seed=seed), "JPEG") for seed in range(8)]
    with DaliImages(batch=5) as decoder, CpuImages() as reference:
        outcomes = decoder.decode_all([decoder.load(each) for each in data])
        for each, outcome in zip(data, outcomes, strict=True):
            assert isinstance(outcome, Still)
            assert np.array_equal(outcome.rgb, reference.decode(each).rgb)


@needs_dali
def test_many_files_in_order() -> None:
    data = [saved(scene(20 + seed % 50, 30, seed), "JPEG") for seed in range(200)]
    data[77] = DAMAGED["jpeg with flipped bits"]
    with DaliImages() as decoder, CpuImages() as reference:
        for index, outcome in Images(data, decoder, threads=2):
            if index == 77:
                assert not isinstance(outcome, Still)
            else:
                assert isinstance(outcome, Still)
                assert np.array_equal(outcome.rgb, reference.decode(data[index]).rgb)


@needs_dali
def test_no_card_is_no_fault_of_a_picture() -> None:
    if _no_card() is None:
        pytest.skip("a GPU is here")
    with DaliImages("cuda:0") as decoder, pytest.raises(StoppedError, match=r"cuda:0.*--backend cpu"):
        decoder.decode(JPEG)


@needs_dali
def test_identity_names_device_and_engines() -> None:
    names = {
        DaliImages("cpu").identity(),
        DaliImages("cuda:0").identity(),
        DaliImages("cuda:0", hardware=False).identity(),
    }
    assert len(names) == 3
    assert DaliImages("cuda:1").identity() in names


@needs_dali
def test_open() -> None:
    with open_images("dali") as decoder:
        assert isinstance(decoder, DaliImages)
    with open_images("auto", "cuda:0") as decoder:
        assert isinstance(decoder, RoutedImages)


class _Failing:
    """A pipeline that ends as one on a full card does."""

    def feed_input(self, name: str, files: Sequence[Any]) -> None:
        raise RuntimeError(
            "Critical error in pipeline:\nCUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory"
        )


def test_a_full_card_is_no_fault_of_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DaliImages, "_build", lambda self: _Failing())
    with DaliImages("cuda:0") as decoder, pytest.raises(DeviceMemoryError, match="cuda:0"):
        decoder.decode(JPEG)


@pytest.mark.skipif(_no_card() is not None, reason=_no_card() or "")
class TestDaliOnGpu(ImageTests):
    """The contract through nvJPEG; a wrong conversion, range or place of chroma would be farther off than SAME_PICTURE.

    That is no tolerance: how far nvJPEG's pictures are from libjpeg's is not yet measured on hardware.
    """

    SAME_PICTURE = 16

    @staticmethod
    def open(**more: int) -> ImageDecoder:
        return DaliImages("cuda:0", **more)

    def most(self, decoder: ImageDecoder, info: ImageInfo) -> int:
        return self.SAME_PICTURE if info.format == "jpeg" else 0
