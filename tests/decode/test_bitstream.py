"""What an engine is fed, and what is kept from it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from clips import PLANNED
from hypothesis import example, given
from hypothesis import strategies as st
from synth import Clip, encode, remux

from gpupipe.decode.bits import Unfit
from gpupipe.decode.bitstream import EngineStream

Make = Callable[..., Path]

CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
PADDING = 64
"""FFmpeg's AV_INPUT_BUFFER_PADDING_SIZE."""


def stream_of(path: Path) -> tuple[str, bytes, tuple[int, int], list[Any]]:
    """Codec, extradata, size and packets of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        packets = [packet for packet in container.demux(stream) if packet.size]
        return codec.codec.canonical_name, codec.extradata or b"", (codec.height, codec.width), packets


def fed(path: Path) -> tuple[EngineStream, list[Any]]:
    """A stream and what is made of its packets."""
    codec, extradata, size, packets = stream_of(path)
    stream = EngineStream(codec, extradata, size)
    return stream, [stream.packet(packet, not number, packet.is_keyframe) for number, packet in enumerate(packets)]


def behind(packet: Any) -> bytes:
    """What a decoder finds when it reads on behind a packet's end."""
    return ctypes.string_at(packet.buffer_ptr + packet.size, PADDING)


def decoded(codec: str, packets: Sequence[Any]) -> list[bytes]:
    """Luma of all pictures, from the packets alone."""
    context: Any = av.CodecContext.create({"av1": "libdav1d"}.get(codec, codec), "r")
    frames = [frame for packet in (*packets, None) for frame in context.decode(packet)]
    return [bytes(frame.planes[0]) for frame in frames]


@pytest.mark.parametrize("name", [name for name in PLANNED if name.startswith(CODECS) and "grain" not in name])
def test_packets_stand_alone(make: Make, name: str) -> None:
    """A codec that knows no header of the container decodes them, and the originals are as they were."""
    if name in ("h264 mbaff", "h264 gray", "hevc gray"):
        pytest.skip("not for engines")
    path = make(PLANNED[name])
    codec, _, _, before = stream_of(path)
    _, packets = fed(path)
    assert len(decoded(codec, packets)) == PLANNED[name].count
    assert [packet.pts for packet in packets] == [packet.pts for packet in before]
    assert {behind(packet) for packet in packets} == {bytes(PADDING)}
    _, extradata, size, originals = stream_of(path)
    stream = EngineStream(codec, extradata, size)
    kept = [bytes(packet) for packet in originals]
    for packet in originals:
        stream.packet(packet, True, bool(packet.is_keyframe))
    assert [bytes(packet) for packet in originals] == kept


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (PLANNED["h264 mbaff"], "interlaced"),
        (PLANNED["h264 gray"], "monochrome"),
        (PLANNED["hevc gray"], "monochrome"),
        (PLANNED["av1 grain"], "film grain"),
        (Clip(count=3, options={"x264-params": "crop-rect=2,0,0,0"}), "cropped at the left or the top"),
        (Clip(count=3, options={"x264-params": "crop-rect=0,4,0,0"}), "cropped at the left or the top"),
        (Clip(count=3, options={"x264-params": "fake-interlaced=1"}), "interlaced"),
    ],
)
def test_what_engines_show_otherwise(tmp_path: Path, clip: Clip, words: str) -> None:
    with pytest.raises(Unfit, match=words):
        fed(encode(tmp_path / f"clip.{clip.suffix}", clip))


def test_crop_at_the_right_and_the_bottom_is_fine(tmp_path: Path) -> None:
    fed(encode(tmp_path / "clip.mp4", Clip(count=3, options={"x264-params": "crop-rect=0,0,2,4"})))


