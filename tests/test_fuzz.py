"""Damaged and made-up input at every door: an own error or a result, soon, and never the end of the process.

``make test`` runs a few examples, always the same. ``make fuzz`` runs as many times more as ``GPUPIPE_FUZZ`` says, at
random.
"""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synth import Clip, encode

from gpupipe import _native
from gpupipe.decode.ffmpeg_packets import PacketSource
from gpupipe.decode.headers import HeaderError
from gpupipe.decode.index import exact_index
from gpupipe.decode.planner import plan
from gpupipe.errors import InputError, UsageError
from gpupipe.jobs.pairs import parse_pair, read_pairs
from gpupipe.sinks.pickles import dumps, loads

TIMES = int(os.environ.get("GPUPIPE_FUZZ", "0"))
SANITIZED = "ASAN_OPTIONS" in os.environ
READER = Path(__file__).parent / "sanitize" / "reader.py"
HANG_SECONDS = 60.0 if SANITIZED else 10.0
MEMORY = 4 << 30


def fuzzed(examples: int) -> settings:
    """Settings of a test: the same few examples each time, or many at random."""
    return settings(
        max_examples=examples * max(1, TIMES),
        derandomize=not TIMES,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def bounded(seconds: float, nbytes: int = 1 << 30) -> Iterator[None]:
    """Fail where the block takes longer, or more memory at a time (which a sanitizer's shadow would count)."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (used + nbytes, limits[1]))
    began = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - began < seconds * (10 if SANITIZED else 1)


# --- damage

WORDS = [
    b"\0\0\1",
    b"\0\0\3",
    b"\0\0\0\1",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\1\0\0",
    bytes(8),
]
changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "byte", "word", "cut", "copy", "end"]),
        st.floats(0, 1, exclude_max=True),  # where, as a share
        st.booleans(),  # near the start
        st.integers(0, 255),
    ),
    max_size=12,
)


def damaged(data: bytes, steps: list[tuple[str, float, bool, int]]) -> bytes:
    out = bytearray(data)
    for kind, share, early, value in steps:
        if not out:
            break
        at = int(share * (min(len(out), 400) if early else len(out)))
        if kind == "flip":
            out[at] ^= 1 << value % 8
        elif kind == "byte":
            out[at] = value
        elif kind == "word":
            word = WORDS[value % len(WORDS)]
            out[at : at + len(word)] = word
        elif kind == "cut":
            del out[at : at + value]
        elif kind == "copy":
            out[at:at] = out[at : at + value]
        elif value < 64:
            del out[at:]
    return bytes(out)


SMALL: dict[str, Any] = {"count": 12, "size": (48, 64)}
CLIPS = {
    "h264": Clip(**SMALL, options={"preset": "veryfast", "x264-params": "keyint=6:bframes=2:b-pyramid=normal"}),
    "h264 ts": Clip(**SMALL, suffix="ts", options={"preset": "veryfast", "x264-params": "keyint=6:open-gop=1"}),
    "hevc": Clip("libx265", **SMALL, options={"preset": "ultrafast", "x265-params": "keyint=6:bframes=2"}),
    "hevc mkv": Clip("libx265", "mkv", **SMALL, options={"preset": "ultrafast", "x265-params": "temporal-layers=2"}),
    "av1": Clip("libsvtav1", count=12, size=(64, 64), options={"preset": "12"}, gop=6),
    "vp8": Clip("libvpx", "webm", **SMALL, options={"deadline": "realtime", "auto-alt-ref": "1", "lag-in-frames": "5"}),
    "vp9": Clip("libvpx-vp9", "webm", **SMALL, options={"cpu-used": "8", "lag-in-frames": "8"}),
    "mpeg2": Clip("mpeg2video", "ts", **SMALL, gop=6, b_frames=2),
    "mpeg1": Clip("mpeg1video", "mkv", **SMALL, gop=6, b_frames=2),
    "mpeg4": Clip("mpeg4", "avi", **SMALL, gop=6),
    "mpeg4 b": Clip("mpeg4", "mp4", **SMALL, gop=6, b_frames=2),
    "mjpeg": Clip("mjpeg", "mov", **SMALL, layout="yuvj420p"),
    "prores": Clip("prores_ks", "mov", **SMALL, layout="yuv422p10le"),
    "gif": Clip("gif", "gif", **SMALL, layout="rgb8"),
    "ffv1": Clip("ffv1", "mkv", **SMALL),
    "png": Clip("png", "mov", **SMALL, layout="rgba"),
    "fragmented": Clip(**SMALL, options={"preset": "veryfast"}, muxer={"movflags": "frag_keyframe+empty_moov"}),
    "flv": Clip(**SMALL, suffix="flv", options={"preset": "veryfast"}),
}
HEADED = [name for name in CLIPS if name not in ("gif", "ffv1", "png", "fragmented", "flv")]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sound files to be damaged."""
    folder = tmp_path_factory.mktemp("seeds")
    return {name: encode(folder / f"{name.replace(' ', '-')}.{clip.suffix}", clip) for name, clip in CLIPS.items()}


# --- packet headers


def stream_of(path: Path) -> tuple[Any, list[tuple[bytes, int | None, int | None]]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [(bytes(p), p.pts, p.dts) for p in container.demux(stream) if p.size]
        codec = stream.codec_context
        return SimpleNamespace(name=codec.codec.canonical_name, extradata=codec.extradata or b""), packets


def indexed(codec: str, extradata: bytes, packets: list[tuple[bytes, int | None, int | None]]) -> None:
    """What the decoder makes of packets: their table, the index, a plan; HeaderError where they do not say."""
    made = []
    for data, pts, dts in packets:
        packet = av.Packet(data)
        packet.pts, packet.dts = pts, dts
        made.append(packet)
    media: Any = SimpleNamespace(
        container=SimpleNamespace(demux=lambda _: iter(made)),
        stream=None,
        facts=SimpleNamespace(codec=codec, container="made up"),
        codec=SimpleNamespace(extradata=extradata),
        delay=2,
        name=os.devnull,
    )
    source = PacketSource(media, 1 << 20)
    table = source.table
    assert len(table) == len([packet for packet in made if packet.size or packet.pts is not None])
    assert ((table.prefix >= 0) & (table.prefix <= table.size)).all()
    if source.reason is not None:
        return
    try:
        index = exact_index(table, Fraction(1, 25), None)
    except HeaderError:
        return
    assert (np.diff(index.pts) > 0).all()
    if len(index):
        schedule = plan(table, index, list(range(0, len(index), 3)), True)
        assert all(0 <= run.start < run.stop <= len(table) for run in schedule.runs)


@pytest.fixture(scope="module")
def streams(seeds: dict[str, Path]) -> dict[str, Any]:
    return {name: stream_of(seeds[name]) for name in HEADED}


@pytest.mark.parametrize("name", HEADED)
@fuzzed(60)
@given(data=st.data())
def test_damaged_packets(streams, name, data):
    codec, packets = streams[name]
    header = damaged(codec.extradata, data.draw(changes)) if data.draw(st.booleans()) else codec.extradata
    changed = list(packets)
    for number in data.draw(st.lists(st.integers(0, len(packets) - 1), max_size=4)):
        payload, pts, dts = changed[number]
        changed[number] = damaged(payload, data.draw(changes)), pts, dts
    with bounded(2):
        indexed(codec.name, header, [each for each in changed if each[0]])


@pytest.mark.parametrize("name", HEADED)
@fuzzed(30)
@given(payloads=st.lists(st.binary(min_size=1, max_size=120), max_size=6), header=st.binary(max_size=90))
def test_made_up_packets(streams, name, payloads, header):
    codec, _ = streams[name]
    for extradata in (header, codec.extradata, b""):
        with bounded(2):
            indexed(codec.name, extradata, [(payload, i, i) for i, payload in enumerate(payloads)])


STUFFING = [
    b"\0\0\1", b"\0\0\3", b"\0", b"\xff", b"\0\0\0\1", b"\0\0\1\xb3", b"\0\0\1\x67\x42", b"\0\0\1\x42\1",
    b"\0\0\1\xb2DivX", b"\x0a\0", b"\x12\0",
]  # fmt: skip


@pytest.mark.parametrize("name", HEADED)
@pytest.mark.parametrize("word", STUFFING, ids=bytes.hex)
def test_long_packets_of_one_word(streams, name, word):
    """A megabyte takes no more than it takes to look at each byte some hundred times."""
    codec, packets = streams[name]
    long = word * ((1 << 20) // len(word))
    with bounded(10):
        indexed(codec.name, codec.extradata, [packets[0], (long, 1, 1), (packets[0][0][:40] + long, 2, 2)])
        indexed(codec.name, codec.extradata[:6] + long, packets[:1])


# --- whole files


class Reader:
    """A process that reads files; a new one where the last one died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, path: Path, mode: str, frames: int) -> dict[str, Any]:
        """What came of a file; fails where the process died or hangs."""
        if self.process is None:
            limit = None if SANITIZED else lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            self.process = subprocess.Popen(
                [sys.executable, str(READER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=limit
            )
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"path": str(path), "mode": mode, "frames": frames}).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], HANG_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line:
            self.close()
            pytest.fail(f"reading {mode} {'ended the process with ' + str(process.returncode) if ready else 'hangs'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    process = Reader()
    yield process
    process.close()


@pytest.mark.parametrize("mode", ["plain", "strict", "partial", "near"])
def test_sound_files_are_read(seeds, reader, mode):
    """Else the tests of damaged ones would be empty."""
    for name, path in seeds.items():
        assert reader.ask(path, mode, 4) == {"error": None, "own": True, "text": "", "frames": 4}, name


@pytest.mark.parametrize("name", CLIPS)
@fuzzed(25)
@given(
    steps=changes.filter(bool), mode=st.sampled_from(["plain", "strict", "partial", "near"]), frames=st.integers(1, 20)
)
def test_damaged_files(seeds, reader, tmp_path_factory, name, steps, mode, frames):
    path = tmp_path_factory.getbasetemp() / f"damaged{seeds[name].suffix}"
    path.write_bytes(damaged(seeds[name].read_bytes(), steps))
    answer = reader.ask(path, mode, frames)
    assert answer["own"], answer["text"]


def test_a_codec_that_cannot_be_opened_is_an_own_error(seeds, reader, tmp_path):
    path = tmp_path / "x.mp4"
    data = seeds["hevc"].read_bytes()
    at = data.index(b"hvcC") + 4 + 23  # the first parameter set
    path.write_bytes(data[: at + 6] + b"\xff" * 40 + data[at + 46 :])
    answer = reader.ask(path, "plain", 2)
    assert answer["error"] is not None
    assert answer["own"], answer["text"]


# --- the pairs file

SURROGATES = st.text(st.characters(codec=None), max_size=6)
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(10**300, 10**320), st.floats(), SURROGATES,
        st.sampled_from(["../x", "a/b", "", "\0", "x" * 500, "\ud800"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["vid", "clip_path", "transcript", "transcript clip", "size", "begin_time", "end_time"])
            | SURROGATES,
            inner,
            max_size=6,
        ),
    ),
    max_leaves=20,
)  # fmt: skip


def pairs_of(path: Path, content: bytes, chunk: int) -> int:
    """Read and check every pair as a job does; count those that are none."""
    path.write_bytes(content)
    bad = 0
    for raw in read_pairs(path, chunk=chunk, limit=1 << 16):
        for needed in (True, False):
            try:
                pair = parse_pair(raw, clip_required=needed)
            except InputError:
                bad += 1
            else:
                assert pair.vid
                assert pair.clip_name is None or "/" not in pair.clip_name
    return bad


@fuzzed(250)
@given(
    values=st.lists(json_values, min_size=1, max_size=4),
    style=st.sampled_from(["list", "lines", "pretty"]),
    steps=changes,
    start=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b" \n"]),
    chunk=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_pairs_files(tmp_path_factory, values, style, steps, start, chunk):
    path = tmp_path_factory.getbasetemp() / "pairs.json"
    if style == "lines":
        text = "\n".join(json.dumps(value) for value in values)
    else:
        text = json.dumps(values, indent=2 if style == "pretty" else None, ensure_ascii=style == "list")
    with bounded(5):
        try:
            pairs_of(path, damaged(start + text.encode(errors="surrogatepass"), steps), chunk)
        except UsageError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000, b'{"a":' * 100_000, b"[" + b"9" * 100_000, b"[1e" + b"9" * 60_000 + b"]",
        b'["' + b"\\ud800" * 9000,
        b"[" + b"[]," * 20_000, b'{"vid":"' + b"x" * 70_000, b"[-", b"[tru", b"[1," + b" " * 200_000, b"\xef\xbb\xbf",
        b'[{"vid":"a"}' + b"\0" * 50_000, b"[NaN,Infinity,-Infinity]", b"\n" * 300_000 + b"{", b'[{"size":[1e999]}]',
        b'{"vid":"a"}\n' * 20_000 + b"{",
    ],
    ids=lambda value: value[:9].hex(),
)  # fmt: skip
@pytest.mark.parametrize("chunk", [1000, 1 << 20])
def test_pairs_files_made_to_take_long(tmp_path, content, chunk):
    with bounded(5):
        try:
            assert pairs_of(tmp_path / "pairs.json", content, chunk) > 0
        except UsageError as error:
            assert "pairs.json" in str(error)


# --- pickles

OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
NAMES = [b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n",
         b"cbuiltins\nset\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.numeric\n_frombuffer\n",
         b"cnumpy\nfloat32\n", b"cbuiltins\nbytes\n", b"cgpupipe.sinks.unpickling\n_Name\n",
         b"ccopyreg\n_reconstructor\n", b"cbuiltins\ngetattr\n", b"cbuiltins\ncomplex\n"]  # fmt: skip
PARTS = [b"K\1", b"J\xff\xff\xff\xff", b"M\xff\xff", b"\x8c\2u1", b"\x8c\3<i8", b"\x8c\2|O", b"C\2ab", b"X\1\0\0\0a",
         b"N", b"(", b")", b"]", b"}", b"\x8f", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"\x81", b"\x92", b"s",
         b"u", b"a", b"e", b"\x90", b"\x91", b"0", b"1", b"2", b"q\0", b"h\0", b"\x94", b"r\xff\xff\xff\x0f", b"\x80\5",
         b"\x89", b"\x88", b"G" + bytes(8), b"I99\n", b"L9L\n", b"P1\n", b"Q", b"\x82\1", b"i", b"o", b"\x97", b"\x98",
         b"\x93", b"\x95" + bytes(8), b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"."]  # fmt: skip
soup = st.lists(st.one_of(st.sampled_from(NAMES), st.sampled_from(PARTS), st.sampled_from(PARTS)), max_size=40)
written = st.sampled_from(
    [pickle.dumps(value, protocol) for protocol in range(6) for value in (
        [np.arange(5), np.zeros((2, 3), "f4"), {"a": (1, 2.5, "x", b"y")}],
        [np.array(["ab", "c"]), np.datetime64("2020-01-01"), {1, 2}, 1j, np.float32(2)],
    )]
    + [dumps({"tokens": np.arange(3), "list": [1, "a", None, (2.5, b"z")]})]
)  # fmt: skip


def plain(value: Any, depth: int = 0) -> bool:
    """Nothing is in it that a reader of plain values should not give."""
    if depth > 50:
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufcSUmM" and not value.dtype.hasobject
    if isinstance(value, dict):
        return all(plain(key, depth + 1) and plain(child, depth + 1) for key, child in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(plain(child, depth + 1) for child in value)
    return isinstance(value, (str, bytes, bytearray, int, float, complex, bool, type(None), np.generic, np.dtype))


def read_pickle(data: bytes) -> None:
    modules = set(sys.modules)
    with bounded(5):
        try:
            value = loads(data)
        except InputError:
            return
        finally:
            assert set(sys.modules) == modules  # nothing is imported on a pickle's word
    assert plain(value)


@fuzzed(600)
@given(soup)
def test_opcode_soup(parts):
    read_pickle(b"".join([*parts, b"."]))


@fuzzed(200)
@given(st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=9)), max_size=30))
def test_opcodes_with_any_arguments(parts):
    read_pickle(b"".join([*parts, b"."]))


@fuzzed(300)
@given(written, changes, soup)
def test_damaged_pickles(data, steps, more):
    read_pickle(damaged(data, steps))
    read_pickle(damaged(data[:-1], steps) + b"".join(more) + b".")


# --- native code

small = st.integers(-1, 40)
odd = st.one_of(small, small, st.sampled_from([-(1 << 31), 1 << 31, 1 << 40, 65535, 65536, 65537, 255]))
component = st.tuples(st.integers(-1, 4), st.integers(-1, 8), st.integers(0, 9), st.booleans())


@st.composite
def resizes(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a resize, mostly sound."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    depth, shift = draw(st.sampled_from([(8, 0), (10, 0), (10, 6), (12, 4), (16, 0)]))
    chroma = draw(st.booleans())
    arguments: dict[str, Any] = {
        "size": (height, width),
        "crop": (top, left, draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))),
        "out": (draw(st.integers(1, 40)), draw(st.integers(1, 40))),
        "subsampling": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "siting": draw(st.tuples(st.integers(-1, 1), st.integers(-1, 1))),
        "sample": (1 if depth == 8 else 2, shift, depth),
        "components": draw(
            st.sampled_from(
                [
                    [(0, 0, 1, False)],
                    [(0, 0, 1, False), (1, 0, 1, True), (2, 0, 1, True)],
                    [(0, 0, 1, False), (1, 0, 2, True), (1, 1, 2, True)],
                    [(0, 0, 3, False), (0, 1, 3, False), (0, 2, 3, False)],
                    [(0, 2, 4, chroma), (0, 1, 4, False), (0, 0, 4, chroma)],
                ]
            )
        ),
        "colour": [((16384, 0, 0), 0)] * 3,
        "rotation": draw(st.sampled_from([0, 90, 180, 270])),
        "mirrored": draw(st.booleans()),
    }
    wrong: dict[str, st.SearchStrategy[Any]] = {
        "size": st.tuples(odd, odd), "crop": st.tuples(odd, odd, odd, odd), "out": st.tuples(small, small),
        "subsampling": st.tuples(odd, odd), "siting": st.tuples(odd, odd), "sample": st.tuples(odd, odd, odd),
        "components": st.lists(component, max_size=4), "rotation": odd,
        "colour": st.lists(st.tuples(st.tuples(odd, odd, odd), odd), min_size=3, max_size=3),
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from(sorted(wrong)), max_size=2)):
        arguments[name] = draw(wrong[name])
    return arguments


@fuzzed(400)
@given(resizes(), st.lists(st.tuples(st.integers(0, 9000), st.integers(-100, 400)), min_size=0, max_size=4), st.data())
def test_resizes_of_any_arguments(arguments, views, data):
    """Refused, or every byte of the output is written and follows from the planes alone."""
    try:
        resize = _native.Resize(**arguments)
    except (ValueError, OverflowError, MemoryError):
        return
    random = np.random.default_rng(1)
    height, width = arguments["size"]
    if data.draw(st.booleans()):  # planes that surely hold enough
        words = arguments["sample"][0] * 9 * (width + 8)
        views = [(words * (height + 1), words)] * 4 if words * height < 1 << 22 else views
    planes = [random.integers(0, 256, nbytes, dtype=np.uint8) for nbytes, _ in views]
    strides = [stride for _, stride in views]
    outs = [np.full(3 * arguments["out"][0] * arguments["out"][1], fill, np.uint8) for fill in (0, 0xAA)]
    for level in _native.simd_levels():
        _native.set_simd(level)
        for out in outs:
            try:
                resize.run(planes, strides, out)
            except ValueError:
                assert (out == out[0]).all()  # nothing was written
                return
            finally:
                _native.set_simd(None)
        assert np.array_equal(*outs)
