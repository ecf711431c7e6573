"""Still pictures on the CPU; the choice of a backend; many files read ahead."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images_contract import DAMAGED, JPEG, LIKE_PILLOW, PNG, ImageTests
from pictures import mended, saved, scene

from gpupipe.decode import dali, image_file
from gpupipe.decode.image_cpu import CpuImages, check_jpeg
from gpupipe.decode.image_file import ImageFile, ImageInfo
from gpupipe.decode.images import ImageDecoder, Images, Outcome, RoutedImages, Still, open_images
from gpupipe.errors import CorruptError, DecodeError, InputError, MissingInputError, UsageError


class TestCpu(ImageTests):
    @staticmethod
    def open(**more: int) -> ImageDecoder:
        return CpuImages(**more)

    def test_takes_everything(self) -> None:
        """The reference refuses nothing that the contract names."""
        with self.open() as decoder:
            assert {decoder.refuses(decoder.load(data()).info) for data in LIKE_PILLOW.values()} == {None}

    def test_threads(self) -> None:
        """One decoder, several threads."""
        with self.open() as decoder:
            files = [decoder.load(saved(scene(60, 80, seed), "PNG")) for seed in range(20)]
            alone = [still.rgb for still in decoder.decode_all(files) if isinstance(still, Still)]
            found: list[list[Outcome]] = []
            threads = [threading.Thread(target=lambda: found.append(decoder.decode_all(files))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for outcomes in found:
                assert all(np.array_equal(a.rgb, b) for a, b in zip(outcomes, alone, strict=True))  # type: ignore[union-attr]


class TestRouted(ImageTests):
    """The contract for pictures that are routed: the first backend fails half of what it takes."""

    @staticmethod
    def open(**more: int) -> ImageDecoder:
        return RoutedImages(Choosy(**more), CpuImages(**more))


class Choosy(ImageDecoder):
    """Takes JPEG, and fails every second one, whatever it holds."""

    backend = "choosy"
    batch = 16

    def __init__(self, max_pixels: int = 1 << 26) -> None:
        super().__init__(max_pixels)
        self._cpu = CpuImages(max_pixels)

    def identity(self) -> str:
        return "choosy 1"

    def refuses(self, info: ImageInfo) -> str | None:
        return None if info.format == "jpeg" else "it is choosy"

    def decode_all(self, files: Sequence[ImageFile]) -> list[Outcome]:
        assert all(file.info.format == "jpeg" for file in files)
        outcomes = self._cpu.decode_all(files)
        return [
            DecodeError("choosy: no") if place % 2 or not isinstance(outcome, Still) else
            Still(outcome.info, outcome.pixels, "choosy")
            for place, outcome in enumerate(outcomes)
        ]  # fmt: skip


def test_who_decoded_is_told() -> None:
    with RoutedImages(Choosy(), CpuImages()) as decoder:
        outcomes = decoder.decode_all([decoder.load(data) for data in (JPEG, PNG, JPEG, JPEG)])
        assert [outcome.backend for outcome in outcomes if isinstance(outcome, Still)] == [
            "choosy", "cpu", "cpu", "choosy"
        ]  # fmt: skip
        assert decoder.identity() == f"choosy 1; else {CpuImages().identity()}"


def test_check_sees_what_decoding_sees() -> None:
    with CpuImages() as decoder:
        for name, data in {**{n: d() for n, d in LIKE_PILLOW.items()}, **DAMAGED}.items():
            if not data.startswith(b"\xff\xd8"):
                continue
            file = decoder.load(data)
            (outcome,) = decoder.decode_all([file])
            if isinstance(outcome, Still):
                check_jpeg(file)
            else:
                with pytest.raises(type(outcome)):
                    check_jpeg(file)
                assert name in DAMAGED


# -- the choice ------------------------------------------------------------------------------------------------------


def test_auto_is_the_cpu() -> None:
    with open_images() as decoder:
        assert isinstance(decoder, CpuImages)
    with open_images("cpu", "cuda:0") as decoder:
        assert isinstance(decoder, CpuImages)


def test_without_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali, "missing", lambda: "NVIDIA DALI cannot be imported (no). Install it")
    with open_images("auto", "cuda:0") as decoder:
        assert isinstance(decoder, CpuImages)
    with pytest.raises(UsageError, match="DALI cannot be imported"):
        open_images("dali")


@pytest.mark.parametrize(
    ("backend", "device"), [("nvjpeg", "cpu"), ("auto", "cuda"), ("auto", "cuda:x"), ("dali", "gpu")]
)
def test_wrong_choice(backend: str, device: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        open_images(backend, device)


# -- many files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> list[Path]:
    """Sixty pictures of many sizes, and among them what is none."""
    paths = []
    for number in range(60):
        path = tmp_path / f"{number:03d}.img"
        if number % 10 == 3:
            path.write_bytes(DAMAGED["jpeg with flipped bits"])
        elif number % 10 == 7:
            path = tmp_path / "missing" / path.name
        else:
            side = 5 + 37 * number % 200
            path.write_bytes(saved(scene(side, side + 1, number), ("JPEG", "PNG")[number % 2]))
        paths.append(path)
    return paths


class Single(CpuImages):
    batch = 1


class Batched(CpuImages):
    batch = 7


@pytest.mark.parametrize("nbytes", [1, 100_000, 1 << 28])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("make", [Single, Batched])
def test_order(folder: list[Path], make: type[CpuImages], threads: int, nbytes: int) -> None:
    with make() as decoder:
        found = list(Images(folder, decoder, threads, nbytes))
        assert [index for index, _ in found] == list(range(60))
        for path, (index, outcome) in zip(folder, found, strict=True):
            if index % 10 == 3:
                assert isinstance(outcome, CorruptError)
            elif index % 10 == 7:
                assert isinstance(outcome, MissingInputError)
            else:
                assert isinstance(outcome, Still)
                assert np.array_equal(outcome.rgb, decoder.decode(path).rgb)


def test_no_files() -> None:
    assert list(Images([], CpuImages())) == []
    with pytest.raises(UsageError):
        Images([], CpuImages(), threads=0)


def test_again() -> None:
    """An iteration begins anew, as that of a list does."""
    images = Images([JPEG, PNG], CpuImages())
    assert len(list(images)) == len(list(images)) == 2


def test_sources_are_not_read_far_ahead() -> None:
    """However long the one who iterates takes."""
    bound = 1 + 4 * 3 * CpuImages.batch
    too_far = threading.Event()

    def sources() -> Iterator[bytes]:
        for asked in range(1, 1000):
            if asked > bound:
                too_far.set()
            yield PNG

    iteration = iter(Images(sources(), CpuImages(), threads=3))
    assert next(iteration)[0] == 0
    assert not too_far.wait(0.3)
    assert [index for index, _ in iteration] == list(range(1, 999))


def test_abandoned() -> None:
    before = set(threading.enumerate())
    iteration = iter(Images([PNG] * 1000, CpuImages(), threads=4))
    assert next(iteration)[0] == 0
    assert set(threading.enumerate()) > before
    iteration.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


def test_other_errors_end_it() -> None:
    class Broken(CpuImages):
        def decode_all(self, files: Sequence[ImageFile]) -> list[Outcome]:
            raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        list(Images([JPEG] * 5, Broken()))

    def sources() -> Iterator[bytes]:
        yield JPEG
        raise KeyError("the list is broken")

    with pytest.raises(KeyError, match="the list is broken"):
        list(Images(sources(), CpuImages()))


def test_memory_is_bounded() -> None:
    """A picture waits while those before it take all the memory there is, and is decoded after that."""
    second = threading.Event()

    class Watched(CpuImages):
        batch = 1
        calls = 0

        def decode_all(self, files: Sequence[ImageFile]) -> list[Outcome]:
            Watched.calls += 1
            if Watched.calls == 1:
                assert not second.wait(0.3)
            else:
                second.set()
            return super().decode_all(files)

    outcomes = list(Images([PNG] * 6, Watched(), threads=2, nbytes=9 * 120 * 160 + 2 * len(PNG)))
    assert all(isinstance(outcome, Still) for _, outcome in outcomes)
    assert second.is_set()


def test_libwebp_is_shown_no_large_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes memory for the canvas with the header."""
    monkeypatch.setattr(image_file, "open_with_pillow", lambda *_: pytest.fail("was shown"))
    webp = LIKE_PILLOW["webp lossless with alpha"]()
    for data in (webp, LIKE_PILLOW["webp"](), LIKE_PILLOW["webp of two"]()):
        with pytest.raises(InputError, match="120 x 160 pixels by its header"):
            CpuImages(max_pixels=1000).load(data)


