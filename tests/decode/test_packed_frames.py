"""MPEG-4 with packed B-frames: clips packed here by hand as DivX and XviD packed them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import PLANNED
from contract import DecoderTests, Make, Media, outcome
from hypothesis import given
from hypothesis import strategies as st
from reference import full, of_surface
from synth import Clip, flip_bits, remux

from gpupipe.decode.ffmpeg import FFmpegDecoder
from gpupipe.decode.ffmpeg_packets import PacketSource, beginning
from gpupipe.decode.headers import HeaderError
from gpupipe.decode.packed_frames import PackedFrames

FRAME = b"\0\0\1\xb6"
WRITER = b"\0\0\1\xb2DivX503b1393p"
PLACEHOLDER = FRAME + b"\x50\x4f"
"""A P frame that is not coded, of a time of 5 bits."""


def clip(b_frames: int, suffix: str = "mp4", **more: object) -> Clip:
    return Clip("mpeg4", suffix, options={"qscale": "3"}, gop=12, b_frames=b_frames, count=50, **more)


def kind(payload: bytes) -> str:
    return "IPBS"[payload[payload.find(FRAME) + 4] >> 6]


def packed(payloads: list[bytes]) -> list[bytes]:
    """As many packets: each B frame moves to the packet before it, a placeholder fills the last one's."""
    out = []
    for i, payload in enumerate(payloads):
        b, more = kind(payload) == "B", i + 1 < len(payloads) and kind(payloads[i + 1]) == "B"
        out.append((b"" if b else payload) + (payloads[i + 1] if more else PLACEHOLDER if b else b""))
    return out


def pack(source: Path, target: Path, writer: bytes = WRITER, **drop: int) -> Path:
    """Pack a file's frames; `drop` may name one packet that is left out."""
    with av.open(str(source)) as container:
        payloads = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
    made = packed(payloads)
    made[0] = writer + made[0]
    return remux(source, target, lambda number, data: None if number == drop.get("drop") else made[number])


