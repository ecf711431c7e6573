"""The card through CuPy: over a stand-in for CuPy that runs nothing before somebody waits for it, and on a real card.

The stand-in's streams keep what is enqueued until an event is waited for, then run that and what it depends on, and
nothing else: what is not ordered by an event comes too late, and shows as wrong bytes.
"""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakeEngine
from host_card import on_host
from synth import Clip
from test_batcher import RESIZER, SIZE, Drawn

import gpupipe
from gpupipe import decode
from gpupipe.cuda import cupy_card, device
from gpupipe.cuda.batcher import Batcher
from gpupipe.cuda.card import Target
from gpupipe.cuda.device import Device
from gpupipe.cuda.slots import DeviceRows
from gpupipe.errors import DeviceLostError, DeviceMemoryError, UsageError
from gpupipe.stages import Stages
from gpupipe.transform import Resizer


class Status(RuntimeError):
    def __init__(self, status):
        super().__init__(f"cudaError {status}")
        self.status = status


class OutOfMemory(MemoryError):
    pass


class Memory:
    def __init__(self, nbytes):
        self.array = np.full(nbytes, 0xCD, np.uint8)
        self.ptr = self.array.ctypes.data


class LazyStream:
    """Keeps what is enqueued."""

    known: dict[int, LazyStream] = {}  # noqa: RUF012 - by handle, as CUDA has them

    def __init__(self, cuda, non_blocking):
        assert non_blocking, "it would wait for the default stream"
        self.cuda, self.ops, self.ran = cuda, [], 0
        self.ptr = id(self)
        self.known[self.ptr] = self

    def wait_event(self, event):
        self.cuda.meet()
        self.ops.append(event.run)

    def run_to(self, count):
        while self.ran < count:
            self.ran += 1
            self.ops[self.ran - 1]()


class LazyEvent:
    lock = threading.RLock()

    def __init__(self, cuda, block, disable_timing):
        assert block, "whoever waits must sleep"
        assert disable_timing
        self.cuda = cuda

    def record(self, stream):
        self.cuda.meet()
        self.stream, self.count = stream, len(stream.ops)

    def run(self):
        with self.lock:
            self.stream.run_to(self.count)

    def synchronize(self):
        self.cuda.meet()
        self.run()

    @property
    def done(self):
        self.cuda.meet()
        return self.stream.ran >= self.count


class LazyCuda:
    """What the card uses of ``cupy.cuda``."""

    def __init__(self):
        self.status: int | None = None  # of every call from now on
        self.full = False
        self.inside = threading.local()
        self.runtime = SimpleNamespace(
            CUDARuntimeError=Status, memcpyDeviceToHost=2, memcpyAsync=self.memcpy_async, getDeviceCount=lambda: 1
        )
        self.driver = SimpleNamespace(CUDADriverError=type("CUDADriverError", (Status,), {}))
        self.memory = SimpleNamespace(OutOfMemoryError=OutOfMemory)

    def meet(self):
        if self.status is not None:
            raise Status(self.status)

    def Device(self, number):
        assert number == 0
        cuda = self

        class Entered:
            def __enter__(self):
                cuda.inside.count = getattr(cuda.inside, "count", 0) + 1

            def __exit__(self, *_):
                cuda.inside.count -= 1

        return Entered()

    def alloc(self, nbytes):
        self.meet()
        assert self.inside.count
        if self.full:
            raise OutOfMemory("Out of memory allocating")
        return Memory(nbytes)

    def alloc_pinned_memory(self, nbytes):
        self.meet()
        return np.full(nbytes, 0xEE, np.uint8)

    def Stream(self, non_blocking):
        self.meet()
        return LazyStream(self, non_blocking)

    def Event(self, block, disable_timing):
        return LazyEvent(self, block, disable_timing)

    def memcpy_async(self, to, source, nbytes, kind, stream):
        self.meet()
        assert kind == 2
        kind_of = np.ctypeslib.ctypes.c_uint8 * nbytes

        def copy():
            np.frombuffer(kind_of.from_address(to), np.uint8)[:] = np.frombuffer(kind_of.from_address(source), np.uint8)

        LazyStream.known[stream].ops.append(copy)


