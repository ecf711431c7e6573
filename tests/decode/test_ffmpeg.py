"""The FFmpeg backend."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import PLANNED
from contract import DecoderTests, Make, Media, number_of
from synth import Clip, encode

import gpupipe.decode
from gpupipe.decode.base import Decoder, IndexMismatch
from gpupipe.decode.ffmpeg import FFmpegDecoder
from gpupipe.decode.index import FrameIndex
from gpupipe.decode.sampling import uniform
from gpupipe.errors import NoVideoError, UnsupportedError, UsageError


class TestFfmpeg(DecoderTests):
    @staticmethod
    def open(path: Path, **more: Any) -> Decoder:
        return FFmpegDecoder(path, **more)

    def test_public_door(self, make: Make) -> None:
        with gpupipe.decode.open(make(PLANNED["h264"])) as decoder:
            assert decoder.backend == "ffmpeg"
            assert len(decoder) == 60
        with pytest.raises(UsageError, match="expected one of"):
            gpupipe.decode.open("x", backend="magic")
        with pytest.raises(UsageError, match="closed"):
            list(decoder.frames([1]))

    def test_import_is_lazy(self) -> None:
        code = "import sys, gpupipe.decode; sys.exit('av' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_quiet(self, media: Media, capfd: pytest.CaptureFixture[str]) -> None:
        with self.open(media("corrupted_decode_error_at_28_of_50.mp4")) as decoder:
            decoder.readable()
        assert capfd.readouterr() == ("", "")

    def test_skips_and_seeks(self, make: Make) -> None:
        with self.open(make(PLANNED["h264 pyramid"])) as decoder:
            list(decoder.frames([50]))
            assert decoder.stats.packets < 24
            assert decoder.stats.decoded < decoder.stats.packets
            assert decoder.stats.skipped == decoder.stats.packets - decoder.stats.decoded

    def test_counted_in_one_go(self, tmp_path: Path) -> None:
        """A stream whose pictures must be counted is decoded once, if each packet shows one."""
        path = encode(tmp_path / "a.avi", Clip(codec="mpeg4", suffix="avi", count=40, b_frames=2))
        got: dict[int, int] = {}
        with self.open(path) as decoder:
            chosen = decoder.read(
                lambda index: uniform(len(index), 8)[0],
                lambda position, surface: got.__setitem__(position, number_of(surface)),
            )
            assert not decoder.index.exact
            assert decoder.stats.decoded == 40
        assert [got[position] for position in range(8)] == list(chosen) == np.linspace(0, 39, 8, dtype=int).tolist()

    def test_counted_again_where_packets_are_not_pictures(self, tmp_path: Path) -> None:
        """The first choice is made from a wrong guess; it is made again from the true count."""
        path = encode(tmp_path / "a.avi", Clip(codec="mpeg4", suffix="avi", count=40, b_frames=2))
        got: dict[int, int] = {}
        with self.open(path) as decoder:
            assert isinstance(decoder, FFmpegDecoder)
            decoder._packets().table.discard[:5] = True
            decoder.read(
                lambda index: uniform(len(index), 8)[0],
                lambda position, surface: got.__setitem__(position, number_of(surface)),
            )
            assert len(decoder) == 40
            assert decoder.stats.decoded == 80
        assert [got[position] for position in range(8)] == np.linspace(0, 39, 8, dtype=int).tolist()

    @pytest.mark.parametrize("name", ["vp9 temporal layers", "av1", "av1 low delay"])
    def test_never_fed(self, make: Make, name: str) -> None:
        """What replaces no reference is dropped before the codec, also behind hidden frames in the same packet."""
        with self.open(make(PLANNED[name])) as decoder:
            list(decoder.frames([19]))
            assert decoder.stats.decoded < 0.7 * decoder.stats.packets

    def test_wrong_index_is_noticed(self, make: Make) -> None:
        """Whatever made the index wrong: reading notices, counts, and asks again."""
        with FFmpegDecoder(make(PLANNED["h264 no b"])) as decoder:
            index = decoder.index
            assert index.packet is not None
            wrong = np.arange(60) != 20
            decoder._index = FrameIndex(index.pts[wrong], index.time_base, True, index.packet[wrong])
            with pytest.raises(IndexMismatch):
                list(decoder.frames([25]))
            assert not decoder.index.exact
            assert len(decoder.index) == 60
            decoder._index = FrameIndex(index.pts[wrong], index.time_base, True, index.packet[wrong])
            found: dict[int, int] = {}
            chosen = decoder.read(lambda i: [len(i) - 1, 25], lambda p, s: found.update({p: number_of(s)}))
            assert list(chosen) == [59, 25]
            assert found == {0: 59, 1: 25}

    def test_cover_is_no_video(self, tmp_path: Path) -> None:
        path = tmp_path / "song.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mjpeg", rate=1)
            stream.height, stream.width, stream.pix_fmt = 96, 128, "yuvj420p"
            stream.disposition = av.stream.Disposition.attached_pic
            container.mux(stream.encode(av.VideoFrame(128, 96, "yuvj420p")))
            container.mux(stream.encode(None))
        with pytest.raises(NoVideoError, match="no video stream"):
            self.open(path)

    def test_counts_only_once(self, tmp_path: Path) -> None:
        path = encode(tmp_path / "a.mkv", Clip("ffv1", "mkv", count=10))
        with self.open(path) as decoder:
            assert len(decoder) == 10
            assert decoder.index is decoder.index
            assert decoder.stats.decoded == 10


def test_pictures_of_too_many_pixels_are_refused(make: Make) -> None:
    path = make(Clip(count=3))
    with pytest.raises(UnsupportedError, match=r"96x128 .* more than 12287 pixels"):
        gpupipe.decode.open(path, max_pixels=12287)
    with gpupipe.decode.open(path, max_pixels=12288) as decoder:
        assert len(decoder.index) == 3


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", "h264", {"preset": "veryfast"}),
        ("libx265", "hevc", {"preset": "veryfast", "x265-params": "log-level=none"}),
        ("libvpx-vp9", "ivf", {"deadline": "realtime"}),
    ],
)
def test_pictures_that_grow_within_the_stream_are_bounded(
    make: Make, tmp_path: Path, codec: str, suffix: str, options: dict[str, str]
) -> None:
    """What the container and the first pictures say is no promise."""
    clip = Clip(codec, suffix, count=5, gop=5, options=options)
    small, large = make(clip).read_bytes(), make(replace(clip, size=(1440, 2048))).read_bytes()
    path = tmp_path / f"grows.{suffix}"
    path.write_bytes(small + large[32 if suffix == "ivf" else 0 :])  # less the header of its file
    with gpupipe.decode.open(path) as decoder:
        assert len(decoder.index) == 10
    with (
        gpupipe.decode.open(path, max_pixels=20000) as decoder,
        pytest.raises(UnsupportedError, match="more than 20000"),
    ):
        decoder.read([9], lambda position, surface: None)