@pytest.fixture(params=["avi", "mkv", "mp4"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestExact:
    @pytest.mark.parametrize("b_frames", [1, 2, 3])
    def test_every_sampling(self, make: Make, tmp_path: Path, suffix: str, b_frames: int) -> None:
        path = pack(make(clip(b_frames)), tmp_path / f"packed.{suffix}")
        tests = DecoderTests()
        tests.open = FFmpegDecoder  # type: ignore[method-assign]
        with tests.check(path) as decoder:
            assert decoder.index.exact, decoder.index.reason
            assert decoder.stats.skipped > 0
        with tests.check(path, cache_bytes=0) as decoder:
            assert decoder.index.exact

    def test_the_index_is_the_counted_one(
        self, make: Make, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = pack(make(clip(2)), tmp_path / f"packed.{suffix}")
        with FFmpegDecoder(path) as decoder:
            found = decoder.index
        monkeypatch.setattr(PacketSource, "_packed_frames", lambda source: None)
        with FFmpegDecoder(path) as decoder:
            assert not decoder.index.exact
            assert decoder.index.pts.tolist() == found.pts.tolist()

    def test_real_file(self, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
        path = media("mpeg4_asp_packed_bframes_nonmono_pts.avi")
        truth = full(path)
        with FFmpegDecoder(path) as decoder:
            for number in range(len(truth)):
                assert [of_surface(surface) for _, surface in decoder.frames([number])] == [truth[number]]
            before = decoder.stats.decoded
            found = [of_surface(surface) for _, surface in decoder.frames(range(0, len(truth), 10))]
            assert found == list(truth[::10])
            assert decoder.stats.decoded - before < 80
            pts = decoder.index.pts.tolist()
        monkeypatch.setattr(PacketSource, "_packed_frames", lambda source: None)
        with FFmpegDecoder(path) as decoder:
            assert decoder.index.pts.tolist() == pts

    def test_random_structure(self, make: Make, tmp_path: Path) -> None:
        """B frames where the encoder puts them, packed or not as chance has it within what the format allows."""
        random = np.random.default_rng(11)
        for number in range(6):
            gop, b_frames = int(random.integers(4, 30)), int(random.integers(1, 4))
            source = make(Clip("mpeg4", options={"qscale": "5"}, gop=gop, b_frames=b_frames, count=40))
            path = pack(source, tmp_path / f"{number}.avi")
            truth = full(path)
            with FFmpegDecoder(path) as decoder:
                assert decoder.index.exact
                wanted = np.sort(random.choice(40, 9, replace=False)).tolist()
                assert [of_surface(surface) for _, surface in decoder.frames(wanted)] == [truth[i] for i in wanted]

    def test_damage(self, make: Make, tmp_path: Path) -> None:
        """Pictures are those of the sound file, or an error."""
        sound = pack(make(clip(2)), tmp_path / "packed.avi")
        truth = full(sound)
        with av.open(str(sound)) as container:
            counts = [bytes(packet).count(FRAME) for packet in container.demux(container.streams.video[0])]
        victim = counts.index(2, 14)

        def change(number: int, data: bytes) -> bytes:
            second = data.find(FRAME, data.find(FRAME) + 1)
            return flip_bits(data[:second], 3, 20, 30) + data[second:] if number == victim else data

        path = remux(sound, tmp_path / "damaged.avi", change)
        with FFmpegDecoder(path) as decoder:
            assert decoder.index.exact
            assert len(decoder) == len(truth)
            prefix = len(decoder.readable())
            assert 10 < prefix < len(truth)
            found = [outcome(decoder, [i]) for i in range(len(truth))]
        assert {kind for kind, _ in found} == {"read", "CorruptError"}
        assert found[:prefix] == [("read", (digest,)) for digest in truth[:prefix]]


class TestFallBack:
    """What is not plainly packed is decoded as it is, and counted."""

    @pytest.mark.parametrize("writer", [b"", b"\0\0\1\xb2DivX503b1393", b"\0\0\1\xb2Lavc62.28.100p"])
    def test_not_announced(self, make: Make, tmp_path: Path, writer: bytes) -> None:
        """libavcodec then never shows the second frame of a packet."""
        path = pack(make(clip(2)), tmp_path / "packed.avi", writer)
        self.check(path)

    def test_a_placeholder_is_missing(self, make: Make, tmp_path: Path) -> None:
        """libavcodec shows the B frame in its place, and loses what came there."""
        self.check(pack(make(clip(2)), tmp_path / "packed.avi", drop=3))

    @staticmethod
    def check(path: Path) -> None:
        truth = full(path)
        with FFmpegDecoder(path) as decoder:
            assert not decoder.index.exact
            assert len(decoder) == len(truth)
            found = [of_surface(surface) for _, surface in decoder.frames(range(len(truth)))]
        assert found == list(truth)


def apart(payloads: list[bytes]) -> Iterator[bytes]:
    frames = PackedFrames(b"")
    for payload in payloads:
        packet = av.Packet(payload)
        packet.time_base = Fraction(1, 25)
        yield bytes(frames.apart(packet))


class TestPackedFrames:
    def test_packing_is_undone(self, make: Make) -> None:
        with av.open(str(make(clip(3)))) as container:
            payloads = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
        payloads[0] = WRITER + payloads[0]
        assert list(apart(packed(payloads))) == payloads

    def test_two_frames_that_are_not_packed(self) -> None:
        first = WRITER + FRAME + b"\x10" + bytes(20)
        for second in (FRAME + b"\x50" + bytes(20), FRAME + b"\x90\0"):
            with pytest.raises(HeaderError, match="several"):
                list(apart([first + second]))
        b = FRAME + b"\x90" + bytes(20)
        for following in (FRAME + b"\x50" + bytes(20), b"\0\0\1\xb0" + b):
            with pytest.raises(HeaderError, match="left out"):
                list(apart([first + b, following]))

    @given(
        st.lists(st.lists(st.sampled_from([WRITER, FRAME, b"\x10", b"\x50", b"\x90", b"\0\0\1", bytes(9)])), max_size=6)
    )
    def test_hostile(self, parts: list[list[bytes]]) -> None:
        """Of a packet come bytes of packets, or HeaderError."""
        payloads = [b"".join(words) for words in parts]
        try:
            for found in apart([payload for payload in payloads if payload]):
                assert any(found in payload for payload in payloads)
        except HeaderError:
            pass

    def test_beginning(self, make: Make) -> None:
        with av.open(str(make(PLANNED["vp9"]))) as container:
            packet = next(p for p in container.demux(container.streams.video[0]) if p.size > 100)
        cut = beginning(packet, 50)
        assert bytes(cut) == bytes(packet)[:50]
        assert (cut.pts, cut.dts, cut.time_base) == (packet.pts, packet.dts, packet.time_base)