@pytest.mark.parametrize(
    ("codec", "options", "colours"),
    [
        ("libx264", {"x264-params": "colormatrix=bt709"}, (1, 1)),
        ("libx264", {"preset": "ultrafast"}, (None, None)),
        ("libx264", {"x264-params": "cqm=jvt:sar=7/5:overscan=show:colormatrix=bt2020nc"}, (9, 1)),
        ("libx265", {"x265-params": "colormatrix=bt709:range=full:bframes=4:ref=5"}, (1, 2)),
        ("libx265", {"x265-params": "colormatrix=smpte240m:scaling-list=default:sar=3:temporal-layers=3"}, (7, 1)),
        ("libx265", {"preset": "ultrafast"}, (2, 1)),
        ("libvpx-vp9", {"deadline": "realtime"}, (2, 1)),
        ("libsvtav1", {"preset": "12"}, (2, 1)),
    ],
)
def test_colours(tmp_path: Path, codec: str, options: dict[str, str], colours: tuple[int | None, int | None]) -> None:
    """AVColorSpace and AVColorRange as FFmpeg's decoders set them; None where they leave the container's."""
    stream, packets = fed(encode(tmp_path / "clip.mp4", Clip(codec, count=8, options=options)))
    assert (stream.matrix, stream.colour_range) == colours
    name = {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9", "libsvtav1": "libdav1d"}[codec]
    context: Any = av.CodecContext.create(name, "r")
    frames = [frame for packet in (*packets, None) for frame in context.decode(packet)]
    shown = {(int(frame.colorspace), int(frame.color_range)) for frame in frames}
    # Where nobody says, the bare codec says unknown: 2 and 0.
    assert shown == {(2 if colours[0] is None else colours[0], colours[1] or 0)}


def test_full_range(tmp_path: Path) -> None:
    stream, _ = fed(encode(tmp_path / "clip.mp4", Clip(count=3, layout="yuvj420p")))
    assert (stream.matrix, stream.colour_range) == (None, 2)


def test_orientation_in_the_stream(tmp_path: Path) -> None:
    """FFmpeg turns pictures by a message beside them; an engine does not tell."""
    path = encode(tmp_path / "clip.mp4", Clip(count=4, gop=2, options={"preset": "ultrafast"}))
    message = b"\x06\x2f\x04\x40\x00\x00\x40\x80"  # payload 47
    turned = remux(
        path,
        tmp_path / "turned.mp4",
        lambda number, data: len(message).to_bytes(4) + message + data if number == 2 else data,
    )
    assert len(fed(path)[1]) == 4
    with pytest.raises(Unfit, match="orientation"):
        fed(turned)


def test_parameters_that_change(tmp_path: Path) -> None:
    for codec, suffix in (("libx264", "h264"), ("libx265", "hevc"), ("libvpx-vp9", "ivf"), ("libvpx", "ivf")):
        clip = Clip(codec, suffix, count=4, options={"deadline": "realtime"} if "vpx" in codec else {})
        one = encode(tmp_path / f"one.{suffix}", clip)
        two = encode(tmp_path / f"two.{suffix}", Clip(codec, suffix, count=4, size=(144, 176), options=clip.options))
        both = tmp_path / f"both.{suffix}"
        both.write_bytes(one.read_bytes() + two.read_bytes()[32 if suffix == "ivf" else 0 :])
        assert len(fed(one)[1]) == 4
        with pytest.raises(Unfit, match="change"):
            fed(both)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_sizes_of_units_in_fewer_bytes(make: Make, width: int) -> None:
    """avcC allows 1, 2 and 4 bytes; 3 is read all the same."""
    path = make(Clip(count=6, size=(64, 64), options={"preset": "ultrafast", "crf": "45"}))
    codec, extradata, size, packets = stream_of(path)
    narrow = bytearray(extradata)
    narrow[4] = 0xFC | (width - 1)
    changed = []
    for packet in packets:
        data, units, at = bytes(packet), b"", 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 4])
            if length < 1 << 8 * width:  # the encoder's own words are long, and no picture
                units += length.to_bytes(width) + data[at + 4 : at + 4 + length]
            at += 4 + length
        changed.append(av.Packet(units))
    ordinary = EngineStream(codec, extradata, size)
    unusual = EngineStream(codec, bytes(narrow), size)
    a = [ordinary.packet(packet, not i, packet.is_keyframe) for i, packet in enumerate(packets)]
    b = [unusual.packet(packet, not i, packets[i].is_keyframe) for i, packet in enumerate(changed)]
    assert decoded(codec, a) == decoded(codec, b)
    assert {behind(packet) for packet in b} == {bytes(PADDING)}
    with pytest.raises(Unfit, match="do not add up"):
        unusual.packet(av.Packet(bytes(changed[0])[:-1]), True, True)


def test_nothing_in_the_header() -> None:
    for codec in ("h264", "hevc"):
        with pytest.raises(Unfit, match="no parameter sets"):
            EngineStream(codec, b"", (96, 128))
    with pytest.raises(Unfit, match="does not begin with a sequence header"):
        EngineStream("av1", b"", (96, 128)).packet(av.Packet(b"\x12\x00"), True, True)


@given(st.sampled_from(CODECS), st.binary(max_size=200), st.binary(min_size=1, max_size=200), st.booleans())
@example("h264", b"\1\x64\0\x28\xff\xe1\0\0", b"\0", True)
@example("hevc", b"\1" + b"\xff" * 30, b"\0\0\0\1\x42", True)
@example("h264", b"\0\0\1\x67" + b"\xff" * 100, b"\0\0\0\0", True)
@example("h264", b"\0\0\1\x67" + b"\0" * 100, b"\0\0\0\0", True)
@example("av1", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x80", True)
def test_any_bytes(codec: str, extradata: bytes, data: bytes, entry: bool) -> None:
    """A refusal, or a packet."""
    try:
        stream = EngineStream(codec, extradata, (96, 128))
        assert stream.packet(av.Packet(data), True, entry).size
    except Unfit as error:
        assert str(error)


@given(st.sampled_from(sorted(name for name in PLANNED if name.startswith(CODECS))), st.data())
def test_flipped_bits(make: Make, name: str, data: st.DataObject) -> None:
    """Damage in a header is a refusal at worst."""
    codec, extradata, size, packets = stream_of(make(PLANNED[name]))
    changed = bytearray(extradata)
    for _ in range(data.draw(st.integers(1, 4)) if changed else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    packet = bytearray(packets[0])
    packet[data.draw(st.integers(0, min(len(packet), 60) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        stream = EngineStream(codec, bytes(changed), size)
        assert stream.packet(av.Packet(bytes(packet)), True, True).size
    except Unfit as error:
        assert str(error)
