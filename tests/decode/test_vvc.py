"""H.266: what its headers say; of one real file, that its pictures are those of a full decode."""

from __future__ import annotations

import contextlib

import av
import numpy as np
import pytest
from contract import Media
from hypothesis import given
from hypothesis import strategies as st
from reference import full, of_surface
from vvc_streams import (
    CRA,
    DELIMITER,
    IDR,
    RADL,
    RASL,
    SEI,
    TRAIL,
    aps,
    picture,
    pps,
    ref_list,
    sps,
    ue,
    unit,
    vvcc,
)

from gpupipe.decode.ffmpeg import FFmpegDecoder
from gpupipe.decode.headers import HeaderError, Pictures, scanner_for

RECORD = vvcc(sps(), pps())


def scan(*packets: bytes, extradata: bytes = RECORD) -> Pictures:
    scanner = scanner_for("vvc", extradata)
    assert not scanner.skips
    for packet in packets:
        scanner.scan(packet)
    return scanner.pictures()


class TestHeaders:
    def test_a_pyramid(self) -> None:
        """I8 first, as libavcodec may be given it: the order of an IDR picture need not be 0."""
        found = scan(
            picture(IDR, 8),
            picture(RADL, 4, ([4], [4]), temporal=1),
            picture(RADL, 2, ([2], [2, 4]), temporal=2),
            picture(RADL, 6, ([-2], [2]), temporal=2),
            picture(TRAIL, 16, ([-8], [-8])),
            picture(TRAIL, 12, ([-4, -4], [4]), temporal=1),
        )
        assert np.argsort([p.order for p in found]).tolist() == [2, 1, 3, 0, 5, 4]
        assert [sorted(set(p.needs or ())) for p in found] == [[], [0], [0, 1], [0, 1], [0], [0, 1, 4]]
        assert [p.entry for p in found] == [True] + [False] * 5
        assert [p.anchor for p in found] == [True, False, False, False, True, False]
        assert not any(p.droppable or p.leading for p in found)

    def test_order_goes_on_beyond_its_bits(self) -> None:
        found = scan(picture(IDR, 0), *(picture(TRAIL, i, ([-100], [-100])) for i in range(100, 1000, 100)))
        assert np.diff([p.order for p in found]).tolist() == [100] * 9
        assert [p.needs for p in found[1:]] == [(i, i) for i in range(9)]

    def test_lists_of_the_sequence(self) -> None:
        """The second list is the one of the same number, unless a number of its own is sent."""
        lists = ((-1,), (-1, -1), (-2,))
        head = [picture(TRAIL, i, "1" + "00") for i in (1, 2)]
        for second, more in ((False, ""), (True, "1" + "10")):
            found = scan(
                picture(IDR, 0),
                *(head if not second else [picture(TRAIL, i, "1" + "00" + "0" + ref_list([-1])) for i in (1, 2)]),
                picture(TRAIL, 3, "1" + "01" + more),
                extradata=vvcc(sps(lists), pps(second=second)),
            )
            assert sorted(set(found[3].needs or ())) == [1, 2]
        with pytest.raises(HeaderError, match="out of range"):
            scan(picture(IDR, 0), picture(TRAIL, 1, "1" + "11"), extradata=vvcc(sps(lists), pps()))

    def test_leading(self) -> None:
        found = scan(
            picture(CRA, 0),
            picture(CRA, 8, ([-8], [])),
            picture(RASL, 4, ([-4], [4])),
            picture(TRAIL, 16, ([-8], [-8])),
        )
        assert [p.entry for p in found] == [True, True, False, False]
        assert [p.leading for p in found] == [False, False, True, False]

    def test_behind_an_entry_that_was_taken_back_nothing_leads(self) -> None:
        found = scan(
            picture(CRA, 0),
            picture(CRA, 8, ([-8], [])),
            picture(RADL, 4, ([-4], [4])),
            picture(RASL, 2, ([-2], [2])),
        )
        assert [p.entry for p in found] == [True, False, False, False]
        assert not any(p.leading for p in found)

    @pytest.mark.parametrize("needs", ["references", "filters", "leading filters"])
    def test_no_entry_where_more_is_needed(self, needs: str) -> None:
        """A picture behind an entry, in output order too, needs what came before it: then it is none."""
        last = {
            "references": picture(TRAIL, 16, ([-8, -8], [-8])),
            "filters": picture(TRAIL, 16, ([-8], [-8]), filters=[3]),
            "leading filters": picture(TRAIL, 16, ([-8], [-8]), filters=[5]),
        }[needs]
        found = scan(
            aps(3) + picture(CRA, 0),
            picture(CRA, 8, ([-8], [])),
            aps(5) + picture(RASL, 4, ([-4], [4])),
            last,
        )
        assert [p.entry for p in found] == [True, False, False, False]
        assert not any(p.leading for p in found)

    def test_filters(self) -> None:
        """Whoever uses a set needs the packet that sent it last, before it; those behind a picture are for later."""
        found = scan(
            aps(1) + aps(2) + picture(IDR, 0, filters=[1]),
            aps(1) + picture(TRAIL, 1, ([-1], [-1]), filters=[1, 2]) + aps(2, suffix=True),
            picture(TRAIL, 2, ([-2], [-2]), filters=[2, 1]),
            picture(TRAIL, 3, ([-3], [-3]), filters=[]),
        )
        assert [set(p.needs or ()) for p in found] == [set(), {0}, {0, 1}, {0}]
        with pytest.raises(HeaderError, match="were not sent"):
            scan(picture(IDR, 0, filters=[1]))

    def test_an_entry_has_its_own_filters(self) -> None:
        found = scan(aps(1) + picture(IDR, 0), picture(IDR, 0, filters=[1]), aps(1) + picture(IDR, 0, filters=[1]))
        assert [p.entry for p in found] == [True, False, True]

    def test_tools(self) -> None:
        """All that may come in a picture header before what is read."""
        shared = "1" + "01" + "0" + "1" + "101" + "1" + ue(1, 5) + ue(0)  # mapping, scaling lists, boundaries
        intra = shared + "1" + ue(0, 1, 0, 0) + ue(0, 0) + ue(3) + "1"
        inter = shared + "1" + ue(2, 0) + ue(3) + "1" + "1" + "0" + "1" + "0" + "1" + "0"
        record = vvcc(sps(tools=True), pps(qp=True))
        found = scan(
            aps(1, kind=1) + aps(5, kind=2) + picture(IDR, 0, header=intra),
            aps(5, kind=2) + picture(TRAIL, 1, ([-1], []), header=inter),
            picture(TRAIL, 2, ([-2], []), header=inter),
            extradata=record,
        )
        assert [p.needs for p in found] == [(), (0, 0), (0, 0, 1)]
        with pytest.raises(HeaderError, match="were not sent"):
            scan(aps(0, kind=1) + aps(5, kind=2) + picture(IDR, 0, header=intra), extradata=record)

    def test_apart(self) -> None:
        """A picture header may be a unit of its own."""
        found = scan(picture(IDR, 0, apart=True), picture(TRAIL, 1, ([-1], [-1]), apart=True))
        assert [p.needs for p in found] == [(), (0, 0)]

    def test_sets_in_the_container(self) -> None:
        found = scan(picture(IDR, 0), picture(TRAIL, 1, ([-1], [])), extradata=vvcc(sps(), pps()))
        assert [p.entry for p in found] == [True, False]
        with pytest.raises(HeaderError, match="not sent"):
            scan(picture(IDR, 0), extradata=b"\xfe\0")
        with pytest.raises(HeaderError, match="header"):
            scan(extradata=vvcc(sps(), pps(), aps(1)))

    def test_sets_that_move(self) -> None:
        """A set that is sent again with other contents: nobody is told what it needs, entries repeat all sets."""
        found = scan(sps() + pps() + picture(IDR, 0), pps(3) + picture(IDR, 0), sps() + pps(3) + picture(IDR, 0))
        assert [p.entry for p in found] == [True, False, True]
        assert [p.needs for p in found] == [None] * 3
        with pytest.raises(HeaderError, match="change in mid-stream"):
            scan(picture(IDR, 0), sps(alf=False) + picture(IDR, 0))

    @pytest.mark.parametrize(
        ("packet", "why"),
        [
            (picture(TRAIL, 1) + picture(TRAIL, 2), "several slices"),
            (picture(TRAIL, 1, apart=True) + unit(TRAIL, "0" * 40), "several slices"),
            (unit(TRAIL, "0" * 40), "several slices"),
            (picture(10, 1), "another kind"),
            (unit(21, ""), "too short|another kind"),
            (unit(12, "0" * 20) + picture(TRAIL, 1), "another kind"),
            (unit(DELIMITER, "000"), "no picture"),
            (b"\0\0\0\4\x01\x01\0\0", "several layers"),
            (pps(slices=True), "several slices or tiles"),
            (pps(width=160), "several sizes"),
            (sps(subpictures=True), "subpictures"),
            (unit(SEI, f"{19:08b}{1:08b}{0:08b}") + picture(TRAIL, 1), "messages"),
            (picture(TRAIL, 1) + aps(1), "behind a picture"),
            (b"\0\0\0\x10\0", "beyond its packet"),
            (b"", "no picture"),
        ],
    )
    def test_refused(self, packet: bytes, why: str) -> None:
        scanner = scanner_for("vvc", RECORD)
        scanner.scan(picture(IDR, 0))
        with pytest.raises(HeaderError, match=why):
            scanner.scan(packet)
        with pytest.raises(HeaderError):
            scanner.lose()

    def test_harmless(self) -> None:
        message = unit(SEI, f"{1:08b}{2:08b}{7:016b}{5:08b}{255:08b}{45:08b}" + "10100000" * 300)
        found = scan(message + picture(IDR, 0), unit(DELIMITER, "010") + message + picture(TRAIL, 1, ([-1], [])))
        assert [p.needs for p in found] == [(), (0,)]


