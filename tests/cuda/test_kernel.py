"""The kernel's bytes are the CPU's: csrc/frames.cu itself is run on a CPU, and on a card where there is one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import emulation
import numpy as np
import pytest
from emulation import PIXELS, BarrierError, Emulation, case, compiled, differing, plane_shapes, random_case, storm

from gpupipe import layouts
from gpupipe.cuda import kernel as kernels
from gpupipe.cuda.card import DeviceBuffer, Target
from gpupipe.cuda.kernel import CupyRuntime, FrameKernel
from gpupipe.cuda.pixels import PixelFormat, convert, level_bits
from gpupipe.cuda.tables import THREADS, TILE, KernelPlan, PlacedPlan, prepare
from gpupipe.errors import (
    DeviceLostError,
    DeviceMemoryError,
    InputError,
    StoppedError,
    UnsupportedError,
    UsageError,
)
from gpupipe.transform import Resizer
from gpupipe.types import Colour, DeviceSurface, SurfaceFormat

MEDIA = Path(__file__).parents[3] / "shared" / "media"

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return Emulation(compiled(tmp_path_factory.mktemp("emulation")))


# ---------------------------------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("name", sorted(layouts._LAYOUTS))
def test_every_layout(runtime, name):
    rng = np.random.default_rng(1)
    cases = []
    for full_range in (False, True):
        format = SurfaceFormat(37, 53, name, Colour("bt709", full_range))
        cases += [case(rng, format, size, aligned=full_range) for size in ((11, 23), (41, 60), (37, 53), (1, 1))]
        cases.append(case(rng, format, (9, 14), crop=(3, 5, 30, 48), extremes=True))
    assert differing(runtime, cases) == []


def test_mixed_batches(runtime):
    assert storm(runtime, seed=2, trials=400) == []


@pytest.mark.parametrize(
    ("name", "source", "size"),
    [
        ("nv12", (1, 1), (1, 1)),
        ("nv12", (1, 7), (5, 3)),
        ("nv12", (9, 1), (2, 40)),
        ("yuv410p", (3, 2), (7, 5)),
        ("nv12", (2, 2), (3, 3000)),  # more columns than threads
        ("nv12", (1080, 1920), (160, 256)),
        ("p010le", (270, 3840), (56, 224)),  # more strips than threads: tiles side by side
        ("yuv444p16le", (8, 8192), (2, 1280)),
        ("yuv420p", (3, 7680), (3, 1)),
        ("nv12", (65536, 3), (2, 5)),  # rows between two outputs have weights of zero
        ("gray", (50000, 2), (3, 2)),
        ("gray", (5, 60000), (3, 2)),  # a column of more strips than a block holds
        ("rgb48le", (30, 30000), (3, 2)),
        ("p210le", (17, 9000), (5, 1)),
        ("ya16le", (2, 12000), (1, 3)),
    ],
)
@pytest.mark.parametrize("aligned", [True, False])
def test_extreme_sizes(runtime, name, source, size, aligned):
    rng = np.random.default_rng(3)
    turned = SurfaceFormat(*source, name, Colour("bt709", True), 270, True)
    upright = SurfaceFormat(*source, name)
    cases = [case(rng, upright, size, aligned=aligned), case(rng, turned, size[::-1], aligned=aligned, extremes=True)]
    assert differing(runtime, cases) == []


@pytest.mark.parametrize("pixels", PIXELS, ids=repr)
def test_pixel_formats(runtime, pixels):
    rng = np.random.default_rng(4)
    cases = [
        case(rng, SurfaceFormat(30, 44, "nv12", rotation=rotation, mirrored=mirrored), (13, 21))
        for rotation in (0, 90, 180, 270)
        for mirrored in (False, True)
    ]
    assert differing(runtime, cases, pixels) == []


def test_devices_without_dot_products(tmp_path):
    assert storm(Emulation(compiled(tmp_path, "-D__CUDA_ARCH__=600")), seed=19, trials=40) == []


@pytest.mark.parametrize("tile_rows", [1, 3, 4, 8, 64])
def test_tiles_of_any_height(runtime, tile_rows):
    rng = np.random.default_rng(5)
    cases = [random_case(rng, 120) for _ in range(12)]
    assert differing(runtime, cases, tile_rows=tile_rows) == []


def test_nothing_but_the_target_is_written(runtime):
    each = case(np.random.default_rng(6), SurfaceFormat(20, 30, "nv12"), (7, 9))
    out = np.full(64 + 7 * 9 * 3 + 64, 0x5A, np.uint8)
    target = Target(DeviceBuffer(out.ctypes.data, out.nbytes, out), 64)
    FrameKernel(runtime).resize([(each.surface, each.resizer, target)], 0)
    assert out[64:-64].tobytes() == each.expected(kernels.BYTES).tobytes()
    assert (out[:64] == 0x5A).all() and (out[-64:] == 0x5A).all()


# ---------------------------------------------------------------------------------------------- planted errors

PLANTED = {
    "no barrier before the horizontal pass": (
        "        }\n        __syncthreads();\n        for (int x",
        "        }\n        for (int x",
    ),
    "no barrier after it": (
        "        }\n        __syncthreads();\n    }\n}\n\n// A column",
        "        }\n    }\n}\n\n// A column",
    ),
    "a pair of three rows counted for two": ("if (pair > first_after)", "if (false)"),
    "rows of zero weight not passed over": ("if (pair < first) {", "if (false) {"),
    "high bytes lost": ("sums[(2 * (i + j) + 1) % kStrip] << 8", "sums[(2 * (i + j) + 1) % kStrip] << 7"),
    "bits beside a sample kept": ("rows.below.x &= mask", "rows.below.x &= ~0u"),
    "channels that take turns mixed": ("layout == kInterleaved ? t[2] : t[1]", "t[1]"),
    "rounding forgotten": (
        "first = horizontal_round(static_cast<int32_t>(low[row] + (high[row] << 8)));",
        "first = static_cast<int32_t>(low[row] + (high[row] << 8)) >> kWeightBits;",
    ),
    "the last bytes of a row unread": ("if (4 * i + b < bytes)", "if (4 * i + b + 1 < bytes)"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_error_is_found(tmp_path, fault):
    flags = ("-O0", "-Wno-unused-parameter", "-Wno-unused-but-set-variable", "-Wno-unused-variable")
    planted = Emulation(compiled(tmp_path, *flags, planted=PLANTED[fault]))
    gaps = case(np.random.default_rng(7), SurfaceFormat(50000, 2, "gray"), (3, 2))
    assert differing(planted, [gaps]) or storm(planted, seed=8, trials=60)


def test_one_weight_off_is_found(runtime, monkeypatch):
    each = case(np.random.default_rng(9), SurfaceFormat(64, 64, "gray", Colour("bt709", True)), (16, 16), extremes=True)
    assert differing(runtime, [each]) == []
    honest = kernels.KernelPlan

    class Planted(honest):
        def __init__(self, format, resizer):
            super().__init__(format, resizer)
            weights = self.blob.view(np.int32)[-40:]
            weights[int(np.argmax(weights))] += 64

    monkeypatch.setattr(kernels, "KernelPlan", Planted)
    assert differing(runtime, [each]) == [each]


def test_threads_that_part_at_a_barrier_are_found(tmp_path):
    parted = (
        "        __syncthreads();\n        for (int x",
        "        if (active) __syncthreads();\n        for (int x",
    )
    with pytest.raises(BarrierError):
        storm(Emulation(compiled(tmp_path, "-O0", planted=parted)), seed=8, trials=20)


# ---------------------------------------------------------------------------------------------- bounds

FAULTS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
OUTSIDE = {
    "below the last row": ("index + 1 < rows ? pitch : 0", "pitch"),
    "beyond the end of a row": ("if (4 * i + b < bytes)", "if (4 * i + b < bytes + 1)"),
    "a wide load that is not aligned": ("static_cast<uint64_t>(strip.pitch)) & 15) == 0", "0) & 1) == 0"),
}


@cache
def sanitizers() -> dict[str, str] | None:
    """The environment of a process that loads code built with sanitizers; None where the compiler has none."""
    libraries = []
    for name in ("libasan.so", "libstdc++.so"):
        done = subprocess.run(
            [emulation.COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        )
        if not Path(done.stdout.strip()).is_absolute():
            return None
        libraries.append(done.stdout.strip())
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }


def sanitized(library: Path, trials: int) -> subprocess.CompletedProcess[str]:
    environment = sanitizers()
    if environment is None:
        pytest.skip(f"{emulation.COMPILER} has no address sanitizer")
    command = [sys.executable, emulation.__file__, str(library), "10", str(trials)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_nothing_outside_the_planes_is_read(tmp_path):
    done = sanitized(compiled(tmp_path, *FAULTS), 80)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("fault", OUTSIDE)
def test_a_read_outside_is_found(tmp_path, fault):
    done = sanitized(compiled(tmp_path, *FAULTS, planted=OUTSIDE[fault]), 80)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr or "runtime error" in done.stderr


# ---------------------------------------------------------------------------------------------- the host's part


def test_a_batch_of_64_is_laid_out_in_a_moment():
    format, resizer = SurfaceFormat(1080, 1920, "nv12"), Resizer((160, 256))
    placed = PlacedPlan(KernelPlan(format, resizer), 4096)
    surface = DeviceSurface(format, [1 << 20, 1 << 24], [2048, 2048])
    seconds = []
    for _ in range(30):
        began = time.perf_counter()
        launch = prepare([(placed, surface, 1 << 30)] * 64, 8)
        seconds.append(time.perf_counter() - began)
    assert len(launch.pictures) == 64 and len(launch.tiles) == 64 * 40
    assert min(seconds) < 0.001


def test_tiles_fill_their_blocks():
    """1080p as it comes from a decoder: two tiles side by side, nearly every thread with a strip."""
    plan = KernelPlan(SurfaceFormat(1080, 1920, "nv12"), Resizer((160, 256)))
    assert plan.threads == THREADS
    assert len(plan.tiles(8)) == 2 * 20 * TILE.itemsize


def test_refusals(runtime):
    kernel = FrameKernel(runtime)
    rng = np.random.default_rng(11)
    good = case(rng, SurfaceFormat(20, 30, "nv12"), (7, 9))
    out = np.full(7 * 9 * 3, 0xA5, np.uint8)
    target = Target(DeviceBuffer(out.ctypes.data, out.nbytes, out), 0)

    def resize(surface, resizer=good.resizer, target=target, pixels=kernels.BYTES):
        whole = Target(DeviceBuffer(out.ctypes.data, out.nbytes, out), 0)
        kernel.resize([(good.surface, good.resizer, whole), (surface, resizer, target)], 0, pixels)

    surface = good.surface
    with pytest.raises(UnsupportedError, match="vdpau"):
        resize(DeviceSurface(SurfaceFormat(20, 30, "vdpau"), surface.pointers, surface.strides))
    with pytest.raises(InputError, match=r"nv12 20x30: plane 1 has a stride of 29 bytes, its rows are 30"):
        resize(DeviceSurface(surface.format, surface.pointers, [30, 29]))
    with pytest.raises(InputError, match="1 planes, expected 2"):
        resize(DeviceSurface(surface.format, surface.pointers[:1], surface.strides))
    with pytest.raises(UnsupportedError, match="stride"):
        resize(DeviceSurface(surface.format, surface.pointers, [1 << 31, 30]))
    with pytest.raises(InputError, match="crop"):
        resize(surface, Resizer((7, 9), (0, 0, 21, 30)))
    with pytest.raises(UsageError, match="expected room for 189 bytes"):
        resize(surface, target=Target(target.buffer, 1))
    with pytest.raises(UsageError, match="expected room for 378 bytes"):
        resize(surface, pixels=PixelFormat("float16"))
    room = np.zeros(1000, np.uint8)
    with pytest.raises(UsageError, match="aligned to 4"):
        kernel.resize(
            [(surface, good.resizer, Target(DeviceBuffer(room.ctypes.data, 1000, room), 2))], 0, PixelFormat("float32")
        )
    assert (out == 0xA5).all()  # a batch with one that is refused is not begun
    kernel.resize([], 0)


def test_more_formats_than_plans_are_kept(runtime):
    rng = np.random.default_rng(12)
    cases = [case(rng, SurfaceFormat(8, 8 + width, "nv12"), (3, 4)) for width in range(kernels._PLANS_KEPT + 9)]
    assert differing(runtime, cases) == []


def test_pixel_formats_that_are_refused():
    for options in (
        {"dtype": "float64"},
        {"dtype": "uint8", "mean": (1, 0, 0)},
        {"dtype": "float32", "std": (1, 0, 1)},
        {"dtype": "float32", "mean": (float("nan"), 0, 0)},
    ):
        with pytest.raises(UsageError):
            PixelFormat(**options)


def test_levels_are_the_formula():
    """The same by Python's own floats, one by one."""
    format = PixelFormat("float32", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    table = level_bits(format).view(np.float32)
    for colour in range(3):
        for level in range(256):
            assert table[colour, level] == np.float32((level / 255 - format.mean[colour]) / format.std[colour])


def test_bfloat16_rounds_to_even():
    """Of every value: no bfloat16 is nearer to the float32, and of two as near the even one is taken."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    bits = level_bits(PixelFormat("bfloat16", mean=mean, std=std))
    single = level_bits(PixelFormat("float32", mean=mean, std=std)).view(np.float32).astype(np.float64)

    def value(bits):
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)

    error = np.abs(value(bits) - single)
    for neighbour in (bits - 1, bits + 1):
        other = np.abs(value(neighbour) - single)
        assert ((error < other) | ((error == other) & (bits % 2 == 0))).all()
    exact = level_bits(PixelFormat("bfloat16", std=(1 / 255, 2 / 255, 4 / 255)))  # whole numbers, halves, quarters
    assert value(exact)[0, 1] == 1 and value(exact)[2, 1] == 0.25


def test_convert_keeps_the_picture():
    rgb = np.random.default_rng(13).integers(0, 256, (2, 4, 5, 3), np.uint8)
    assert (convert(rgb, kernels.BYTES) == rgb).all()
    first = convert(rgb, PixelFormat("float32", channels_first=True))
    assert first.shape == (2, 3, 4, 5) and first.flags.c_contiguous
    assert (first == np.moveaxis(rgb, -1, -3) / np.float32(255)).all()


# ---------------------------------------------------------------------------------------------- CuPy, played


class FakeError(Exception):
    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


class OutOfMemoryError(MemoryError):
    pass


class CompileException(Exception):
    pass


class FakeCupy:
    """As much of CuPy as CupyRuntime uses, over host memory; a stream runs when somebody waits for it."""

    def __init__(self, runtime):
        self.errors = {}  # by the name of a function: what it raises
        self._pending = []
        self._copying = []  # from pageable memory: read, but not there yet
        fake = self

        class Memory:
            def __init__(self, nbytes):
                self.array = np.full(nbytes + 16, 0xEE, np.uint8)
                self.ptr = self.array.ctypes.data + -self.array.ctypes.data % 16

        class Event:
            def __init__(self, disable_timing):
                self._left = 0

            @property
            def done(self):
                return self._left not in fake._pending

            def record(self, stream):
                self._left = object()
                fake._pending.append(self._left)

            def synchronize(self):
                fake.run()

        class Scope:
            def __init__(self, *arguments):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *error):
                pass

        class Stream(Scope):
            null = Scope()

            @classmethod
            def from_external(cls, stream):
                assert stream.__cuda_stream__() == (0, 1)
                return cls()

        def alloc(nbytes):
            fake.may_fail("alloc")
            return Memory(nbytes)

        def copy(to, source, nbytes, kind):
            fake.may_fail("memcpy")
            data = at(source, nbytes).copy()
            fake._copying.append(lambda: np.copyto(at(to, nbytes), data))

        def stream_synchronize(stream):
            assert stream == 0
            while fake._copying:
                fake._copying.pop(0)()

        def copy_async(to, source, nbytes, kind, stream):
            fake._pending.append(lambda: np.copyto(at(to, nbytes), at(source, nbytes)))

        class Module:
            def __init__(self, code, options, backend):
                assert "resize_frames" in code and '#include "plane.h"' not in code and "colour_channel" in code
                assert options == ("-std=c++17",) and backend == "nvrtc"

            def compile(self):
                fake.may_fail("compile")

            def get_function(self, name):
                assert name == "resize_frames"

                def launch(grid, block, arguments):
                    fake.may_fail("launch")
                    tiles, pictures = (int(argument) for argument in arguments)
                    fake._pending.append(lambda: runtime.run(tiles, pictures, *grid, *block))

                return launch

        self.RawModule = Module
        self.cuda = SimpleNamespace(
            Device=Scope,
            Stream=Stream,
            Event=Event,
            alloc=alloc,
            alloc_pinned_memory=lambda nbytes: memoryview(bytearray(nbytes)),
            compiler=SimpleNamespace(CompileException=CompileException),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                CUDARuntimeError=FakeError,
                memcpy=copy,
                memcpyAsync=copy_async,
                memcpyHostToDevice=1,
                streamSynchronize=stream_synchronize,
            ),
            driver=SimpleNamespace(CUDADriverError=FakeError),
        )

    def may_fail(self, name):
        if name in self.errors:
            raise self.errors[name]

    def run(self):
        pending, self._pending = self._pending, []
        for work in pending:
            if callable(work):
                work()


def at(address, nbytes):
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)


@pytest.fixture
def cupy(runtime, monkeypatch):
    fake = FakeCupy(runtime)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


def enqueue(kernel, cases, pixels=kernels.BYTES):
    outs = []
    pictures = []
    for each in cases:
        out = np.zeros(each.expected(pixels).nbytes, np.uint8)
        outs.append(out)
        pictures.append((each.surface, each.resizer, Target(DeviceBuffer(out.ctypes.data, out.nbytes, out), 0)))
    kernel.resize(pictures, 1, pixels)
    return outs


def test_launches_on_their_way_do_not_disturb_each_other(cupy):
    """More launches than slots, none of which runs before somebody waits."""
    rng = np.random.default_rng(14)
    kernel = FrameKernel(CupyRuntime(0))
    launches = [[random_case(rng, 60) for _ in range(3)] for _ in range(3 * kernels._SLOTS)]
    outs = [enqueue(kernel, cases) for cases in launches]
    cupy.run()
    for cases, results in zip(launches, outs, strict=True):
        for each, out in zip(cases, results, strict=True):
            assert out.tobytes() == each.expected(kernels.BYTES).tobytes()


def test_a_slot_grows(cupy):
    rng = np.random.default_rng(15)
    kernel = FrameKernel(CupyRuntime(0), tile_rows=1)
    for count in (1, 40, 2):
        cases = [case(rng, SurfaceFormat(130, 9, "nv12"), (128, 3)) for _ in range(count)]
        outs = enqueue(kernel, cases, PixelFormat("float16"))
        cupy.run()
        for each, out in zip(cases, outs, strict=True):
            assert out.tobytes() == each.expected(PixelFormat("float16")).tobytes()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("no room"), DeviceMemoryError),
        (FakeError(2), DeviceMemoryError),
        (FakeError(719), DeviceLostError),
        (FakeError(700), DeviceLostError),
        (FakeError(1), FakeError),
    ],
)
@pytest.mark.parametrize("where", ["alloc", "memcpy", "launch"])
def test_the_cards_errors(cupy, where, error, expected):
    kernel = FrameKernel(CupyRuntime(0))
    cases = [case(np.random.default_rng(16), SurfaceFormat(20, 30, "nv12"), (7, 9))]
    cupy.errors[where] = error
    with pytest.raises(expected):
        enqueue(kernel, cases)
    cupy.errors.clear()
    (out,) = enqueue(kernel, cases)  # nothing of the failed launch is left
    cupy.run()
    assert out.tobytes() == cases[0].expected(kernels.BYTES).tobytes()


def test_a_kernel_that_does_not_compile_stops_the_run(cupy):
    cupy.errors["compile"] = CompileException("no such architecture")
    with pytest.raises(StoppedError, match=r"cuda:3: the kernel does not compile: no such architecture"):
        CupyRuntime(3)


def test_without_cupy_the_next_step_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UsageError, match=r"gpupipe\[cu13\]"):
        CupyRuntime(0)


# ---------------------------------------------------------------------------------------------- a real card


@pytest.fixture(scope="module")
def card_runtime():
    try:
        import cupy
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"CuPy does not import: {error}")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    if count == 0:
        pytest.skip("no GPU")
    return CupyRuntime(0)


def on_card(runtime, cases, pixels=kernels.BYTES, tile_rows=8):
    """Those whose bytes on the card are not the CPU's. The planes' ends are the ends of their memory."""
    import cupy

    pictures, outs, expected = [], [], []
    for each in cases:
        planes = []
        for plane in each.planes:
            start = plane.ctypes.data % 16
            there = cupy.empty(start + plane.nbytes, np.uint8)
            there[start:] = cupy.asarray(plane)
            planes.append(there[start:])
        surface = DeviceSurface(each.format, [plane.data.ptr for plane in planes], each.strides, None, planes)
        expected.append(each.expected(pixels).tobytes())
        out = cupy.full(len(expected[-1]), 0xA5, np.uint8)
        outs.append(out)
        pictures.append((surface, each.resizer, Target(DeviceBuffer(out.data.ptr, out.nbytes, out), 0)))
    cupy.cuda.Device(0).synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    FrameKernel(runtime, tile_rows).resize(pictures, stream.ptr, pixels)
    stream.synchronize()
    return [each for each, out, want in zip(cases, outs, expected, strict=True) if cupy.asnumpy(out).tobytes() != want]


@pytest.mark.needs_cuda
@pytest.mark.parametrize("pixels", PIXELS, ids=repr)
def test_on_a_card_random_surfaces(card_runtime, pixels):
    rng = np.random.default_rng(17)
    for _ in range(10):
        cases = [random_case(rng, 400) for _ in range(64)]
        assert on_card(card_runtime, cases, pixels, int(rng.integers(1, 20))) == []


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", ["nv12", "p010le", "p016le", "nv16", "yuv444p", "yuv444p10msble", "yuv420p"])
def test_on_a_card_large_surfaces(card_runtime, name):
    rng = np.random.default_rng(18)
    cases = [
        case(rng, SurfaceFormat(*source, name, Colour("bt709")), size)
        for source in ((1080, 1920), (2160, 3840), (719, 1279), (360, 640))
        for size in ((160, 256), (224, 224), (1, 1), (2000, 3000))
    ]
    assert on_card(card_runtime, cases) == []


@pytest.mark.needs_cuda
@pytest.mark.parametrize("path", sorted(MEDIA.glob("*.*")), ids=lambda path: path.name)
def test_on_a_card_real_pictures(card_runtime, path):
    import av

    cases = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if frame.format.name not in layouts._LAYOUTS:
                    pytest.skip(f"{frame.format.name} is converted before it is resized")
                format = SurfaceFormat(frame.height, frame.width, frame.format.name)
                shapes = plane_shapes(format)
                planes = [
                    np.frombuffer(plane, np.uint8)[: (rows - 1) * plane.line_size + row_bytes]
                    for plane, (rows, row_bytes) in zip(frame.planes, shapes, strict=False)
                ]
                strides = [plane.line_size for plane in frame.planes][: len(shapes)]
                cases.append(emulation.Case(format, Resizer((160, 256)), [plane.copy() for plane in planes], strides))
                if len(cases) == 16:
                    break
    except (av.error.FFmpegError, IndexError) as error:
        if not cases:
            pytest.skip(f"no pictures: {error}")
    assert on_card(card_runtime, cases) == []