class LazyKernel:
    def __init__(self, runtime):
        assert runtime == "runtime of 0"

    def resize(self, pictures, stream):
        def kernel():
            for surface, resizer, target in pictures:
                height, width = resizer.out_size(surface.format)
                start = target.buffer.pointer + target.offset
                raw = (np.ctypeslib.ctypes.c_uint8 * (height * width * 3)).from_address(start)
                resizer.resize(on_host(surface), np.frombuffer(raw, np.uint8).reshape(height, width, 3))

        LazyStream.known[stream].ops.append(kernel)


@pytest.fixture
def cuda(monkeypatch):
    cuda = LazyCuda()
    freed = []
    pools = {
        f"get_default_{kind}pool": lambda: SimpleNamespace(free_all_blocks=lambda: freed.append(1))
        for kind in ("memory_", "pinned_memory_")
    }
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, **pools))
    monkeypatch.setattr(cupy_card, "CupyRuntime", lambda number: f"runtime of {number}")
    monkeypatch.setattr(cupy_card, "FrameKernel", LazyKernel)
    cuda.freed = freed
    yield cuda
    LazyStream.known.clear()


def test_rows_come_out_right_and_in_order(cuda):
    card = cupy_card.CupyCard(0)
    batcher = Batcher(card, card.stream(), print)
    rows = DeviceRows(card, batcher, 20, SIZE)
    for _ in range(3):
        pictures, out = [Drawn() for _ in range(20)], rows.pinned()
        with rows.ticket(out, Stages()) as ticket:
            for position, picture in enumerate(pictures):
                ticket.put(position, picture.surface, RESIZER)
            ticket.finish(20)
        np.testing.assert_array_equal(out, [picture.truth for picture in pictures])
    batcher.close()
    card.close()
    assert len(cuda.freed) == 2


def test_pinned_memory_begins_at_a_page(cuda):
    card = cupy_card.CupyCard(0)
    for nbytes in (1, 5000):
        memory = card.pinned(nbytes)
        assert (memory.dtype, memory.shape, memory.ctypes.data % 4096) == (np.uint8, (nbytes,), 0)
        memory[:] = 7


def test_an_event_says_whether_it_was_reached(cuda):
    card = cupy_card.CupyCard(0)
    stream, out, buffer = card.stream(), card.pinned(64), card.empty(100)
    out[:] = 0
    card.copy_out(buffer, 10, out, stream)
    event = stream.record()
    assert not event.done()
    assert not out.any()
    event.wait()
    assert event.done()
    assert (out == 0xCD).all()


LOST = {"no device": 100, "ECC": 214, "illegal address": 700, "launch failure": 719, "unknown": 999}


@pytest.mark.parametrize("status", LOST.values(), ids=LOST)
def test_every_call_says_that_the_device_is_lost(cuda, status):
    card = cupy_card.CupyCard(0)
    stream, buffer, out = card.stream(), card.empty(10), card.pinned(10)
    event = stream.record()
    cuda.status = status
    for call in (
        lambda: card.empty(10),
        lambda: card.pinned(10),
        card.stream,
        lambda: card.copy_out(buffer, 0, out, stream),
        stream.record,
        lambda: stream.wait(event),
        event.done,
        event.wait,
    ):
        with pytest.raises(DeviceLostError, match=f"cuda:0: cudaError {status}"):
            call()


def test_no_memory_is_the_cards_or_the_hosts(cuda):
    card = cupy_card.CupyCard(0)
    cuda.full = True
    with pytest.raises(DeviceMemoryError, match="cuda:0: Out of memory"):
        card.empty(1 << 40)
    cuda.status = 2
    with pytest.raises(DeviceMemoryError, match="cuda:0"):
        card.empty(10)
    with pytest.raises(MemoryError, match="10 bytes of page-locked memory") as raised:
        card.pinned(10)
    assert not isinstance(raised.value, DeviceMemoryError)


def test_another_error_keeps_its_words(cuda):
    card = cupy_card.CupyCard(0)
    cuda.status = 1
    with pytest.raises(Status, match="cudaError 1"):
        card.stream()


def test_the_engine_and_the_kernel_share_a_stream(cuda, monkeypatch):
    monkeypatch.setattr(cupy_card, "PyNvEngine", lambda number, stream: (number, stream))
    opened = device.open_device(device.OPENER, 0)
    assert opened.engine == (0, opened.stream.handle)
    assert opened.card.name == "cuda:0"
    opened.close()


# ---- a caller's own process


