"""Header scanners: what they read, and that nothing makes them fail otherwise than by HeaderError."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import PLANNED
from contract import Make
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.decode.headers import HeaderError, Picture, scanner_for
from gpupipe.decode.headers.bits import Bits, unescape
from gpupipe.decode.headers.intra import INTRA

CODECS = ("h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", *sorted(INTRA))


def packets(path: Path) -> tuple[str, bytes, list[bytes], list[bool]]:
    """Codec, extradata, payloads and the container's keyframe flags."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [p for p in container.demux(stream) if p.size]
        codec = stream.codec_context
        return (
            codec.codec.canonical_name,
            codec.extradata or b"",
            [bytes(p) for p in found],
            [p.is_keyframe for p in found],
        )


def scan(path: Path) -> tuple[list[Picture], list[bool]]:
    codec, extradata, payloads, keys = packets(path)
    scanner = scanner_for(codec, extradata)
    for payload in payloads:
        scanner.scan(payload)
    return scanner.pictures(), keys


class TestBits:
    def test_exp_golomb(self) -> None:
        """The first codes of H.264 table 9-2, and of 9-3."""
        bits = Bits(bytes([0b10100110, 0b01000010, 0b10011000]))
        assert [bits.ue() for _ in range(5)] == [0, 1, 2, 3, 4]
        bits = Bits(bytes([0b10100110, 0b01000010, 0b10011000]))
        assert [bits.se() for _ in range(5)] == [0, 1, -1, 2, -2]

    def test_end(self) -> None:
        bits = Bits(b"\x80")
        assert bits.flag()
        with pytest.raises(HeaderError):
            bits.u(8)
        with pytest.raises(HeaderError):
            Bits(b"\0\0").ue()

    def test_leb128(self) -> None:
        assert Bits(b"\xe5\x8e\x26").leb128() == 624485

    @given(st.binary(max_size=64))
    def test_unescape(self, data: bytes) -> None:
        escaped = bytearray()
        for byte in data:
            if escaped[-2:] == b"\0\0" and byte <= 3:
                escaped.append(3)
            escaped.append(byte)
        assert unescape(bytes(escaped)) == data


