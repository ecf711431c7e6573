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

from gpupipe._native import header_bits
from gpupipe.decode.headers import INTRA, HeaderError, Picture, Pictures, scanner_for

CODECS = ("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", *sorted(INTRA))


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


def bits_of(text: str) -> bytes:
    return int(text + "0" * (-len(text) % 8), 2).to_bytes((len(text) + 7) // 8, "big")


def ue(*values: int) -> str:
    """Exp-Golomb codes."""
    return "".join(f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}" for value in values)


def h264_sps(reorder: int | None) -> bytes:
    """Main profile, frames only, picture order counts of 8 bits, 4 references; with max_num_reorder_frames or not."""
    restriction = "" if reorder is None else "0" * 8 + "1" + "1" + ue(0, 0, 0, 0, reorder, 4)
    text = ue(0, 0, 0, 4, 4) + "0" + ue(1, 1) + "110" + ("0" if reorder is None else "1" + restriction)
    return b"\x67\x4d\0\x1e" + bits_of(text + "1")


def h264_pps(quantiser: int = 0) -> bytes:
    return b"\x68" + bits_of(ue(0, 0) + "00" + ue(0, 0, 0) + "000" + ue(quantiser, 0, 0) + "000" + "1")


def h264_slice(count: int, idr: bool, reference: bool) -> bytes:
    """The whole header of an I slice with a picture order count."""
    head = (0x60 if reference else 0) | (5 if idr else 1)
    text = ue(0, 7, 0) + "0000" + (ue(0) if idr else "") + f"{count:08b}" + ("00" if idr else "0" if reference else "")
    return bytes([head]) + bits_of(text + "1" * 16)


class TestBits:
    """The native reader; 0 stands for an Exp-Golomb code, -1 for a signed one."""

    def test_exp_golomb(self) -> None:
        """The first codes of H.264 table 9-2, and of 9-3."""
        codes = bytes([0b10100110, 0b01000010, 0b10011000])
        assert header_bits(codes, [0] * 5) == [0, 1, 2, 3, 4]
        assert header_bits(codes, [-1] * 5) == [0, 1, -1, 2, -2]
        assert header_bits(b"\0\0\0\0" + b"\xff" * 5, [0]) == [(1 << 33) - 2]
        assert header_bits(b"\0\0\0\0\x80" + bytes(4) + b"\xff", [0, 0]) == [(1 << 32) - 1, 254]

    def test_end(self) -> None:
        assert header_bits(b"\x80", [1, 7]) == [1, 0]
        for data, widths in ((b"\x80", [1, 8]), (b"", [1]), (b"\x01", [0, 1]), (b"\x02", [0]), (b"\x80", [0, 32])):
            with pytest.raises(HeaderError, match="ends early" if data != b"\x02" else "."):
                header_bits(data, widths)
        for data in (b"\0\0", bytes(4) + b"\x40" + bytes(8), b"", bytes(100)):
            with pytest.raises(HeaderError, match="too long"):
                header_bits(data, [0])

    @given(st.binary(max_size=64), st.integers(1, 32))
    def test_unescape(self, data: bytes, width: int) -> None:
        """Emulation prevention bytes are stepped over."""
        escaped = bytearray()
        for byte in data:
            if escaped[-2:] == b"\0\0" and byte <= 3:
                escaped.append(3)
            escaped.append(byte)
        widths = [width] * (8 * len(data) // width)
        value = int.from_bytes(data, "big")
        wanted = [value >> 8 * len(data) - (i + 1) * width & (1 << width) - 1 for i in range(len(widths))]
        assert header_bits(bytes(escaped), widths, escaped=True) == wanted
        assert header_bits(data, widths) == wanted


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

    @pytest.mark.parametrize("said", [False, True])
    def test_unsaid_reordering(self, said: bool) -> None:
        """Without max_num_reorder_frames a decoder that holds back too little may drop pictures."""
        scanner = scanner_for("h264", b"\0\0\1" + h264_sps(reorder=2 if said else None) + b"\0\0\1" + h264_pps())
        for count in (0, 8, 4, 2, 6):
            scanner.scan(b"\0\0\1" + h264_slice(count, idr=count == 0, reference=count in (0, 8, 4)))
        if not said:
            with pytest.raises(HeaderError, match="reordered"):
                scanner.pictures(1)
        pictures = scanner.pictures(1 if said else 2)
        assert [p.order - pictures[0].order for p in pictures] == [0, 8, 4, 2, 6]
        assert [p.entry for p in pictures] == [True] + [False] * 4
        assert [p.droppable for p in pictures] == [False, False, False, True, True]

    def test_sets_that_move(self) -> None:
        """A set that is sent again with other contents: entries are then those that repeat all sets."""
        sets = [b"\0\0\1" + unit for unit in (h264_sps(reorder=0), h264_pps())]
        idr = b"\0\0\1" + h264_slice(0, idr=True, reference=True)
        scanner = scanner_for("h264", b"".join(sets))
        for data in (idr, b"\0\0\1" + h264_pps(4) + idr, idr, sets[0] + sets[1] + idr):
            scanner.scan(data)
        assert [p.entry for p in scanner.pictures()] == [False, False, False, True]
        with pytest.raises(HeaderError, match="change in mid-stream"):
            scanner.scan(b"\0\0\1" + h264_sps(reorder=1))

    def test_any_buffer(self, make: Make) -> None:
        codec, extradata, payloads, _ = packets(make(PLANNED["h264"]))
        one, other = scanner_for(codec, extradata), scanner_for(codec, extradata)
        for payload in payloads:
            one.scan(payload)
            other.scan(memoryview(bytearray(payload)))
        assert list(one.pictures()) == list(other.pictures())

    def test_one_by_one(self) -> None:
        """The table of pictures gives back what it was made of."""
        pictures = [Picture(True, 3, entry=True, needs=()), Picture(False, 9, broken=True, prefix=4)]
        pictures += [Picture(True, 5, droppable=True, leading=True, needs=(0, 1), anchor=True)]
        table = Pictures.of(pictures)
        assert list(table) == pictures
        assert (table[-1], table[1:]) == (pictures[-1], pictures[1:])
        assert table.needed[2] == [0, 1]
        assert list(Pictures.of([])) == []

    @pytest.mark.parametrize("unit", [b"\x40", b"\x40\x01"])
    def test_short_extradata(self, unit: bytes) -> None:
        record = bytearray(23)
        record[0], record[22] = 1, 1
        with pytest.raises(HeaderError, match="too short"):
            scanner_for("hevc", bytes(record) + b"\x20\0\1" + len(unit).to_bytes(2, "big") + unit)

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