class TestFuzz:
    STREAM = (
        aps(1) + picture(CRA, 0, filters=[1]),
        picture(TRAIL, 1, ([-1], [-1]), filters=[1]),
        picture(CRA, 8, ([-8], [])),
        picture(RASL, 4, ([-4], [4]), apart=True),
        sps(tools=True)[4:] + pps(),
    )

    @given(st.lists(st.tuples(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255))))))
    def test_damaged(self, packets: list[tuple[int, list[tuple[int, int]]]]) -> None:
        """Bytes are changed, packets repeated and left out: a table or HeaderError."""
        scanner = scanner_for("vvc", RECORD)
        for number, changes in packets:
            data = bytearray(self.STREAM[number])
            for at, byte in changes:
                data[at % len(data)] = byte
            try:
                scanner.scan(bytes(data))
            except HeaderError:
                continue
        found = scanner.pictures()
        for i, picture_ in enumerate(found):
            assert all(0 <= other < i for other in picture_.needs or ())
        assert list(scanner.pictures()) == list(found)

    @given(st.binary(max_size=120), st.booleans())
    def test_records(self, data: bytes, described: bool) -> None:
        with contextlib.suppress(HeaderError):
            scanner_for("vvc", bytes([0xFE | described]) + data)


class TestRealFile:
    NAME = "vvc_10bit_320.mp4"

    def test_every_picture(self, media: Media) -> None:
        path = media(self.NAME)
        truth = full(path)
        for cache_bytes in (1 << 20, 0):
            with FFmpegDecoder(path, cache_bytes=cache_bytes) as decoder:
                assert decoder.index.exact
                step = 1 if cache_bytes else 13
                for number in range(0, len(truth), step):
                    assert [of_surface(surface) for _, surface in decoder.frames([number])] == [truth[number]]

    def test_what_is_skipped(self, media: Media) -> None:
        path = media(self.NAME)
        truth = full(path)
        random = np.random.default_rng(5)
        for count, most in ((16, 60), (8, 45), (3, 25)):
            with FFmpegDecoder(path) as decoder:
                wanted = np.sort(random.choice(len(truth), count, replace=False)).tolist()
                assert [of_surface(surface) for _, surface in decoder.frames(wanted)] == [truth[i] for i in wanted]
                assert decoder.stats.decoded < most
            with FFmpegDecoder(path, seek=False) as decoder:
                assert [of_surface(surface) for _, surface in decoder.frames(wanted)] == [truth[i] for i in wanted]

    def test_damaged(self, media: Media) -> None:
        """Its own packets with flipped bits: a table or HeaderError."""
        with av.open(str(media(self.NAME))) as container:
            extradata = container.streams.video[0].codec_context.extradata or b""
            payloads = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
        random = np.random.default_rng(7)
        for _ in range(200):
            header = bytearray(extradata)
            if random.integers(2):
                header[random.integers(len(header))] ^= 1 << int(random.integers(8))
            try:
                scanner = scanner_for("vvc", bytes(header))
                for payload in payloads[20:34]:
                    data = bytearray(payload[:400])
                    data[: min(len(data), 4)] = payload[:4]
                    for _ in range(int(random.integers(3))):
                        data[random.integers(min(60, len(data)))] ^= 1 << int(random.integers(8))
                    scanner.scan(bytes(data))
                scanner.pictures()
            except HeaderError:
                pass
