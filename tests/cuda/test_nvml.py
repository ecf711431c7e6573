"""NVML's counters, over a fake pynvml and, where nvidia-ml-py is installed, over the real one and a fake driver."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import fake_driver
import pytest

from gpupipe.cuda.nvml import GpuSample, Nvml, NvmlError, Sampler, pci_address

NOT_SUPPORTED, NOT_FOUND, LIBRARY_NOT_FOUND, GPU_IS_LOST, UNKNOWN = 3, 6, 12, 15, 999
GIB = 1 << 30


class Fake(ModuleType):
    """pynvml with cards; `broken` maps (function, card) to the code it fails with."""

    class NVMLError(Exception):
        def __init__(self, value):
            self.value = value

        def __str__(self):
            return {GPU_IS_LOST: "GPU is lost"}.get(self.value, f"code {self.value}")

    def __init__(self, cards=2, slices=0):
        super().__init__("pynvml")
        self.cards, self.slices = cards, slices
        self.broken = {}
        self.opened = 0

    def check(self, name, card=None):
        code = self.broken.get((name, card), self.broken.get((None, card)) if card is not None else None)
        if code is not None:
            raise self.NVMLError(code)

    def nvmlInit(self):
        self.check("nvmlInit")
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self):
        self.check("nvmlSystemGetDriverVersion")
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 13010

    def nvmlDeviceGetCount(self):
        return self.cards

    def nvmlDeviceGetHandleByIndex(self, index):
        self.check("nvmlDeviceGetHandleByIndex", index)
        return SimpleNamespace(card=index, slice=None)

    def nvmlDeviceGetMigMode(self, handle):
        self.check("nvmlDeviceGetMigMode", handle.card)
        if not self.slices:
            raise self.NVMLError(NOT_SUPPORTED)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, number):
        if number % 2 or number // 2 >= self.slices:  # a gap behind each
            raise self.NVMLError(NOT_FOUND)
        return SimpleNamespace(card=handle.card, slice=number)

    def nvmlDeviceGetUUID(self, handle):
        self.check("nvmlDeviceGetUUID", handle.card)
        return f"GPU-{handle.card}" if handle.slice is None else f"MIG-{handle.card}{handle.slice}"

    def nvmlDeviceGetName(self, handle):
        return "Card" if handle.slice is None else "Card MIG 1g.10gb"

    def nvmlDeviceGetMemoryInfo(self, handle):
        self.check("nvmlDeviceGetMemoryInfo", handle.card)
        return SimpleNamespace(total=80 * GIB, used=(1 + handle.card) * GIB, free=GIB)

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        assert handle.slice is None
        return (9, 0)

    def nvmlDeviceGetPciInfo(self, handle):
        assert handle.slice is None
        return SimpleNamespace(busId=f"00000000:{58 + handle.card:02X}:00.0")

    def nvmlDeviceGetUtilizationRates(self, handle):
        self.check("nvmlDeviceGetUtilizationRates", handle.card)
        return SimpleNamespace(gpu=10 + handle.card, memory=1)

    def nvmlDeviceGetDecoderUtilization(self, handle):
        self.check("nvmlDeviceGetDecoderUtilization", handle.card)
        return [90 + handle.card, 167000]

    def nvmlDeviceGetJpgUtilization(self, handle):
        self.check("nvmlDeviceGetJpgUtilization", handle.card)
        return [3, 167000]

    def nvmlDeviceGetPowerUsage(self, handle):
        self.check("nvmlDeviceGetPowerUsage", handle.card)
        return 123456


@pytest.fixture
def fake(monkeypatch):
    module = Fake()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    yield module
    assert module.opened == 0, "NVML was not given back"


def test_cards(fake):
    with Nvml() as nvml:
        assert (nvml.driver, nvml.cuda, nvml.slices, nvml.lost) == ("580.95.05", (13, 1), (), ())
        assert [(one.index, one.uuid, one.bus_id) for one in nvml.devices] == [
            (0, "GPU-0", "0000:3a:00.0"),
            (1, "GPU-1", "0000:3b:00.0"),
        ]
        assert nvml.devices[0].memory_bytes == 80 * GIB and nvml.devices[0].compute_capability == (9, 0)


def test_slices_over_gaps(fake):
    fake.cards, fake.slices = 1, 3
    with Nvml() as nvml:
        assert [one.uuid for one in nvml.slices] == ["MIG-00", "MIG-02", "MIG-04"]
        assert {(one.name, one.bus_id) for one in nvml.slices} == {("Card MIG 1g.10gb", "0000:3a:00.0")}
        assert nvml.sample("MIG-02").memory_used_bytes == GIB


def test_samples_of_all_cards(fake):
    sampler = Sampler()
    assert sampler.reason is None
    assert sampler.sample() == [
        GpuSample("GPU-0", 10, 90, 3, 1 * GIB, 123.456),
        GpuSample("GPU-1", 11, 91, 3, 2 * GIB, 123.456),
    ]
    sampler.close()
    assert sampler.sample() == [] and sampler.reason == "closed"
    sampler.close()


def test_samples_of_some_cards_each_once(fake):
    sampler = Sampler(["GPU-1", "GPU-7", "MIG-GPU-1/1/0", "GPU-1"])
    first, unknown, other_name = sampler.sample()
    assert first == GpuSample("GPU-1", 11, 91, 3, 2 * GIB, 123.456)
    assert unknown == GpuSample("GPU-7", lost="GPU-7: NVML knows no such card")
    assert other_name == GpuSample("MIG-GPU-1/1/0")
    sampler.close()


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "sm_percent"),
        ("nvmlDeviceGetDecoderUtilization", "decoder_percent"),
        ("nvmlDeviceGetJpgUtilization", "jpeg_percent"),
        ("nvmlDeviceGetMemoryInfo", "memory_used_bytes"),
        ("nvmlDeviceGetPowerUsage", "power_watts"),
    ],
)
@pytest.mark.parametrize("code", [NOT_SUPPORTED, UNKNOWN])
def test_what_a_card_does_not_tell_is_none(fake, name, field, code):
    sampler = Sampler(["GPU-0"])
    fake.broken[name, 0] = code
    (one,) = sampler.sample()
    assert one == replace(GpuSample("GPU-0", 10, 90, 3, GIB, 123.456), **{field: None})
    sampler.close()


def test_a_function_that_an_older_package_lacks(fake, monkeypatch):
    monkeypatch.delattr(Fake, "nvmlDeviceGetJpgUtilization")
    sampler = Sampler(["GPU-0"])
    assert sampler.sample() == [GpuSample("GPU-0", 10, 90, None, GIB, 123.456)]
    sampler.close()


def test_a_card_that_falls_off_says_so_and_is_not_asked_again(fake):
    sampler = Sampler()
    assert [one.lost for one in sampler.sample()] == [None, None]
    fake.broken[None, 0] = GPU_IS_LOST
    first, second = sampler.sample()
    assert first.sm_percent is None and second.sm_percent == 11
    assert first.lost.startswith("GPU-0 no longer answers (NVML: GPU is lost). Look for its last Xid")
    fake.broken.clear()
    assert sampler.sample()[0] is first
    sampler.close()


def test_a_card_lost_before_the_start_hides_no_other(fake):
    fake.broken["nvmlDeviceGetHandleByIndex", 0] = GPU_IS_LOST
    with Nvml() as nvml:
        assert [one.uuid for one in nvml.devices] == ["GPU-1"]
        (said,) = nvml.lost
        assert said.startswith("GPU 0 does not answer (NVML: GPU is lost).")
        assert nvml.sample("GPU-1").sm_percent == 11


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (LIBRARY_NOT_FOUND, "libnvidia-ml.so.1 is not there: install the NVIDIA driver"),
        (9, "kernel module is not loaded"),
        (18, "restart after the driver's update"),
        (UNKNOWN, "NVML does not start: code 999"),
    ],
)
def test_no_driver(fake, code, words):
    fake.broken["nvmlInit", None] = code
    with pytest.raises(NvmlError, match=words):
        Nvml()
    sampler = Sampler()
    assert words in sampler.reason and sampler.sample() == []
    sampler.close()


def test_a_driver_that_dies_between(fake):
    fake.broken["nvmlSystemGetDriverVersion", None] = UNKNOWN
    assert Sampler().reason == "NVML does not start: code 999"  # and the library was given back: see the fixture


def test_no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in Sampler().reason


@pytest.mark.parametrize("text", ["00000000:3B:00.0", b"00000000:3B:00.0", "0000:3b:00.0"])
def test_pci_address(text):
    assert pci_address(text) == "0000:3b:00.0"
    assert pci_address("0001000A:3B:00.0") == "1000a:3b:00.0"


REAL = """
import dataclasses, json, pynvml
from gpupipe.cuda.nvml import Nvml, Sampler
with Nvml() as nvml:
    print(json.dumps([nvml.driver, nvml.cuda, [dataclasses.asdict(one) for one in nvml.devices], nvml.lost]))
sampler = Sampler()
print(json.dumps([dataclasses.asdict(one) for one in sampler.sample()]))
"""


def real(folder, **words):
    ran = subprocess.run(
        [sys.executable, "-c", REAL],
        env=fake_driver.environment(folder, **words),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_real_package_over_a_fake_driver(tmp_path):
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    fake_driver.build(tmp_path)
    (driver, cuda, cards, lost), samples = real(tmp_path)
    assert (driver, cuda, lost) == ("580.95.05", [13, 0], [])
    assert [(one["uuid"], one["bus_id"]) for one in cards] == [
        (fake_driver.UUIDS[0], "0000:3a:00.0"),
        (fake_driver.UUIDS[1], "0000:3b:00.0"),
    ]
    assert [(one["sm_percent"], one["decoder_percent"], one["jpeg_percent"]) for one in samples] == [
        (10, 90, None),  # this driver has no function for JPEG
        (11, 91, None),
    ]
    (_, _, cards, lost), samples = real(tmp_path, FAKE_LOST="0")
    assert [one["uuid"] for one in cards] == [fake_driver.UUIDS[1]] == [one["uuid"] for one in samples]
    assert "GPU 0 does not answer (NVML: GPU is lost)" in lost[0]