# -- damage at random --------------------------------------------------------------------------------------------------

_TIMES = int(os.environ.get("GPUPIPE_FUZZ", "0"))
_WORDS = (
    b"", b"\0", b"\xff", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xe1", b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff", b"\0\0\0\0", b"IDAT", b"IEND", b"PLTE", b"eXIf", b"VP8X",
)  # fmt: skip


@lru_cache(maxsize=1)
def _corpus() -> list[bytes]:
    return [data() for data in LIKE_PILLOW.values()] + list(DAMAGED.values())


@settings(
    max_examples=400 * max(1, _TIMES), derandomize=not _TIMES, suppress_health_check=list(HealthCheck), print_blob=True
)
@given(st.data())
def test_damage_at_random(data: st.DataObject) -> None:
    """A picture or an own error, soon; bad checksums of PNG chunks are mended, to get behind them."""
    file = bytearray(data.draw(st.sampled_from(_corpus())))
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the places are in what is looked at first.
        at = data.draw(st.integers(0, len(file)) | st.integers(0, min(len(file), 64)))
        word = data.draw(st.sampled_from(_WORDS) | st.binary(min_size=1, max_size=8))
        match data.draw(st.sampled_from(("replace", "insert", "delete", "cut"))):
            case "replace":
                file[at : at + len(word)] = word
            case "insert":
                file[at:at] = word
            case "delete":
                del file[at : at + data.draw(st.integers(1, 100))]
            case "cut":
                del file[at:]
    broken = bytes(file)
    if data.draw(st.booleans()):
        broken = mended(broken)
    began = time.process_time()
    with CpuImages(max_pixels=1 << 22) as decoder:
        try:
            still = decoder.decode(broken)
        except InputError as error:
            assert str(error).startswith("<bytes>: ")
        else:
            assert still.rgb.shape == (*still.info.upright, 3)
            assert still.rgb.size <= 3 << 22
    assert time.process_time() - began < 5
