"""What every decoder must do; a backend's tests inherit :class:`DecoderTests`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import COUNTED, PLANNED, random_clip
from reference import full, of_surface
from synth import Clip, concatenate, encode, flip_bits, read_number, remux, sound_only, truncate

from gpupipe.decode.base import Decoder
from gpupipe.decode.sampling import uniform
from gpupipe.errors import CorruptError, DecodeError, MissingInputError, NoVideoError, TruncatedError, UsageError
from gpupipe.transform import Resizer
from gpupipe.types import Surface

Make = Callable[..., Path]
Media = Callable[[str], Path]

MEDIA = (
    "action_340x256_28fps.mp4", "all_intra_no_stss.mp4", "asl_book_480p.mkv", "bad_audio_360p.mp4",
    "bedroom_540p_h264_bf_noaudio.mp4", "biker_720p_25fps.mp4", "blocks_720p_h264_bf.mp4", "bottles_360p_1189f.mp4",
    "cars_topview_12_5fps.mp4", "chaplin_audio_ok_360p.mp4", "dog_720p_h264_bf.mp4", "driving_720p_24fps.mp4",
    "h264_10bit_200.mp4", "h264_bpyramid.mp4", "hand_yuv444_portrait.mp4", "hdr10_av1_portrait.mp4",
    "hevc_10bit_vfr_noaudio.mp4", "hevc_8k_8frames.mp4", "hevc_bframes_480p.mp4", "hevc_two_tracks_vfr_rot90.mp4",
    "mpeg2_ts_start1_5s.ts", "mpeg4_asp_packed_bframes_nonmono_pts.avi", "one_by_one_person_10fps_139s.mp4",
    "rot270_720p.mp4", "rotated_90.mov", "sign_540x720_portrait.mp4", "squats_portrait_5fps_cbp.mp4",
    "vp8_720p_30s.webm", "vp9_10bit.webm", "vp9_alpha_200.webm", "vp9_no_duration.webm", "vvc_10bit_320.mp4",
)  # fmt: skip


_FAST = {"preset": "veryfast"}

RANDOM_CLIPS = int(os.environ.get("GPUPIPE_RANDOM_CLIPS", "108"))


def number_of(surface: Surface) -> int:
    """Frame number in the pixels of a synthetic clip."""
    upright = replace(surface, format=replace(surface.format, rotation=0, mirrored=False))
    height, width = upright.format.height, upright.format.width
    image = np.empty((height, width, 3), np.uint8)
    Resizer(None).resize(upright, image)
    return read_number(image)


def samplings(total: int) -> dict[str, Sequence[int]]:
    """Sets of frames as jobs ask for them."""
    random = np.random.default_rng(total)
    return {
        "16 uniform": np.unique(uniform(total, 16)[0]).tolist(),
        "every 4th": range(0, total, 4),
        "random": sorted(random.choice(total, min(total, 6), replace=False).tolist()),
        "ends": sorted({0, total - 1}),
        "one": [int(random.integers(total))],
    }


def outcome(decoder: Decoder, indices: Sequence[int]) -> tuple[str, object]:
    """What reading gives: the pictures, or the kind of error."""
    found: dict[int, str] = {}

    def put(position: int, surface: Surface) -> None:
        found[position] = of_surface(surface)

    try:
        decoder.read(indices, put)
    except DecodeError as error:
        return type(error).__name__, None
    return "read", tuple(found[i] for i in range(len(indices)))


class DecoderTests:
    """The contract."""

    @staticmethod
    def open(path: Path, **more: Any) -> Decoder:
        raise NotImplementedError

    def check(self, path: Path, numbered: bool = True, first: int = 0, **more: Any) -> Decoder:
        """Hold all samplings of a file against a full decode; give the decoder back."""
        truth = full(path)
        decoder = self.open(path, **more)
        assert len(decoder) == len(truth)
        assert (np.diff(decoder.index.pts) >= 0).all()
        for name, wanted in samplings(len(truth)).items():
            asked = list(wanted)
            for index, surface in decoder.frames(wanted):
                assert index == asked.pop(0), name
                assert of_surface(surface) == truth[index], f"{name}: frame {index} differs"
                assert surface.pts == decoder.index.pts[index]
                if numbered:
                    assert number_of(surface) == first + index, name
            assert not asked, name
        return decoder

    # -- exactness ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", PLANNED)
    def test_planned_clips(self, make: Make, name: str) -> None:
        with self.check(make(PLANNED[name]), numbered="mono" not in name) as decoder:
            assert decoder.index.exact, decoder.index.reason
            assert len(decoder) == PLANNED[name].count

    @pytest.mark.parametrize("name", COUNTED)
    def test_counted_clips(self, make: Make, name: str) -> None:
        with self.check(make(COUNTED[name])) as decoder:
            assert abs(len(decoder) - COUNTED[name].count) <= 1

    @pytest.mark.parametrize("name", MEDIA)
    def test_real_files(self, media: Media, name: str) -> None:
        path = media(name)
        truth = full(path)
        with self.open(path) as decoder:
            assert len(decoder) == len(truth)
            wanted = np.unique(np.concatenate([uniform(len(truth), 16)[0], [len(truth) // 3]]))
            assert [(i, of_surface(s)) for i, s in decoder.frames(wanted)] == [(i, truth[i]) for i in wanted]
            for single in (len(truth) - 1, len(truth) // 2):
                assert [of_surface(s) for _, s in decoder.frames([single])] == [truth[single]]

    def test_long_av1(self, media: Media) -> None:
        """21,766 frames: a full decode takes too long here, so that only what lies near the start is compared."""
        path = media("av1_1080p60_long.mp4")
        with self.open(path) as decoder:
            assert len(decoder) == 21766
            truth = [of_surface(s) for _, s in decoder.frames(range(40))]
            assert [of_surface(s) for _, s in decoder.frames([0, 17, 39])] == [truth[0], truth[17], truth[39]]
            assert [i for i, _ in decoder.frames([10000, 21765])] == [10000, 21765]

    @pytest.mark.parametrize("seed", range(RANDOM_CLIPS))
    def test_random_structures(self, tmp_path: Path, seed: int) -> None:
        """Random groups of pictures, random wanted sets; GPUPIPE_RANDOM_CLIPS=1000 looks longer."""
        clip = random_clip(seed)
        try:
            path = encode(tmp_path / f"random.{clip.suffix}", clip)
        except ValueError as error:
            pytest.skip(f"no muxer takes what the encoder gives: {error}")
        random = np.random.default_rng(seed)
        truth = full(path)
        more = {"cache_bytes": 0} if random.integers(4) == 0 else {"seek": bool(random.integers(4))}
        with self.open(path, **more) as decoder:
            assert len(decoder) == len(truth) == clip.count, clip
            assert decoder.index.exact, (clip, decoder.index.reason)
            for size in (1, 1, 2, 4, 9, 30):
                wanted = np.sort(random.choice(clip.count, size, replace=False))
                if random.integers(3) == 0:
                    wanted = np.unique(decoder.near(wanted, 0.02 * random.integers(1, 40)))
                assert outcome(decoder, wanted) == ("read", tuple(truth[i] for i in wanted)), clip
            assert decoder.index.exact, clip

    def test_edit_list(self, make: Make, tmp_path: Path) -> None:
        """Frames before the start of the edit are decoded and not shown."""
        clip = Clip(pts=tuple(range(-400, 1200, 40)), options={"preset": "veryfast"}, muxer={"use_editlist": "1"})
        path = encode(tmp_path / "cut.mp4", replace(clip, muxer={**clip.muxer, "avoid_negative_ts": "disabled"}))
        with self.check(path, numbered=False) as decoder:
            assert 0 < len(decoder) <= 40
            first = number_of(next(iter(decoder.frames([0])))[1])
            assert first == 40 - len(decoder)

    def test_size_change(self, make: Make, tmp_path: Path) -> None:
        small = make(Clip(suffix="h264", gop=10, count=20, options={"preset": "veryfast"}))
        large = make(Clip(suffix="h264", gop=10, count=20, first=20, size=(144, 176), options={"preset": "veryfast"}))
        path = concatenate(tmp_path / "both.h264", [small, large])
        with self.check(path) as decoder:
            assert len(decoder) == 40
            sizes = {(s.format.height, s.format.width) for _, s in decoder.frames([0, 39])}
            assert sizes == {(96, 128), (144, 176)}

    def test_several_streams(self, make: Make) -> None:
        first = Clip(count=20, options={"preset": "veryfast"})
        path = make(first, replace(first, size=(144, 176), first=100))
        for stream, offset in ((0, 0), (1, 100)):
            with self.open(path, stream=stream) as decoder:
                assert [number_of(s) - offset for _, s in decoder.frames([3, 7])] == [3, 7]
        with self.open(path) as decoder:
            best = decoder.info.stream
            assert [of_surface(s) for _, s in decoder.frames([5])] == [full(path)[5]]
            assert full(path) == full(path, best)
        with pytest.raises(NoVideoError, match=r"its video streams: 0 \(h264\), 1 \(h264\)"):
            self.open(path, stream=2)

    def test_order_of_reading(self, make: Make) -> None:
        """read() takes any order and repeats; frames() only ascending numbers."""
        with self.open(make(PLANNED["h264"])) as decoder:
            found: dict[int, int] = {}
            decoder.read([7, 3, 3, 59, 0], lambda position, s: found.update({position: number_of(s)}))
            assert [found[i] for i in range(5)] == [7, 3, 3, 59, 0]
            for bad in ([3, 3], [5, 2], [60], [-1]):
                with pytest.raises(UsageError):
                    decoder.frames(bad)
            assert list(decoder.frames([])) == []

    def test_abandoned_iteration(self, make: Make) -> None:
        with self.open(make(PLANNED["h264 pyramid"])) as decoder:
            for start in (30, 5, 50):
                abandoned = decoder.frames(range(start, 60))
                assert number_of(next(abandoned)[1]) == start
            assert [number_of(s) for _, s in decoder.frames([11, 12])] == [11, 12]
            with pytest.raises(UsageError, match="again"):
                next(abandoned)

    # -- facts -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("name", "rotation"),
        [("rotated_90.mov", 90), ("rot270_720p.mp4", 270), ("hevc_two_tracks_vfr_rot90.mp4", 90)],
    )
    def test_rotation_of_real_files(self, media: Media, name: str, rotation: int) -> None:
        with self.open(media(name)) as decoder:
            assert (decoder.info.rotation, decoder.info.mirrored) == (rotation, False)
            _, surface = next(iter(decoder.frames([0])))
            assert (surface.format.rotation, surface.format.mirrored) == (rotation, False)

    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("turn", [0, 90, 180, 270])
    def test_rotation(self, make: Make, turn: int, flip: bool) -> None:
        """PyAV's flip comes after its turn; ours before: a quarter turn goes the other way when they change places."""
        with self.open(make(Clip(count=3, turn=turn, flip=flip, options={"preset": "veryfast"}))) as decoder:
            clockwise = -turn % 360 if not flip else turn
            assert (decoder.info.rotation, decoder.info.mirrored) == (clockwise, flip)

    def test_facts(self, media: Media) -> None:
        with self.open(media("hdr10_av1_portrait.mp4")) as decoder:
            info = decoder.info
            assert (info.codec, info.layout, info.bits) == ("av1", "yuv420p10le", 10)
            assert (info.colour.matrix, info.colour.full_range, info.transfer) == ("bt2020nc", False, "smpte2084")
            assert info.fps == pytest.approx(29.97, abs=0.01)
        with self.open(media("vp9_no_duration.webm")) as decoder:
            assert decoder.info.duration_seconds is None
        with self.open(media("mpeg2_ts_start1_5s.ts")) as decoder:
            assert decoder.index.pts_seconds[0] == pytest.approx(1.525)
            assert decoder.index.times[0] == 0

    def test_variable_rate(self, make: Make) -> None:
        clip = PLANNED["h264 vfr mkv"]
        with self.open(make(clip)) as decoder:
            assert clip.pts is not None
            assert np.allclose(decoder.index.times * 1000, np.array(clip.pts) - clip.pts[0], atol=1)

    # -- bad input ---------------------------------------------------------------------------------------------------

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="no such file"):
            self.open(tmp_path / "none.mp4")
        with pytest.raises(MissingInputError, match="directory"):
            self.open(tmp_path)
        with pytest.raises(MissingInputError):
            self.open(tmp_path / "nul\0byte.mp4")
        (tmp_path / "empty.mp4").touch()
        with pytest.raises(DecodeError, match="empty"):
            self.open(tmp_path / "empty.mp4")
        with pytest.raises(MissingInputError):
            self.open(Path("/dev/null"))

    @pytest.mark.parametrize(
        "text",
        [
            "just words, no video\n" * 50,
            "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
            "ffconcat version 1.0\nfile '{target}'\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
            "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n",
        ],
    )
    def test_text(self, make: Make, tmp_path: Path, text: str) -> None:
        """Neither text nor a playlist, whatever it is called, is a video, and none opens another file."""
        target = make(PLANNED["h264 closed gop ts"])
        for name in ("list.mp4", "list.m3u8"):
            path = tmp_path / name
            path.write_text(text.format(target=target))
            with pytest.raises(DecodeError):
                self.open(path)

    def test_sound_only(self, tmp_path: Path) -> None:
        with pytest.raises(NoVideoError, match="audio"):
            self.open(sound_only(tmp_path / "sound.mp4"))

    def test_odd_names(self, make: Make, tmp_path: Path) -> None:
        for name in ("%d 100%.mp4", "a:b.mp4", "影 片.mp4", "#?&.mp4", "http:x.mp4"):
            path = tmp_path / name
            path.write_bytes(make(PLANNED["h264"]).read_bytes())
            with self.open(path) as decoder:
                assert len(decoder) == 60

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
    @pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts", "fragmented.mp4"])
    def test_truncated(self, make: Make, tmp_path: Path, suffix: str, share: float) -> None:
        flags = {"mp4": "faststart", "fragmented.mp4": "frag_keyframe+empty_moov"}.get(suffix)
        muxer = {"movflags": flags} if flags else {}
        clip = Clip(count=40, size=(240, 320), suffix=suffix.rpartition(".")[2], gop=10, muxer=muxer, options=_FAST)
        path = truncate(make(clip), tmp_path / f"cut.{suffix}", share)
        try:
            decoder = self.open(path)
            total = len(decoder)
        except TruncatedError:
            assert suffix == "mov" or share < 0.1
            return
        with decoder:
            with pytest.raises(TruncatedError, match="ends early") as caught:
                list(decoder.frames([total - 1]))
            whole = decoder.readable()
            assert caught.value.readable == len(whole) <= total
            assert [number_of(s) for _, s in decoder.frames(range(len(whole)), partial=True)] == list(range(len(whole)))

    def test_damaged_real_file(self, media: Media) -> None:
        with self.open(media("corrupted_decode_error_at_28_of_50.mp4")) as decoder:
            assert len(decoder.readable()) == 28
            wanted = uniform(len(decoder), 16)[0]
            with pytest.raises(CorruptError, match="28 of 50 frames are readable") as caught:
                decoder.read(wanted, lambda *_: None)
            assert caught.value.readable == 28
            taken = decoder.read(lambda index: uniform(len(index), 4)[0], lambda *_: None, partial=True)
            assert list(taken) == [0, 9, 18, 27]
        with self.open(media("invalid_bitstream_0_frames.webm")) as decoder, pytest.raises(CorruptError):
            len(decoder)

    @pytest.mark.parametrize(
        "name", ["h264 pyramid", "hevc closed gop", "vp9", "mpeg4 b", "mpeg2", "h264 closed gop ts"]
    )
    def test_damage(self, make: Make, tmp_path: Path, name: str) -> None:
        """A destroyed packet fails whatever depends on it, and nothing else; seeking changes no verdict."""
        clip = replace(PLANNED[name], size=(144, 192))
        source = make(clip)
        truth = full(source)
        for victim in (25, 26, 27):
            path = self.damaged(source, tmp_path, victim, "mkv" if clip.suffix == "ts" else clip.suffix)
            verdicts = {}
            for seek in (True, False):
                with self.open(path, seek=seek) as decoder:
                    verdicts[seek] = [outcome(decoder, [i]) for i in range(len(truth))]
                    with pytest.raises(CorruptError):
                        list(decoder.frames([0], strict=True))
                    prefix = len(decoder.readable())
            assert verdicts[True] == verdicts[False]
            kinds = [kind for kind, _ in verdicts[True]]
            assert set(kinds) == {"read", "CorruptError"}
            assert all(found == (truth[i],) for i, (kind, found) in enumerate(verdicts[True]) if kind == "read")
            assert kinds[:prefix] == ["read"] * prefix
            assert "CorruptError" in kinds[prefix : prefix + 8]

    @pytest.mark.parametrize("name", ["h264 closed gop", "h264 no b", "hevc closed gop", "vp9 mp4"])
    def test_wreckage(self, make: Make, tmp_path: Path, name: str) -> None:
        """A packet of which nothing is left costs the pictures up to the next entry, no more."""
        clip = PLANNED[name]
        source = make(clip)
        truth = full(source)
        path = remux(source, tmp_path / "wreck.mp4", lambda number, data: b"\xff" * len(data) if number == 20 else data)
        with self.open(path) as decoder:
            assert len(decoder) == len(truth)
            found = [outcome(decoder, [i]) for i in range(len(truth))]
        kinds = "".join("." if kind == "read" else "x" for kind, _ in found)
        assert kinds.startswith("." * 15)
        assert kinds.endswith("." * 10)
        assert 0 < kinds.count("x") <= 15
        assert all(digest == (truth[i],) for i, (kind, digest) in enumerate(found) if kind == "read")

    def damaged(self, source: Path, folder: Path, victim: int, suffix: str) -> Path:
        """Damage one packet so that the decoder notices: no decoder notices every flipped bit."""
        path = folder / f"damaged{victim}.{suffix}"
        for seed in range(80):

            def change(number: int, data: bytes, seed: int = seed) -> bytes:
                return flip_bits(data, seed, 1 + seed % 20, 8 + seed % 24) if number == victim else data

            remux(source, path, change)
            with self.open(path) as decoder:
                index = decoder.index
                if index.packet is None:
                    continue
                own = np.flatnonzero(index.packet == victim).tolist()
                if len(own) == 1 and outcome(decoder, own)[0] == "CorruptError":
                    return path
        raise AssertionError("no damage is noticed")

    def test_memory_or_file(self, make: Make) -> None:
        """A file too large to keep in memory is read again, by seeking or from its start."""
        for name in ("h264", "h264 closed gop ts", "h264 mkv", "hevc closed gop", "vp9", "mpeg2", "h264 fragmented"):
            with self.check(make(PLANNED[name]), cache_bytes=0):
                pass
