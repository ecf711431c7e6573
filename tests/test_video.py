"""Video: every way to ask for frames gives those frames, upright, in the order asked."""

import itertools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from synth import Clip, encode, read_number, sound_only, truncate, variable

from gpupipe import decode, open_video
from gpupipe import video as video_module
from gpupipe.decode.base import IndexMismatch
from gpupipe.decode.index import FrameIndex
from gpupipe.errors import CorruptError, MissingInputError, NoVideoError, TruncatedError, UsageError
from gpupipe.transform import Resizer
from gpupipe.types import Colour, StreamInfo, Surface, SurfaceFormat

COUNT = 40
SIZE = (96, 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("video")


@pytest.fixture(scope="module")
def clip(folder):
    return encode(folder / "clip.mp4", Clip(count=COUNT, size=SIZE, gop=12, b_frames=2))


@pytest.fixture(scope="module")
def uneven(folder):
    return encode(folder / "uneven.mp4", variable(Clip(count=COUNT, size=SIZE)))


@pytest.fixture
def video(clip):
    with open_video(clip) as opened:
        yield opened


def numbers(data):
    return [read_number(image) for image in data]


def check(batch, expected, size=SIZE):
    """The batch says, and shows, these frames."""
    assert batch.data.dtype == np.uint8 and batch.data.shape == (len(expected), *size, 3)
    assert batch.data.flags.c_contiguous and batch.data.flags.writeable
    assert batch.index.dtype == np.int64 and batch.index.tolist() == list(expected)
    assert batch.pts_seconds.dtype == np.float64 and batch.pts_seconds.shape == (len(expected),)
    assert batch.valid.dtype == np.bool_ and batch.valid.shape == (len(expected),)
    assert len(batch) == len(expected)
    assert numbers(batch.data) == list(expected)


# ---- facts


def test_facts(video, clip):
    assert len(video) == COUNT
    assert (video.height, video.width, video.fps) == (*SIZE, 25.0)
    assert video.duration_seconds == pytest.approx(COUNT / 25)
    assert isinstance(video.info, StreamInfo) and video.info.codec == "h264" and video.info.path == str(clip)
    assert video.pts_seconds.dtype == np.float64
    np.testing.assert_allclose(video.pts_seconds, np.arange(COUNT) / 25, atol=1e-9)
    assert repr(video) == f"<Video {str(clip)!r}: h264, 96x128, 25 fps>"


def test_stream_that_starts_late_keeps_its_clock_and_seconds_count_from_its_first_picture(folder):
    pts = tuple(range(5000, 5000 + 40 * 20, 40))
    path = encode(folder / "late.mkv", Clip(suffix="mkv", count=20, pts=pts, b_frames=0))
    with open_video(path) as video:
        assert video.pts_seconds[0] == pytest.approx(5.0)
        batch = video.frames(seconds=[0.0, 0.4])
        check(batch, [0, 10])
        np.testing.assert_allclose(batch.pts_seconds, [5.0, 5.4])


def test_stream_number(folder):
    path = encode(folder / "two.mkv", Clip(suffix="mkv", count=8), Clip(suffix="mkv", count=8, first=100))
    with open_video(path, stream=1) as video:
        assert read_number(video[3].data) == 103


# ---- one frame


@pytest.mark.parametrize("key", [0, 17, COUNT - 1, -1, -COUNT, np.int64(5)])
def test_item(video, key):
    frame = video[key]
    assert frame.data.dtype == np.uint8 and frame.data.shape == (*SIZE, 3)
    assert frame.index == int(key) % COUNT == read_number(frame.data)
    assert type(frame.index) is int and type(frame.pts_seconds) is float
    assert frame.pts_seconds == video.pts_seconds[frame.index]
    assert repr(frame).startswith(f"Frame(index={frame.index}, ")


@pytest.mark.parametrize("key", [COUNT, -COUNT - 1])
def test_item_out_of_range(video, key):
    with pytest.raises(IndexError, match=rf"clip.mp4: frame {key} was asked for; it has frames 0 to 39") as caught:
        video[key]
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize("key", ["3", 1.0, [1, 2], None])
def test_item_of_another_type(video, key):
    with pytest.raises(TypeError, match="expected an int or a slice"):
        video[key]


def test_frames_are_the_callers_own(video):
    first = video[3]
    first.data[:] = 0
    assert read_number(video[3].data) == 3


# ---- slices


@pytest.mark.parametrize(
    "key",
    [
        slice(None), slice(3, 9), slice(None, None, 7), slice(-5, None), slice(30, 1000), slice(None, None, -1),
        slice(30, 5, -6), slice(-1, -20, -3), slice(9, 3), slice(5, 5),
    ],
    ids=str,
)  # fmt: skip
def test_slice(video, key):
    check(video[key], range(COUNT)[key])


def test_slice_of_step_zero(video):
    with pytest.raises(ValueError, match="zero"):
        video[::0]


# ---- iteration


def test_iteration(video):
    frames = list(video)
    assert [frame.index for frame in frames] == list(range(COUNT)) == numbers(frame.data for frame in frames)
    assert [frame.pts_seconds for frame in frames] == video.pts_seconds.tolist()


def test_iteration_may_end_early_and_begin_again(video):
    for _ in range(3):
        assert [frame.index for frame in itertools.islice(video, 5)] == list(range(5))
    check(video[7:9], [7, 8])


def test_other_frames_inside_the_loop(video):
    seen = []
    for frame in video:
        seen.append((frame.index, read_number(frame.data)))
        assert read_number(video[-1 - frame.index].data) == COUNT - 1 - frame.index
    assert seen == [(number, number) for number in range(COUNT)]


def test_two_iterations_at_once(video):
    pairs = [(read_number(a.data), read_number(b.data)) for a, b in zip(video, video, strict=True)]
    assert pairs == [(number, number) for number in range(COUNT)]


def test_reversed(video):
    assert [read_number(frame.data) for frame in reversed(video)] == list(range(COUNT))[::-1]


def test_iteration_decodes_each_frame_once(clip):
    decoder = decode.open(clip)
    with video_module.Video(decoder) as video:
        for _ in video:
            pass
        assert decoder.stats.decoded == COUNT


def test_iteration_holds_one_frame(folder):
    count, size = 60, (240, 320)
    path = encode(folder / "longer.mp4", Clip(count=count, size=size, gop=count))
    with open_video(path) as video:
        next(iter(video))  # what is made once is not counted
        tracemalloc.start()
        try:
            assert sum(1 for _ in video) == count
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    frame = 3 * size[0] * size[1]
    assert peak < 6 * frame  # the last frame, the one being made, and small change; all of them would be 60


# ---- frames by number, time, rate, count


@pytest.mark.parametrize(
    "indices",
    [
        [0], [39, 0, 17], [5, 5, 5], [-1, -40, 3, -1], range(10, 4, -2), (7, np.int32(8)),
        np.array([3, 1, 2], np.uint8), np.arange(40)[::-1], [],
    ],
    ids=str,
)  # fmt: skip
def test_indices(video, indices):
    check(video.frames(indices=indices), [int(i) % COUNT for i in indices])


@pytest.mark.parametrize("indices", [[0, 40], [-41]])
def test_indices_out_of_range(video, indices):
    with pytest.raises(IndexError, match="it has frames 0 to 39"):
        video.frames(indices=indices)


@pytest.mark.parametrize("indices", [3, [[1, 2]], [1.0], [True, False], ["1"], [None]], ids=str)
def test_indices_of_another_type(video, indices):
    with pytest.raises(UsageError, match="expected a flat sequence of integers"):
        video.frames(indices=indices)


def test_seconds(video):
    batch = video.frames(seconds=[1.0, 0.0, 0.039, 0.04, 3 / 25, 1.0])
    check(batch, [25, 0, 0, 1, 3, 25])
    assert batch.valid.all()


def test_seconds_where_nothing_is_shown(video):
    batch = video.frames(seconds=[-0.5, 0.0, 39.9 / 25, 40 / 25, 99])
    check(batch, [0, 0, 39, 39, 39])
    assert batch.valid.tolist() == [False, True, True, False, False]


def test_seconds_of_a_variable_rate(uneven):
    with open_video(uneven) as video:
        times = video.pts_seconds - video.pts_seconds[0]
        middle = (times[:-1] + times[1:]) / 2
        check(video.frames(seconds=times), range(COUNT))
        check(video.frames(seconds=middle[::-1]), range(COUNT - 1)[::-1])


@pytest.mark.parametrize("seconds", [1.0, [[1.0]], ["1"], [True]], ids=str)
def test_seconds_of_another_type(video, seconds):
    with pytest.raises(UsageError, match="expected a flat sequence of numbers"):
        video.frames(seconds=seconds)


@pytest.mark.parametrize("seconds", [[0, float("nan")], [float("inf")]], ids=str)
def test_seconds_that_are_none(video, seconds):
    with pytest.raises(UsageError, match="finite"):
        video.frames(seconds=seconds)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(25, range(40)), (5, range(0, 40, 5)), (50, [i // 2 for i in range(79)]), (Fraction(25, 13), [0, 13, 26, 39])],
    ids=str,
)
def test_fps(video, fps, expected):
    batch = video.frames(fps=fps)
    check(batch, expected)
    assert batch.valid.all()


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_fps_that_is_none(video, fps):
    with pytest.raises(UsageError, match="positive"):
        video.frames(fps=fps)


@pytest.mark.parametrize("num", [1, 2, 16, 40])
def test_num(video, num):
    batch = video.frames(num=num)
    check(batch, np.linspace(0, COUNT - 1, num, dtype=int))
    assert batch.valid.all()


def test_num_of_a_short_video(folder):
    with open_video(encode(folder / "short.mp4", Clip(count=3))) as video:
        batch = video.frames(num=5)
        check(batch, [0, 1, 2, 2, 2])
        assert batch.valid.tolist() == [True, True, True, False, False]
        np.testing.assert_array_equal(batch.data[2], batch.data[4])
        assert repr(batch) == "FrameBatch(index=[0, 1, 2, 2, 2], 2 not valid, data=uint8 [5, 96, 128, 3])"


@pytest.mark.parametrize("num", [0, -3])
def test_num_that_is_none(video, num):
    with pytest.raises(UsageError, match="at least 1"):
        video.frames(num=num)


@pytest.mark.parametrize(
    "selectors", [{}, {"num": 3, "fps": 2}, {"indices": [1], "seconds": [0.1]}, {"size": (8, 8)}], ids=str
)
def test_exactly_one_selector(video, selectors):
    with pytest.raises(UsageError, match="exactly one of indices=, seconds=, fps=, num="):
        video.frames(**selectors)


# ---- sizes and pixels


@pytest.mark.parametrize("size", [(48, 80), [64, 64], (np.int64(192), 256), SIZE], ids=str)
def test_size(video, size):
    check(video.frames(indices=[4, 2], size=size), [4, 2], tuple(size))


@pytest.mark.parametrize("size", [(0, 8), (8,), 8, (8.0, 8), (8, 8, 3), "ab", (8, 70000)], ids=str)
def test_size_that_is_none(video, size):
    with pytest.raises(UsageError, match="size"):
        video.frames(num=2, size=size)


def test_nothing_asked_for_still_has_a_size(video):
    assert video.frames(indices=[], size=(8, 9)).data.shape == (0, 8, 9, 3)


@pytest.mark.parametrize("size", [None, (60, 70)])
def test_pixels_are_those_of_decoder_and_resizer(clip, video, size):
    wanted = [0, 7, 20, 39]
    resizer = Resizer(size)
    with decode.open(clip) as decoder:
        for batch_row, (number, surface) in zip(
            video.frames(indices=wanted, size=size).data, decoder.frames(wanted), strict=True
        ):
            expected = np.empty((*(size or SIZE), 3), np.uint8)
            resizer.resize(surface, expected)
            np.testing.assert_array_equal(batch_row, expected)
            if size is None:
                np.testing.assert_array_equal(video[number].data, expected)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_video_is_upright(folder, turn):
    path = encode(folder / f"turned{turn}.mp4", Clip(count=6, size=SIZE, turn=turn))
    upright = SIZE if turn == 180 else SIZE[::-1]
    with open_video(path) as video:
        assert (video.height, video.width) == upright
        assert video[0].data.shape == (*upright, 3)
        assert video.frames(num=3).data.shape == (3, *upright, 3)
        assert video.frames(num=3, size=(50, 40)).data.shape == (3, 50, 40, 3)
        for frame in video:
            # Turned back, it is the picture that was drawn.
            assert read_number(np.rot90(frame.data, -turn // 90)) == frame.index


# ---- array libraries


def test_numpy_takes_a_batch_without_a_copy(video):
    batch = video.frames(num=4)
    for held in (batch, video[2], next(iter(video))):
        assert np.asarray(held) is held.data
        assert np.shares_memory(np.from_dlpack(held), held.data)
        assert np.from_dlpack(held).__array_interface__["data"][0] == held.data.ctypes.data
        assert held.data.ctypes.data % 64 == 0  # less aligned, JAX makes a copy
        copied = np.array(held)
        np.testing.assert_array_equal(copied, held.data)
        assert not np.shares_memory(copied, held.data)


def test_numpy_takes_a_batch_as_another_type(video):
    batch = video.frames(num=2)
    floats = np.asarray(batch, np.float32)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, batch.data)
    assert batch.__array__(np.uint8, copy=False) is batch.data
    assert not np.shares_memory(batch.__array__(copy=True), batch.data)
    with pytest.raises(ValueError, match="need a copy"):
        batch.__array__(np.float32, copy=False)


def test_memory_outlives_the_video(clip):
    with open_video(clip) as video:
        array = np.from_dlpack(video.frames(indices=[9]))
    assert numbers(array) == [9]


def test_torch_takes_a_batch_without_a_copy(video):
    torch = pytest.importorskip("torch")
    batch = video.frames(num=4)
    tensor = torch.from_dlpack(batch)
    assert tensor.dtype == torch.uint8 and tuple(tensor.shape) == batch.data.shape
    assert tensor.data_ptr() == batch.data.ctypes.data


def test_jax_takes_a_batch_without_a_copy(video):
    jax = pytest.importorskip("jax")
    batch = video.frames(num=4)
    array = jax.numpy.from_dlpack(batch)
    assert array.shape == batch.data.shape and array.dtype == np.uint8
    assert array.unsafe_buffer_pointer() == batch.data.ctypes.data


# ---- what cannot be


def test_closed_video(clip):
    video = open_video(clip)
    frames = iter(video)
    next(frames)
    video.close()
    video.close()
    for ask in (
        lambda: video[0],
        lambda: video[:3],
        lambda: len(video),
        lambda: video.pts_seconds,
        lambda: video.frames(num=2),
        lambda: next(iter(video)),
        lambda: next(frames),
    ):
        with pytest.raises(UsageError, match="this video is closed"):
            ask()
    assert video.info.codec == "h264" and repr(video).endswith("closed>")


def test_files_that_are_no_video(folder):
    with pytest.raises(FileNotFoundError) as caught:
        open_video(folder / "absent.mp4")
    assert isinstance(caught.value, MissingInputError)
    with pytest.raises(NoVideoError):
        open_video(sound_only(folder / "sound.mp4"))


def test_arguments_that_cannot_be(clip):
    with pytest.raises(UsageError, match="backend"):
        open_video(clip, backend="magic")
    with pytest.raises(UsageError, match="choose one"):
        open_video(clip, strict=True, allow_partial=True)


def test_truncated_file(folder):
    whole = encode(folder / "whole.mkv", Clip(suffix="mkv", count=COUNT, gop=10, b_frames=0))
    path = truncate(whole, folder / "cut.mkv", 0.6)
    with open_video(path) as video:
        for ask in (lambda: video.frames(num=2), lambda: video[0], lambda: list(video)):
            with pytest.raises(TruncatedError):
                ask()
    with open_video(path, allow_partial=True) as video:
        assert 5 < len(video) < COUNT
        assert numbers(frame.data for frame in video) == list(range(len(video)))
        check(video.frames(indices=[0, -1]), [0, len(video) - 1])


def test_strict_judges_the_whole_stream(folder):
    whole = encode(folder / "sound_stream.ts", Clip(suffix="ts", count=COUNT, gop=10, b_frames=0))
    data = bytearray(whole.read_bytes())
    damaged = folder / "damaged.ts"
    random = np.random.default_rng(5)
    for at in random.integers(int(0.7 * len(data)), int(0.8 * len(data)), 400):
        data[at] ^= 0xFF
    damaged.write_bytes(data)
    with open_video(damaged) as video:
        assert read_number(video[0].data) == 0
    with open_video(damaged, strict=True) as video, pytest.raises(CorruptError):
        video[0]


def test_more_than_the_memory_that_is_free(video, monkeypatch):
    monkeypatch.setattr(video_module, "free_memory_bytes", lambda: 10 * 3 * SIZE[0] * SIZE[1])
    check(video[:10], range(10))
    with pytest.raises(UsageError, match=r"40 frames of 96x128 .* size=\(height, width\), or iterate"):
        video[:]
    check(video.frames(num=40, size=(48, 64)), range(40), (48, 64))


# ---- what only some files do: played by a decoder that is made for it


class Played(decode.Decoder):
    """Shows grey pictures, each as bright as its number in the true order; claims ``claimed`` until it has counted."""

    backend = "played"

    def __init__(self, shown, claimed=None, sizes=None):
        self.shown = list(shown)  # pts of what comes out
        self.pts = list(claimed if claimed is not None else shown)
        self.sizes = sizes or {}
        self.closed = False

    @property
    def info(self):
        return StreamInfo(
            "played", 0, "none", "none", None, "gray", 16, 24, 0, False, 1.0, Fraction(1), 0.0, None, Colour(), "", 8
        )

    @property
    def index(self):
        return FrameIndex(np.array(self.pts, np.int64), Fraction(1), self.pts == self.shown)

    def readable(self):
        return self.index

    def frames(self, indices, strict=False, partial=False):
        wanted = {self.pts[i]: int(i) for i in indices}
        honest = self.pts == self.shown
        for true, pts in enumerate(self.shown):
            if pts in wanted:
                size = self.sizes.get(true, (16, 24))
                grey = np.full(size, 16 + true, np.uint8)
                form = SurfaceFormat(*size, "gray", Colour(full_range=True))
                yield wanted.pop(pts), Surface(form, [grey], [size[1]], pts)
        if wanted and not honest:
            self.pts = self.shown
            raise IndexMismatch("counted")

    def close(self):
        self.closed = True


def shades(frames):
    return [int(np.asarray(frame)[0, 0, 0]) - 16 for frame in frames]


def test_batch_of_a_lying_index_is_chosen_again():
    with video_module.Video(Played(range(8), claimed=range(12))) as video:
        assert len(video) == 12
        batch = video.frames(num=4)
        assert len(video) == 8
        assert batch.index.tolist() == [0, 2, 4, 7] == shades(batch.data)
    with video_module.Video(Played(range(8), claimed=range(12))) as video:
        assert video[-1].index == 7
    with video_module.Video(Played(range(8), claimed=range(12))) as video, pytest.raises(IndexError):
        video[10]


def test_iteration_of_a_lying_index_goes_on_where_it_can():
    with video_module.Video(Played(range(8), claimed=range(12))) as video:
        frames = list(video)
        assert [frame.index for frame in frames] == list(range(8)) == shades(frames)
    missing = [0, 1, 2, 4, 5, 6]  # 3 is claimed and never comes: what follows has another number
    with video_module.Video(Played(missing, claimed=range(7))) as video:
        frames = list(video)
        assert [frame.index for frame in frames] == list(range(6)) == shades(frames)
        assert [frame.pts_seconds for frame in frames] == missing


def test_iteration_says_so_where_the_frames_already_given_were_numbered_wrongly():
    with video_module.Video(Played([0, 2, 3, 4], claimed=[2, 3, 4, 9])) as video:
        frames = iter(video)
        next(frames)
        with pytest.raises(IndexMismatch, match="Iterate again"):
            list(frames)
        assert shades(video) == [0, 1, 2, 3]


def test_pictures_of_several_sizes():
    with video_module.Video(Played(range(4), sizes={2: (20, 30)})) as video:
        assert [frame.data.shape for frame in video] == [(16, 24, 3), (16, 24, 3), (20, 30, 3), (16, 24, 3)]
        assert video[2].data.shape == (20, 30, 3)
        with pytest.raises(UsageError, match="several sizes, 16x24 and 20x30"):
            video[:]
        assert shades(video.frames(num=4, size=(10, 10)).data) == [0, 1, 2, 3]


def test_video_closes_its_decoder():
    decoder = Played(range(3))
    with video_module.Video(decoder):
        assert not decoder.closed
    assert decoder.closed
