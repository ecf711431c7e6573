"""The adapter to PyNvVideoCodec, on a double of the library; where the library itself loads, the double is compared."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
from clips import PLANNED
from contract import Make, outcome
from pynv import STREAM, Library, PyNvVCException, PyNvVCExceptionUnsupported, cupy
from reference import full
from synth import Clip, flip_bits, remux

from gpupipe.decode.complaints import complaints
from gpupipe.decode.nvdec import NvdecDecoder
from gpupipe.decode.pool import DecoderPool
from gpupipe.decode.pynvcodec import PyNvEngine
from gpupipe.decode.session import Capability, StreamKind
from gpupipe.errors import DecodeError, DeviceLostError, DeviceMemoryError, UnsupportedError, UsageError

H264 = StreamKind("h264", "420", 8)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", made)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cupy", cupy())  # type: ignore[arg-type]
    return made


def opened(path: Path, pool: DecoderPool, **more: Any) -> NvdecDecoder:
    return NvdecDecoder(path, pool=pool, **more)


@pytest.mark.parametrize(
    "name",
    [
        "h264 pyramid", "h264 open gop", "h264 422", "h264 444", "h264 closed gop ts", "hevc open gop", "hevc 10 bit",
        "hevc 422", "hevc 12 bit 444", "vp8", "vp9", "vp9 temporal layers", "av1",
    ],
)  # fmt: skip
def test_pictures(make: Make, library: Library, name: str) -> None:
    path = make(PLANNED[name])
    pool = DecoderPool(PyNvEngine(0, STREAM))
    truth = full(path)
    with opened(path, pool) as decoder:
        for wanted in ([len(truth) - 1], range(0, len(truth), 3), [3, 4]):
            assert outcome(decoder, wanted) == ("read", tuple(truth[i] for i in wanted))
            assert decoder.backend == "nvdec", decoder.refusal
    assert library.made == 1


def test_sizes_that_change(make: Make, library: Library) -> None:
    """Reconfigured where the library follows, made anew where it would show scaled pictures; never a wrong one."""
    pool = DecoderPool(PyNvEngine(0, STREAM))
    sizes = [(96, 128), (96, 120), (96, 128), (160, 176), (144, 176), (250, 250), (256, 256), (64, 64), (64, 64)]
    for number, size in enumerate(sizes):
        path = make(Clip(count=12, size=size, options={"preset": "ultrafast"}, first=number))
        with opened(path, pool) as decoder:
            assert outcome(decoder, [0, 5, 11]) == ("read", tuple(full(path)[i] for i in (0, 5, 11))), size
            assert decoder.backend == "nvdec", decoder.refusal
    assert library.reconfigured == 4
    assert library.made == 5


def test_odd_sizes_are_ffmpegs(make: Make, library: Library) -> None:
    path = make(PLANNED["vp9 odd"])
    with opened(path, DecoderPool(PyNvEngine(0, STREAM))) as decoder:
        assert outcome(decoder, [5]) == ("read", (full(path)[5],))
        assert decoder.backend == "ffmpeg"
        assert "odd size, 97x131" in str(decoder.refusal)


def test_damage_is_heard(make: Make, tmp_path: Path, library: Library, capfd: pytest.CaptureFixture[str]) -> None:
    source = make(PLANNED["h264 pyramid"])
    heard = 0
    for seed in range(10):
        path = remux(
            source,
            tmp_path / f"{seed}.mp4",
            lambda number, data, seed=seed: flip_bits(data, seed, 12, 12) if number == 21 else data,
        )
        with opened(path, DecoderPool(PyNvEngine(0, STREAM))) as decoder:
            kind, _ = outcome(decoder, range(30))
            if decoder.refusal == "the card reports damage":
                heard += 1
                assert (kind, decoder.backend) == ("CorruptError", "ffmpeg")
    assert heard
    assert "Decode Error" not in capfd.readouterr().out


def test_complaints(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines about damage are counted, whole or not yet; all others go on."""
    heard, libc = complaints(), ctypes.CDLL(None)
    before = heard.count()
    libc.printf(b"Decode Error occurred for picture %d\nsomething ", 3)
    assert heard.count() == before + 1
    libc.puts(b"else")
    assert heard.count() == before + 1
    libc.printf(b"Decode Error occurred")
    assert heard.count() == before + 1
    libc.printf(b" for picture %d\n", 4)
    assert heard.count() == before + 2
    assert capfd.readouterr().out == "something else\n"
    assert complaints() is heard


def test_capability(library: Library) -> None:
    engine = PyNvEngine(0, STREAM)
    assert engine.capability(H264) == Capability(7, 16, 48, 4096, 4096, 65536)
    assert engine.capability(StreamKind("mpeg4", "420", 8)) is None
    library.caps["supported"] = 0
    assert engine.capability(H264) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PyNvVCException("cuvidCreateDecoder(...) returned error 2 at NvDecoder.cpp:400"), DeviceMemoryError),
        (PyNvVCException("CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY"), DeviceMemoryError),
        (RuntimeError("cuMemAlloc : out of memory"), DeviceMemoryError),
        (MemoryError(), DeviceMemoryError),
        (PyNvVCException("cuvidDecodePicture(...) returned error 719 at NvDecoder.cpp:500"), DeviceLostError),
        (PyNvVCException("CUDA driver API error CUDA_ERROR_ILLEGAL_ADDRESS"), DeviceLostError),
        (PyNvVCException("HandleVideoSequence : Reconfigure Not supported for bit depth change"), DecodeError),
        (PyNvVCExceptionUnsupported("Codec not supported on this GPU"), UnsupportedError),
    ],
)
def test_errors(make: Make, library: Library, error: Exception, kind: type[Exception]) -> None:
    path = make(PLANNED["h264"])
    engine = PyNvEngine(0, STREAM)
    session = engine.session(H264, 256, 256)
    session.begin(96, 128)
    library.errors = [error]
    with pytest.raises(kind, match="cuda:0: the end") as caught:
        session.drain()
    assert type(caught.value) is kind
    library.errors = [None, error]
    with opened(path, DecoderPool(engine)) as decoder:
        if kind in (DeviceMemoryError, DeviceLostError):
            with pytest.raises(kind):
                decoder.read([3], lambda *_: None)
        else:
            assert outcome(decoder, [3])[0] == "read"
            assert decoder.backend == "ffmpeg"