class TestPictures:
    @pytest.mark.parametrize(
        "name", ["h264 closed gop ts", "hevc closed gop", "vp8", "vp9", "av1", "mpeg2 no b", "mpeg1", "h264 intra"]
    )
    def test_entries_are_keyframes(self, make: Make, name: str) -> None:
        """Where the container does not lie it agrees."""
        pictures, keys = scan(make(PLANNED[name]))
        assert [p.entry for p in pictures] == keys
        assert sum(keys) > 1 or name == "h264"

    def test_open_gop(self, make: Make) -> None:
        for name in ("h264 open gop", "hevc open gop"):
            pictures, _ = scan(make(PLANNED[name]))
            assert sum(p.entry for p in pictures) >= 4
            assert any(p.leading for p in pictures)
            for i, picture in enumerate(pictures):
                if picture.leading:
                    entry = max(k for k in range(i) if pictures[k].entry)
                    assert picture.order < pictures[entry].order

    def test_output_order(self, make: Make) -> None:
        for name in ("h264 pyramid", "hevc", "mpeg2", "mpeg4 b", "h264 mbaff"):
            path = make(PLANNED[name])
            pictures, _ = scan(path)
            with av.open(str(path)) as container:
                pts = [p.pts for p in container.demux(container.streams.video[0]) if p.size]
            assert np.argsort([p.order for p in pictures]).tolist() == np.argsort(pts).tolist()

    def test_droppable(self, make: Make) -> None:
        pictures, _ = scan(make(PLANNED["hevc three layers"]))
        flat, _ = scan(make(PLANNED["h264 no b"]))
        assert 0 < sum(p.droppable for p in pictures) < len(pictures)
        assert not any(p.droppable for p in flat)

    @pytest.mark.parametrize("name", ["vp9 temporal layers", "av1 low delay", "av1", "vp9 layers not resilient", "vp9"])
    def test_replaces_nothing(self, make: Make, name: str) -> None:
        """Half of the frames, and those shown again; of VP9, only where the next ones forget it (error resilient)."""
        pictures, _ = scan(make(PLANNED[name]))
        share = sum(p.droppable or p.prefix > 0 for p in pictures) / len(pictures)
        assert 0.3 < share < 0.9 if name in ("vp9 temporal layers", "av1 low delay", "av1") else share == 0
        assert all(p.shown and not p.entry for p in pictures if p.droppable or p.prefix)

    def test_needs(self, make: Make) -> None:
        """Packets name what they refer to: less than all before them, never what comes later."""
        for name in ("hevc", "hevc three layers", "hevc 12 bit 444", "av1", "av1 low delay"):
            pictures, _ = scan(make(PLANNED[name]))
            for i, picture in enumerate(pictures):
                assert picture.needs is not None, name
                assert all(0 <= other < i for other in picture.needs)
                assert picture.entry or picture.needs
            assert max(len(p.needs or ()) for p in pictures) <= 8

    def test_key_frame_shown_later(self) -> None:
        """It replaces all references, where another frame shown again replaces none."""
        sequence, hidden_key, again = b"\x0a\x0b" + bytes(11), b"\x32\x04\x00\x01\0\0", b"\x1a\x01\x80"
        scanner = scanner_for("av1", b"")
        inter = b"\x32\x06\x30" + bytes(5)
        for data in (sequence + b"\x32\x01\x10", hidden_key, again, inter):
            scanner.scan(data)
        assert scanner.pictures()[3].needs == (2,)

    def test_hidden(self) -> None:
        """Frames that only update references: by hand, since encoders write few."""
        vp8, vp9, av1 = (scanner_for(codec, b"") for codec in ("vp8", "vp9", "av1"))
        for data in (b"\x10\0\0\x9d\x01\x2a", b"\x11\0\0", b"\x01\0\0"):
            vp8.scan(data)
        assert [(p.shown, p.entry) for p in vp8.pictures()] == [(True, True), (True, False), (False, False)]
        hidden, shown, again = b"\x84", b"\x86", b"\x88"
        for data in (b"\x82" + bytes(9), hidden + bytes(9), again, hidden + shown + b"\xc1\x01\x01\xc1"):
            vp9.scan(data)
        assert [p.shown for p in vp9.pictures()] == [True, False, True, True]
        with pytest.raises(HeaderError, match="several"):
            vp9.scan(shown + shown + b"\xc1\x01\x01\xc1")
        sequence = b"\x0a\x0b" + bytes(11)
        for data in (
            sequence + b"\x32\x01\x10",
            b"\x32\x06\x20" + bytes(5),
            b"\x32\x06\x30" + bytes(5),
            b"\x1a\x01\x80",
        ):
            av1.scan(data)
        found = [(p.shown, p.entry) for p in av1.pictures()]
        assert found == [(True, True), (False, False), (True, False), (True, False)]

    @pytest.mark.parametrize("name", ["h264 closed gop ts", "hevc closed gop", "vp9"])
    def test_lost(self, make: Make, name: str) -> None:
        codec, extradata, payloads, _ = packets(make(PLANNED[name]))
        scanner = scanner_for(codec, extradata)
        for i, payload in enumerate(payloads):
            if i == 13:
                scanner.lose()
            else:
                scanner.scan(payload)
        pictures = scanner.pictures()
        assert [i for i, p in enumerate(pictures) if p.broken] == [13]
        assert len([p for p in pictures if p.entry]) > 2

    def test_unsaid_reordering(self, make: Make) -> None:
        """Without max_num_reorder_frames a decoder that holds back too little may drop pictures."""
        codec, extradata, payloads, _ = packets(make(PLANNED["h264 pyramid"]))
        scanner = scanner_for(codec, extradata)
        for payload in payloads:
            scanner.scan(payload)
        scanner.pictures(0)
        scanner._reorder_said = False
        with pytest.raises(HeaderError, match="reordered"):
            scanner.pictures(1)
        scanner.pictures(4)

    def test_unknown(self) -> None:
        with pytest.raises(HeaderError, match="theora"):
            scanner_for("theora", b"")


class TestFuzz:
    """Random bytes raise HeaderError or nothing."""

    @pytest.mark.parametrize("codec", CODECS)
    @settings(max_examples=150, deadline=1000)
    @given(extradata=st.binary(max_size=80), data=st.lists(st.binary(max_size=200), max_size=4))
    def test_random_bytes(self, codec: str, extradata: bytes, data: list[bytes]) -> None:
        for header in (extradata, b""):
            try:
                scanner = scanner_for(codec, header)
                for payload in data:
                    scanner.scan(payload)
                scanner.pictures()
            except HeaderError:
                pass

    @pytest.mark.parametrize(
        "name", ["h264 open gop", "hevc", "av1", "vp8", "vp9", "mpeg2", "mpeg4 b", "mjpeg", "h264 ts"]
    )
    def test_damaged_streams(self, make: Make, name: str) -> None:
        codec, extradata, payloads, _ = packets(make(PLANNED.get(name) or PLANNED["h264 closed gop ts"]))
        random = np.random.default_rng(5)
        for _ in range(60):
            header = bytearray(extradata)
            if header and random.integers(3) == 0:
                header[random.integers(len(header))] ^= 1 << int(random.integers(8))
            try:
                scanner = scanner_for(codec, bytes(header))
                for payload in payloads[:12]:
                    data = bytearray(payload[: int(random.integers(1, len(payload) + 1))])
                    for _ in range(int(random.integers(4))):
                        data[random.integers(min(40, len(data)))] ^= 1 << int(random.integers(8))
                    scanner.scan(bytes(data))
                scanner.pictures()
            except HeaderError:
                pass