@pytest.fixture
def fresh_default():
    for cached in (decode._opened, device.default_device):
        cached.cache_clear()
    yield
    for cached in (decode._opened, device.default_device):
        cached.cache_clear()


def test_open_video_on_a_card(monkeypatch, fresh_default, make):
    """One device a process, and the same pixels."""
    opened = []

    def opens(number):
        opened.append(number)
        return Device(None, FakeEngine(), None)

    monkeypatch.setattr(device, "missing", lambda: None)
    monkeypatch.setattr(cupy_card, "open", opens)
    path = make(Clip(count=30, b_frames=3, gop=12))
    with gpupipe.open_video(path, backend="ffmpeg") as video:
        expected = video.frames(num=9, size=(40, 60)).data
    for _ in range(2):
        with gpupipe.open_video(path, backend="nvdec") as video:
            np.testing.assert_array_equal(video.frames(num=9, size=(40, 60)).data, expected)
            assert video[5].index == 5
    assert opened == [0]


def test_open_video_says_what_is_missing(monkeypatch, fresh_default, tmp_path):
    monkeypatch.setattr(device, "missing", lambda: "no NVIDIA driver here (planted)")
    with pytest.raises(UsageError, match=r"backend 'nvdec': no NVIDIA driver here \(planted\)"):
        gpupipe.open_video(tmp_path / "x.mp4", backend="nvdec")


# ---- a real card


@pytest.fixture
def card():
    try:
        import cupy
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"CuPy does not import: {error}")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    card = cupy_card.CupyCard(0)
    yield card
    card.close()


@pytest.mark.needs_cuda
def test_rows_come_out_of_a_real_card(card):
    import cupy

    batcher = Batcher(card, card.stream(), print)
    size = (160, 256)
    resizer, rows = Resizer(size), DeviceRows(card, batcher, 16, size)
    out = rows.pinned()
    random = np.random.default_rng(2)
    for item in range(20):
        height, width = int(random.integers(20, 600)) * 2, int(random.integers(20, 900)) * 2
        pictures = [Drawn((height, width)) for _ in range(16)]
        truth = np.empty_like(out)
        uploaded = []
        for position, picture in enumerate(pictures):
            resizer.resize(on_host(picture.surface), truth[position])
            uploaded.append(cupy.asarray(picture.memory))
        cupy.cuda.Device(0).synchronize()
        with rows.ticket(out, Stages()) as ticket:
            for position, (picture, memory) in enumerate(zip(pictures, uploaded, strict=True)):
                start = memory.data.ptr
                surface = gpupipe.types.DeviceSurface(
                    picture.surface.format, [start, start + height * width], [width, width], 0, picture
                )
                ticket.put(position, surface, resizer)
            ticket.finish(16)
        np.testing.assert_array_equal(out, truth, err_msg=f"item {item}")
    batcher.close()


@pytest.mark.needs_cuda
def test_a_real_card_says_that_it_has_not_so_much_memory(card):
    with pytest.raises(DeviceMemoryError, match="cuda:0"):
        card.empty(1 << 50)
    buffer = card.empty(1 << 20)  # and goes on
    out, stream = card.pinned(1 << 20), card.stream()
    card.copy_out(buffer, 0, out, stream)
    stream.record().wait()


@pytest.mark.needs_cuda
def test_a_copy_of_a_real_card_waits_for_another_stream(card):
    """Many kernels in one stream, the copy of the last one's row in another, and no waiting but the event's."""
    stream, other, size = card.stream(), card.stream(), (160, 256)
    import cupy

    picture, resizer = Drawn((2160, 3840)), Resizer(size)
    memory = cupy.asarray(picture.memory)
    cupy.cuda.Device(0).synchronize()
    start = memory.data.ptr
    surface = gpupipe.types.DeviceSurface(picture.surface.format, [start, start + 2160 * 3840], [3840, 3840])
    buffer, out = card.empty(160 * 256 * 3), card.pinned(160 * 256 * 3)
    for _ in range(50):
        card.resize([(surface, resizer, Target(buffer, 0))], stream)
    other.wait(stream.record())
    card.copy_out(buffer, 0, out, other)
    other.record().wait()
    truth = np.empty((*size, 3), np.uint8)
    resizer.resize(on_host(picture.surface), truth)
    np.testing.assert_array_equal(out.reshape(truth.shape), truth)