def test_no_memory_for_a_copy(make: Make, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied of the same call is given back."""

    class Status(RuntimeError):
        status = 2

    engine = PyNvEngine(0, STREAM)
    alloc, left = engine.cupy.cuda.alloc, [6]

    def fails(nbytes: int) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise Status("cudaErrorMemoryAllocation")
        return alloc(nbytes)

    monkeypatch.setattr(engine.cupy.cuda, "alloc", fails)
    with opened(make(PLANNED["h264"]), DecoderPool(engine)) as decoder, pytest.raises(DeviceMemoryError):
        decoder.read(range(40), lambda *_: None)


def test_pictures_of_another_kind_are_refused(make: Make, library: Library) -> None:
    """The library falls back to another format where the card lacks one, and says so only by the picture."""
    path = make(PLANNED["h264"])
    for change, words in (({"format": "P016"}, "pictures come as"), ({"apart": 64}, "one behind the other")):
        for name, value in change.items():
            setattr(library, name, value)
        with opened(path, DecoderPool(PyNvEngine(0, STREAM))) as decoder:
            assert outcome(decoder, [3]) == ("read", (full(path)[3],))
            assert words in str(decoder.refusal)
        library.format, library.apart = None, 0


def test_timestamps_below_zero(make: Make, library: Library) -> None:
    """The double refuses timestamps that are not above zero."""
    clip = Clip(pts=tuple(range(-400, 1200, 40)), options={"preset": "veryfast"}, muxer={"use_editlist": "1"})
    path = make(Clip(pts=clip.pts, options=clip.options, muxer={**clip.muxer, "avoid_negative_ts": "disabled"}))
    with opened(path, DecoderPool(PyNvEngine(0, STREAM))) as decoder:
        assert outcome(decoder, range(len(decoder))) == ("read", full(path))
        assert decoder.backend == "nvdec"


@pytest.mark.parametrize(
    ("name", "loaded", "words"),
    [
        ("PyNvVideoCodec", None, r"needs PyNvVideoCodec: .*Install gpupipe\[cu12\] or gpupipe\[cu13\]"),
        ("cupy", None, r"needs CuPy: .*Install gpupipe\[cu12\] or gpupipe\[cu13\]"),
        ("PyNvVideoCodec", Library("2.1.0"), r"needs PyNvVideoCodec 2\.2\.4 or later; 2\.1\.0 is installed"),
    ],
)
def test_what_is_missing(library: Library, monkeypatch: Any, name: str, loaded: object, words: str) -> None:
    monkeypatch.setitem(sys.modules, name, loaded)  # None: as if it were not there
    with pytest.raises(UsageError, match=words):
        PyNvEngine(0, STREAM)


def test_a_library_that_does_not_load(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is without a driver: an error of the import that is no ImportError."""
    (tmp_path / "PyNvVideoCodec.py").write_text("raise RuntimeError('Failed to load NVENC library\\nand much more')")
    monkeypatch.delitem(sys.modules, "PyNvVideoCodec")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"does not load: Failed to load NVENC library\. It needs NVIDIA's driver"):
        PyNvEngine(0, STREAM)


def test_the_double_has_the_librarys_names() -> None:
    try:
        import PyNvVideoCodec as real  # type: ignore[import-not-found]
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"PyNvVideoCodec does not load here: {error}")
    for name in ("cudaVideoCodec", "cudaVideoChromaFormat", "Pixel_Format", "DisplayDecodeLatencyType"):
        assert {each.name for each in getattr(Library, name)} <= set(getattr(real, name).__members__), name
    words = real.CreateDecoder.__doc__
    for name in ("gpuid", "codec", "cudacontext", "cudastream", "usedevicememory", "maxwidth", "maxheight", "latency"):
        assert f"{name}: " in words
    for name in ("gpuid", "codec", "chromaformat", "bitdepth"):
        assert f"{name}: " in real.GetDecoderCaps.__doc__
    for kind, names in (
        (real.PyNvDecoder, ("Decode", "setReconfigParams")),
        (real.DecodedFrame, ("GetPtrToPlane", "cuda", "format", "getPTS")),
        (real.PacketData(), ("bsl", "bsl_data", "pts")),
    ):
        assert all(hasattr(kind, name) for name in names)
    assert issubclass(real.PyNvVCException, Exception)
    assert issubclass(real.PyNvVCExceptionUnsupported, Exception)


def test_the_double_has_cupys_names() -> None:
    try:
        import cupy as real  # type: ignore[import-not-found]
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"CuPy does not load here: {error}")
    double = cupy()
    for name in vars(double.cuda):
        assert hasattr(real.cuda, name), name
    for name in vars(double.cuda.runtime):
        assert hasattr(real.cuda.runtime, name), name
