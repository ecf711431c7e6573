"""bench/gpu.py without a card: its parts on a card in host memory, tiny; and what it says where there is none."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "cuda"), str(ROOT / "tests")]

import emulation  # noqa: E402
from fakes import FakeEngine, Trouble  # noqa: E402
from host_card import Faults, HostCard, host_device, on_host  # noqa: E402

from bench import gpu, harness, tables  # noqa: E402
from bench.gpu_parts import board, job, kernel, library, nvdec, parent, parity, pinned, table  # noqa: E402
from bench.gpu_parts.board import Board, Unavailable, _Recorder, long_enough  # noqa: E402
from bench.gpu_parts.parent import Part  # noqa: E402
from bench.gpu_parts.surfaces import LAYOUTS, PIXELS, draw  # noqa: E402
from gpupipe.cuda.card import DeviceBuffer, Target  # noqa: E402
from gpupipe.cuda.kernel import FrameKernel  # noqa: E402
from gpupipe.cuda.pixels import PixelFormat, convert  # noqa: E402
from gpupipe.decode.nvdec import NvdecDecoder  # noqa: E402
from gpupipe.decode.pool import DecoderPool  # noqa: E402
from gpupipe.errors import DeviceLostError, UnsupportedError  # noqa: E402
from gpupipe.transform import Resizer  # noqa: E402
from gpupipe.types import DeviceSurface, SurfaceFormat  # noqa: E402

TINY = {
    "picture": [36, 64], "batch": 3, "batches": 2, "copy_bytes": 1 << 16,
    "surfaces": 2, "layouts": ["nv12", "yuv420p10le", "rgb24"], "kinds": ["h264", "vp8"],
    "size": [96, 128], "large": [128, 192], "clip_frames": 30, "files": 2, "clips": 4, "short_clips": 3,
    "ceiling_seconds": 0.05, "few": 2, "most": 4,
    "ways": {"gpu": ["--backend", "ffmpeg", "--num-workers", "1"], "cpu": ["--num-workers", "2"]},
    "block": 1 << 16, "total": 1 << 20,
}  # fmt: skip


class HostBoard(Board):
    """A card in host memory; `spoil` alters what a launch wrote."""

    name = "NVIDIA GeForce Host 1"
    stream = 0

    def __init__(self, spoil=lambda picture, memory: None, faults=None, trouble=None):
        self.spoil, self.faults, self.trouble = spoil, faults, trouble

    def facts(self):
        return {"memory_bytes": 1 << 30}

    def put(self, array):
        return np.ascontiguousarray(array).copy()

    def pointer(self, array):
        return array.ctypes.data

    def get(self, array):
        return array.copy()

    def copy(self, source, to):
        np.copyto(to, source)

    def resize(self, pictures, pixels):
        for surface, resizer, target in pictures:
            out = np.empty((*resizer.out_size(surface.format), 3), np.uint8)
            resizer.resize(on_host(surface), out)
            data = convert(out, pixels).reshape(-1).view(np.uint8)
            pointer = target.buffer.pointer + target.offset
            ctypes.memmove(pointer, data.ctypes.data, data.nbytes)
            self.spoil(surface, np.frombuffer((ctypes.c_uint8 * (data.nbytes + 1)).from_address(pointer), np.uint8))

    def replay(self, pictures, pixels):
        return lambda: self.resize(pictures, pixels)

    def seconds(self, enqueue):
        began = time.perf_counter()
        enqueue()
        return time.perf_counter() - began

    def synchronise(self):
        pass

    def card(self):
        return HostCard(self.faults)

    def device(self):
        return host_device(self.faults, FakeEngine(trouble=self.trouble))


class Breaking(HostBoard):
    """Its process ends with a signal in the first launch."""

    def resize(self, pictures, pixels):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hanging(HostBoard):
    """Its first launch never returns."""

    def resize(self, pictures, pixels):
        threading.Event().wait()


class Raising(HostBoard):
    def resize(self, pictures, pixels):
        raise RuntimeError("no\nsuch thing")


class Blind(HostBoard):
    """A card without video engines, as under a driver without libnvcuvid."""

    def device(self):
        raise Unavailable("libnvcuvid.so.1 is not there")


class Told:
    """What a part tells, as its parent would have it."""

    def __init__(self):
        self.lines = []

    def __call__(self, value, *names):
        self.lines.append(json.dumps({"names": names, "value": harness.rounded(value)}))

    @property
    def found(self):
        return parent.merge(self.lines)


def measured(part, board, scratch, **more):
    told = Told()
    options = {**TINY, "rounds": 1, "scratch": str(scratch), "seconds": 600, **more}
    part.measure(board, options, told)
    return told.found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """Where clips are, made once for all tests."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def importable(monkeypatch):
    """Children find this file."""
    path = [str(ROOT / "tests"), str(ROOT / "tests" / "cuda"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


# ---- the command


def test_without_a_gpu_every_part_says_why_and_nothing_is_written():
    before = {path.name for path in harness.RESULTS.iterdir()}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "bench.gpu"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    *lines, last = ended.stdout.splitlines()
    assert len(lines) == len(parent.PARTS)
    for part, line in zip(parent.PARTS, lines, strict=True):
        assert line.startswith(f"{part.title}: unavailable: ")
    told = json.loads(last)
    assert told["device"] == {}
    reasons = {part["unavailable"] for part in told["parts"].values()}
    assert len(reasons) == 1
    assert any(word in reasons.pop() for word in ("NVIDIA driver", "CUDA_VISIBLE_DEVICES", "CuPy"))
    assert {path.name for path in harness.RESULTS.iterdir()} == before


def test_without_a_gpu_a_result_is_written_where_it_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.main(["--results", str(tmp_path), "--parts", "pinned"]) == 0
    written = json.loads((tmp_path / "gpu-none.json").read_text())
    assert "unavailable" in written["parts"]["pinned"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == written


def test_all_parts_on_a_card_in_host_memory(tmp_path, importable, capsys):
    words = ["--rounds", "1", "--results", str(tmp_path), "--write", str(tmp_path)]
    code = gpu.main(words, "test_bench_gpu:HostBoard", TINY)
    lines = capsys.readouterr().out.splitlines()
    assert code == 0, lines
    written = json.loads((tmp_path / "gpu-host-1.json").read_text())
    assert json.loads(lines[-1]) == written
    assert written["device"] == {"gpu": "NVIDIA GeForce Host 1", "memory_bytes": 1 << 30}
    parts = written["parts"]
    assert not any({"failed", "unavailable", "facts"} & told.keys() for told in parts.values())
    assert parts["kernel"]["cases"]["256x160 uint8"]["tools"]["gpupipe"]["same_as_cpu"] is True
    assert parts["parity"]["synthetic"]["different"] == 0
    assert parts["nvdec"]["clips"]["skipping"]["clips"] == 4
    assert parts["job"]["same_bytes"] is True
    assert parts["pinned"]["setting"]["folder"] == str(tmp_path)
    table_lines = [line for line in lines if line.startswith("video engines: of the ceiling, skipping")]
    assert ">= 85%" in table_lines[0]
    assert table_lines[0].endswith(("met", "missed"))
    page = tables.page([tmp_path])
    assert "of the ceiling, skipping | " in page
    assert "not yet measured" not in page


def test_parts_together_end_within_eight_minutes():
    assert sum(part.seconds for part in parent.PARTS) <= 8 * 60 - 10


def test_the_card_names_the_file():
    assert gpu.slug("NVIDIA H100 80GB HBM3") == "h100-80gb-hbm3"
    assert gpu.slug("NVIDIA GeForce RTX 4090") == "rtx-4090"


def test_bytes_that_differ_are_the_exit_code():
    clip = {"frames": 2, "planes_different": 0, "rows_different": 0}
    right = {"parity": {"synthetic": {"different": 0}, "clips": {"h264": clip}}, "job": {"same_bytes": True}}
    assert not gpu.bad(right)
    assert not gpu.bad({"kernel": {"unavailable": "no card"}, "parity": {"clips": {"unavailable": "no engine"}}})
    assert gpu.bad({"kernel": {"failed": "SIGSEGV"}})
    assert gpu.bad({"parity": {"synthetic": {"different": 1}}})
    assert gpu.bad({"parity": {"clips": {"h264": {**clip, "rows_different": 1}}}})
    assert gpu.bad({"parity": {"clips": {"h264": {"frames": 2, "error": "DecodeError"}}}})
    assert gpu.bad({"job": {"same_bytes": False}})
    assert gpu.bad({"kernel": {"cases": {"a": {"tools": {"gpupipe": {"same_as_cpu": False}}}}}})


# ---- processes


@pytest.mark.parametrize(
    ("board", "word"),
    [("Breaking", "the process ended with SIGSEGV"), ("Raising", "RuntimeError: no such thing")],
)
def test_a_part_that_breaks_says_how_and_keeps_what_it_found(board, word, scratch, importable):
    options = {**TINY, "rounds": 1, "scratch": str(scratch), "board": f"test_bench_gpu:{board}"}
    found = parent.run(Part("kernel", "kernel", 60), options)
    assert found["failed"] == word
    assert found["copy_bytes_per_second"] > 0
    assert found["facts"]["gpu"] == HostBoard.name


def test_a_part_that_hangs_is_ended(scratch, importable):
    options = {**TINY, "rounds": 1, "scratch": str(scratch), "board": "test_bench_gpu:Hanging"}
    assert parent.run(Part("kernel", "kernel", 3), options)["failed"] == "ended after 3 s"


def test_what_was_told_before_the_end_counts():
    lines = [
        '{"names": ["a", "b.mp4"], "value": 1}',
        '{"names": ["a", "b.mp4"], "value": 2}',
        '{"names": ["a", "c"], "va',
    ]
    assert parent.merge(lines) == {"a": {"b.mp4": 2}}


# ---- the kernel


def test_kernel_part(scratch):
    found = measured(kernel, HostBoard(), scratch)
    for case, element in (("256x160 uint8", 3 * 160 * 256), ("224x224 float16", 6 * 224 * 224)):
        about = found["cases"][case]
        assert about["picture_bytes"] == {"read": 36 * 64 * 3 // 2, "written": element}
        ours = about["tools"]["gpupipe"]
        moved = 36 * 64 * 3 // 2 + element
        assert ours["bytes_per_second"] == pytest.approx(moved / ours["us_a_picture"] * 1e6, rel=1e-2)
        assert ours["share_of_copy"] == pytest.approx(
            ours["bytes_per_second"] / found["copy_bytes_per_second"], rel=1e-2
        )
        assert about["tools"]["resize"]["theirs_over_ours"] > 0
        assert {"torch-float32", "cvcuda", "dali"} <= about["tools"].keys()


def test_a_kernel_that_is_wrong_is_told(scratch):
    def spoil(surface, memory):
        memory[0] ^= 1

    found = measured(kernel, HostBoard(spoil), scratch)
    assert found["cases"]["256x160 uint8"]["tools"]["gpupipe"]["same_as_cpu"] is False
    missed = [row for row in table.rows({"parts": {"kernel": found}}) if "unlike the CPU's" in row.what]
    assert [row.verdict for row in missed] == ["missed", "missed"]


def test_the_pictures_that_are_timed_differ():
    first, second = kernel.draw(36, 64, 0), kernel.draw(36, 64, 1)
    assert first.shape == (54, 64)
    assert (first != second).mean() > 0.5


def test_a_delay_grows_until_it_hides_the_host():
    tried = []

    def attempt(count):
        tried.append(count)
        return count >= 20

    assert long_enough(attempt, 8) == 32
    assert tried == [8, 16, 32]
    with pytest.raises(RuntimeError, match="waits for"):
        long_enough(lambda count: False, 8)


def test_a_launch_is_kept_for_replay():
    class Memory:
        def upload(self, table):
            data = np.ascontiguousarray(table).copy()
            return DeviceBuffer(data.ctypes.data, data.nbytes, data)

    recorder = _Recorder(Memory())
    memory = np.zeros(36 * 64 * 3 // 2, np.uint8)
    at = memory.ctypes.data
    surface = DeviceSurface(SurfaceFormat(36, 64, "nv12"), [at, at + 36 * 64], [64, 64])
    out = np.zeros(12 * 16 * 3, np.uint8)
    target = Target(DeviceBuffer(out.ctypes.data, out.nbytes, out), 0)
    FrameKernel(recorder).resize([(surface, Resizer((12, 16)), target)], 7)
    launch, keep = recorder.launched
    assert launch.pictures["out"].tolist() == [out.ctypes.data]
    assert len(launch.tiles) and launch.threads
    assert keep


# ---- the real board, over a stand-in for CuPy whose kernel runs on the CPU


class NearArray(np.ndarray):
    """An array of the card, as CuPy's."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data, copy_from_device_async=self._copy, array=self)

    def _copy(self, source, nbytes, stream):
        stream.log.append("copy")
        self.reshape(-1).view(np.uint8)[:nbytes] = source.array.reshape(-1).view(np.uint8)[:nbytes]


class NearStream:
    def __init__(self, non_blocking):
        assert non_blocking
        self.log, self.ptr = [], 77

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def synchronize(self):
        self.log.append("synchronise")


class NearEvent:
    """Reached late: while a stream holds fewer copies than `patience`, the card is waiting for the host."""

    patience = 20

    def record(self, stream):
        self.at, self.busy = len(stream.log), stream.log[-self.patience :].count("copy") == self.patience

    @property
    def done(self):
        return not self.busy

    def synchronize(self):
        pass


def near_cupy(emulation):
    def kernel(grid, block, addresses):
        emulation.run(int(addresses[0]), int(addresses[1]), grid[0], block[0])

    def array(values):
        return np.array(values, copy=True, order="C").view(NearArray)

    properties = {"name": b"NVIDIA X", "totalGlobalMem": 5, "multiProcessorCount": 6, "major": 9, "minor": 0}
    cuda = SimpleNamespace(
        Device=lambda number: SimpleNamespace(use=lambda: None),
        Stream=NearStream,
        Event=NearEvent,
        get_elapsed_time=lambda begin, end: 1000.0 * (end.at - begin.at) + 1,
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 1)),
        runtime=SimpleNamespace(
            getDeviceProperties=lambda number: properties,
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 12090,
            deviceSynchronize=lambda: None,
        ),
    )
    NearStream.null = SimpleNamespace(synchronize=lambda: None)
    return SimpleNamespace(
        cuda=cuda,
        uint8=np.uint8,
        zeros=lambda count, dtype: array(np.zeros(count, dtype)),
        asarray=array,
        asnumpy=lambda values: np.array(values),
        RawModule=lambda code, options, backend: SimpleNamespace(get_function=lambda name: kernel),
    )


@pytest.fixture
def near(monkeypatch, tmp_path):
    if reason := emulation.missing():
        pytest.skip(reason)
    runtime = emulation.Emulation(emulation.compiled(tmp_path))
    monkeypatch.setitem(sys.modules, "cupy", near_cupy(runtime))
    monkeypatch.setattr("gpupipe.cuda.kernel.CupyRuntime", lambda number: runtime)
    monkeypatch.setattr(board, "_DELAY_BYTES", 64)
    return board.CupyBoard()


def test_the_real_board_resizes_replays_and_hides_the_host(near, scratch):
    found = measured(kernel, near, scratch, picture=[20, 32], batch=2, copy_bytes=4096)
    for case in found["cases"].values():
        assert case["tools"]["gpupipe"]["same_as_cpu"] is True
    source, out = near.put(kernel.draw(20, 32, 0)), near.put(np.zeros(12 * 16 * 3, np.uint8))
    at = near.pointer(source)
    surface = DeviceSurface(SurfaceFormat(20, 32, "nv12"), [at, at + 20 * 32], [32, 32])
    pictures = [(surface, Resizer((12, 16)), near.target(out))]
    near.resize(pictures, PixelFormat())
    truth = near.get(out)
    assert truth.any()
    replay = near.replay(pictures, PixelFormat())
    out[:] = 0
    replay()
    assert np.array_equal(near.get(out), truth)
    copies = [near.put(np.zeros(8, np.uint8)) for _ in range(2)]
    assert near.seconds(lambda: [near.copy(*copies) for _ in range(3)]) == pytest.approx(3.001)
    assert near._delays >= NearEvent.patience
    assert near.facts()["runtime_cuda"] == "12.9"
    assert near.name == "NVIDIA X"


def test_the_real_board_finds_no_difference(near, scratch, monkeypatch):
    monkeypatch.setattr(near, "device", Blind().device)
    found = measured(parity, near, scratch)["synthetic"]
    assert (found["surfaces"], found["different"]) == (6, 0)


# ---- parity


def test_surfaces_of_every_layout_can_be_drawn():
    random = np.random.default_rng(1)
    for layout in LAYOUTS:
        drawn = draw(layout, random)
        device = DeviceSurface(
            drawn.format, [drawn.memory.ctypes.data + offset for offset in drawn.offsets], drawn.strides
        )
        again = np.empty_like(drawn.truth)
        drawn.resizer.resize(on_host(device), again)
        assert np.array_equal(again, drawn.truth), drawn.describe()


def test_every_layout_and_pixel_format_is_compared():
    batches = list(parity._batches(24, 64, sorted(LAYOUTS)))
    seen = {(pixels, each.format.layout) for pixels, drawn in batches for each in drawn}
    assert {layout for pixels, layout in seen if pixels == PixelFormat()} == set(LAYOUTS)
    assert {pixels for pixels, _ in seen} == set(PIXELS)
    assert any(each.format.height * each.format.width > 1 << 21 for _, drawn in batches for each in drawn)


def test_equal_surfaces_are_equal(scratch):
    found = measured(parity, Blind(), scratch, surfaces=16)
    assert found["synthetic"] == {"surfaces": 48, "layouts": 3, "different": 0, "first_different": None}
    assert found["clips"] == {"unavailable": "libnvcuvid.so.1 is not there"}


@pytest.mark.parametrize(("place", "what"), [(0, "inside"), (-1, "behind it")])
def test_a_planted_difference_is_found(place, what, scratch):
    def spoil(surface, memory):
        if surface.format.layout == "rgb24":
            memory[place] ^= 1

    found = measured(parity, Blind(spoil), scratch, surfaces=4)["synthetic"]
    assert found["different"] == 4, what
    assert found["first_different"].startswith("uint8: rgb24 ")
    rows = table.rows({"parts": {"parity": {"synthetic": found}}})
    assert [row.verdict for row in rows if "different" in row.what] == ["missed"]


def test_a_refused_launch_is_a_difference(scratch):
    class Refusing(Blind):
        def resize(self, pictures, pixels):
            raise UnsupportedError("not this one")

    found = measured(parity, Refusing(), scratch)["synthetic"]
    assert found["different"] == found["surfaces"] == 6
    assert found["first_different"] == "refused: not this one"


def test_clips_are_compared(scratch, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    found = measured(parity, HostBoard(), scratch, media=str(tmp_path))["clips"]
    for kind in ("h264", "vp8"):
        assert found[kind] == {"frames": 48, "planes_different": 0, "rows_different": 0}
    assert found["broken.mp4"]["skipped"].startswith("FFmpeg: ")


def test_concealed_damage_is_found_in_planes_and_rows(scratch):
    board = HostBoard(trouble=Trouble(conceal={7}, reported=False))
    found = measured(parity, board, scratch, kinds=["h264"])["clips"]["h264"]
    assert found["planes_different"] > 0


def test_a_wrong_kernel_is_found_in_rows_alone(scratch):
    class Wrong(HostCard):
        def copy_out(self, source, offset, out, stream):
            super().copy_out(source, offset, out, stream)
            stream.enqueue(lambda: out.__setitem__(-1, out[-1] ^ 1))

    class Board(HostBoard):
        def device(self):
            card = Wrong()
            return replace(super().device(), card=card, stream=card.stream())

    found = measured(parity, Board(), scratch, kinds=["h264"])["clips"]["h264"]
    assert found == {"frames": 48, "planes_different": 0, "rows_different": 1}


def test_what_a_card_does_not_decode_is_unavailable(scratch):
    class Narrow(HostBoard):
        def device(self):
            return host_device(None, FakeEngine(kinds=lambda kind: kind.codec != "vp8"))

    found = measured(parity, Narrow(), scratch)["clips"]
    assert "does not decode vp8" in found["vp8"]["unavailable"]
    assert found["h264"]["rows_different"] == 0


# ---- video engines


def test_nvdec_part(scratch):
    found = measured(nvdec, HostBoard(), scratch)
    assert found["engines"] == 2
    assert found["ceiling_frames_per_second"].keys() == {"360p", "1080p"}
    ways = found["clips"]
    assert ways["skipping"]["skipped_packets"] > 0 == ways["feeding all"]["skipped_packets"]
    assert ways["skipping"]["decoded_frames"] < ways["feeding all"]["decoded_frames"]
    for way in ways.values():
        share = way["decoded_frames_per_second"] / found["ceiling_frames_per_second"]["360p"]
        assert way["share_of_ceiling"] == pytest.approx(share, rel=1e-2)
    rates = {name: way["rates"][0] for name, way in found["two_second_clips"].items()}
    assert found["pool_gain"] == pytest.approx(rates["pool"] / rates["fresh"], rel=1e-2)


def test_fresh_decoders_are_made_for_each_clip_and_a_pool_keeps_them(scratch):
    files = library.h264(scratch, "clip", 2, 30, (96, 128))
    engine = FakeEngine()
    nvdec.many(engine, NvdecDecoder, files, 5, 2)
    assert (engine.made, engine.closed) == (5, 5)
    pool = DecoderPool(engine)
    nvdec.many(pool, NvdecDecoder, files, 5, 2)
    pool.close()
    assert engine.made - 5 <= 2
    assert engine.closed == engine.made
    assert engine.live == 0


def test_the_ceiling_counts_every_picture(scratch):
    path = library.h264(scratch, "clip", 1, 30, (96, 128))[0]
    engine = FakeEngine()
    packets = nvdec.fed(path)
    assert len(packets) == 30
    assert nvdec.ceiling(engine, (96, 128), packets, 2, 0.2) > 0
    assert engine.live == 0
    assert engine.open == []
    engine = FakeEngine(trouble=Trouble(unmade=1))
    with pytest.raises(Exception, match="refuses a decoder"):
        nvdec.ceiling(engine, (96, 128), packets, 2, 0.2)


def test_a_card_without_h264_says_so(scratch):
    class Narrow(HostBoard):
        def device(self):
            return host_device(None, FakeEngine(kinds=lambda kind: False))

    assert measured(nvdec, Narrow(), scratch) == {"unavailable": "the card decodes no H.264"}


# ---- the job


def test_shares_of_stages():
    stages = {"wait": 50.0, "start": 9.0, "decode": 6.0, "wait for card": 1.0, "write": 3.0}
    found = job.shares(stages)
    assert found["stages"] == {"decode": 0.6, "write": 0.3, "wait for card": 0.1}
    assert found["waits"] == 0.1
    assert job.shares({}) == {"stages": {}, "waits": 0}


def test_the_job_asks_for_a_card_first(scratch):
    options = {key: value for key, value in TINY.items() if key != "ways"}
    with pytest.raises(Unavailable, match="libnvcuvid"):
        job.measure(Blind(), {**options, "rounds": 1, "scratch": str(scratch), "seconds": 600}, Told())


def test_outputs_that_differ_are_told(scratch):
    ways = {"gpu": ["--num-workers", "1", "--backend", "ffmpeg"], "cpu": ["--seed", "7", "--frame-height", "80"]}
    found = measured(job, HostBoard(), scratch, ways=ways, most=2)
    assert found["same_bytes"] is False
    assert found["ways"]["cpu"]["items"] == 2
    assert "clips_per_second" not in found["ways"]["cpu"]


def test_a_way_that_fails_says_its_last_words_and_the_other_goes_on(scratch):
    ways = {"gpu": ["--num-workers", "0"], "cpu": ["--num-workers", "1"]}
    found = measured(job, HostBoard(), scratch, ways=ways, most=2)
    assert "ended with 2: " in found["ways"]["gpu"]["failed"]
    assert "--num-workers 0" in found["ways"]["gpu"]["failed"]
    assert found["ways"]["cpu"]["items"] == 2
    assert "same_bytes" not in found
    assert gpu.bad({"job": found})
    assert any("--num-workers 0" in row.value for row in table.rows({"parts": {"job": found}}))


def test_the_rate_is_that_of_the_clips_behind_the_first():
    clock = [0.0]

    def run(count):
        seconds = 5 + count / 100  # 5 s to start
        clock[0] += seconds
        return {"items": count, "seconds": seconds, "items_per_second": count / seconds}

    found = job.grown(run, run(200), 4000, lambda: 60 - clock[0])
    assert found["clips_per_second"] == pytest.approx(100)
    assert found["items"] > 1000
    assert clock[0] < 60
    assert job.grown(run, run(200), 399, lambda: 60.0)["items"] == 200


# ---- pinned memory


def test_pinned_part(tmp_path):
    found = measured(pinned, HostBoard(), tmp_path, write=str(tmp_path))
    assert set(found["bytes_per_second"]) == {
        "copy out", "write", "one after the other", "overlapped", "overlapped, 4 writers"
    }  # fmt: skip
    assert 0 <= found["waiting_for_copy"] <= 1
    assert list(tmp_path.iterdir()) == []


def test_every_block_is_written(tmp_path):
    card = HostCard()
    source = card.empty(4096)
    for writers in (1, 4):
        with (tmp_path / "file").open("w+b") as file:
            path = pinned._Path(card, source, 4096, file.fileno(), 8)
            path.overlapped(8, writers)
            assert file.read() == source.owner.memory.tobytes() * 8
    card.close()


def test_a_lost_card_is_told(tmp_path):
    card = HostCard(Faults())
    source = card.empty(4096)
    with (tmp_path / "file").open("w+b") as file:
        path = pinned._Path(card, source, 4096, file.fileno(), 8)
        card.lose()
        with pytest.raises(DeviceLostError):
            path.overlapped(8, 1)


# ---- the page


def test_the_page_says_where_nothing_was_measured(tmp_path):
    assert "not yet measured on hardware" in tables.page([tmp_path])
