"""Which cards there are, why none is, and who asked for which; on machines with a fake driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import fake_driver
import pytest

from gpupipe.cuda import devices
from gpupipe.cuda.devices import NO_DRIVER, Gpu, near_cores, select
from gpupipe.cuda.probe import driver_version
from gpupipe.errors import UsageError

UUIDS = fake_driver.UUIDS
MIGS = tuple(uuid.replace("GPU", "MIG") for uuid in UUIDS)


BARE = pytest.mark.skipif(driver_version() is not None, reason="a real driver's libraries are found behind the fakes")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return fake_driver.build(tmp_path_factory.mktemp("driver"))


def python(code, environment):
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def missing(folder, packages=True, **words):
    code = "import json; from gpupipe.cuda.devices import missing; print(json.dumps(missing()))"
    return python(code, fake_driver.environment(folder, packages, **words))


def usable(folder, **words):
    code = (
        "import dataclasses, json; from gpupipe.cuda.devices import usable_devices\n"
        "print(json.dumps([dataclasses.asdict(one) for one in usable_devices()]))"
    )
    return python(code, fake_driver.environment(folder, **words))


# ---- why none


def test_nothing_is_missing(driver):
    assert missing(driver) is None


@BARE
def test_no_driver_costs_nothing(tmp_path):
    code = (
        "import json, sys, time; from gpupipe.cuda.devices import missing, usable_devices; t = time.perf_counter()\n"
        "said = missing(); seconds = time.perf_counter() - t\n"
        "print(json.dumps([said, seconds, 'cupy' in sys.modules, usable_devices()]))"
    )
    said, seconds, loaded, found = python(code, fake_driver.environment(tmp_path))
    assert (said, loaded, found) == (NO_DRIVER, False, [])
    assert seconds < 0.05  # no process was started


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"FAKE_GPUS": "0"}, "the NVIDIA driver sees no card: see nvidia-smi -L"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' leaves no card"),
        ({"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES='7' leaves no card: name one that nvidia-smi -L lists"),
        ({"FAKE_CUINIT": "803"}, "driver does not start (cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
        ({"FAKE_CUINIT": "999"}, "driver does not start (cuInit: CUDA error 999)"),
        ({"FAKE_CRASH": "1"}, "driver does not start (the process that asked was ended by SIGSEGV)"),
        ({"FAKE_CODEC": "broken"}, "PyNvVideoCodec cannot be used (RuntimeError: Failed to load NVENC library)"),
    ],
)
def test_what_is_missing(driver, words, said):
    assert said in missing(driver, **words)


@pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is installed")
def test_packages_that_are_missing(driver):
    assert missing(driver, packages=False) == "CuPy is not installed: pip install 'gpupipe[cu13]'"
    said = missing(driver, packages=False, FAKE_CUDA="12080")
    assert said == "CuPy is not installed: pip install 'gpupipe[cu12]'"


def test_cupy_without_its_compiler(driver, tmp_path):
    (tmp_path / "cupy" / "cuda").mkdir(parents=True)
    (tmp_path / "cupy" / "__init__.py").write_text("from cupy import cuda")
    (tmp_path / "cupy" / "cuda" / "__init__.py").write_text("")
    (tmp_path / "cupy" / "cuda" / "nvrtc.py").write_text("def getVersion(): raise RuntimeError('no libnvrtc.so.13')")
    environment = fake_driver.environment(driver)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    code = "import json; from gpupipe.cuda.devices import missing; print(json.dumps(missing()))"
    assert python(code, environment) == (
        "cupy cannot be used (RuntimeError: no libnvrtc.so.13): pip install 'gpupipe[cu13]'"
    )


def test_cupy_of_a_newer_cuda_than_the_driver(driver, tmp_path):
    information = tmp_path / "cupy_cuda13x-14.2.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: cupy-cuda13x\nVersion: 14.2.0\n")
    environment = fake_driver.environment(driver, FAKE_CUDA="12080")
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    code = "import json; from gpupipe.cuda.devices import missing; print(json.dumps(missing()))"
    assert (
        python(code, environment) == "CuPy is built for CUDA 13, and the driver takes 12.8: pip install 'gpupipe[cu12]'"
    )


@BARE
@pytest.mark.parametrize("library", ["libnvcuvid.so.1", "libnvidia-encode.so.1"])
def test_a_container_without_the_video_capability(tmp_path, library):
    folder = fake_driver.build(tmp_path, leave_out=(library,))
    assert library in missing(folder) and "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in missing(folder)
    said = missing(folder, NVIDIA_DRIVER_CAPABILITIES="compute,utility")
    assert said.startswith("NVIDIA_DRIVER_CAPABILITIES=compute,utility leaves out the driver's video libraries")
    assert library in missing(folder, NVIDIA_DRIVER_CAPABILITIES="all")


def test_a_driver_that_hangs_is_given_up(driver, monkeypatch):
    from gpupipe.cuda import probe

    for name, value in fake_driver.environment(driver, FAKE_HANG="1").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(probe.ProbeError, match="no answer within 1 s"):
        probe.ask("driver", timeout=1)


def test_a_library_that_prints_while_it_loads(driver, monkeypatch):
    from gpupipe.cuda import probe

    for name, value in fake_driver.environment(driver, FAKE_CODEC="loud").items():
        monkeypatch.setenv(name, value)
    assert probe.ask("package", "PyNvVideoCodec") == {"installed": True, "note": None, "version": "2.2.4"}


# ---- which ones


def test_all_cards(driver):
    first, second = usable(driver)
    assert first == {
        "index": 0,
        "uuid": UUIDS[0],
        "name": "Fake H100 80GB",
        "memory_bytes": 80 << 30,
        "compute_capability": [9, 0],
        "bus_id": "0000:3a:00.0",
    }
    assert (second["index"], second["uuid"], second["bus_id"]) == (1, UUIDS[1], "0000:3b:00.0")


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        ("1", [1]),
        ("2,0", [2, 0]),
        (UUIDS[2], [2]),
        (f"{UUIDS[1]},0", [1, 0]),
        ("0,9,1", [0]),  # CUDA's own rule: nothing behind an unknown name
        ("", []),
        ("-1", []),
    ],
)
def test_visible_devices(driver, visible, numbers):
    found = usable(driver, FAKE_GPUS="3", CUDA_VISIBLE_DEVICES=visible)
    assert [(one["index"], one["uuid"]) for one in found] == [(at, UUIDS[n]) for at, n in enumerate(numbers)]


def test_mig_names_stay_as_they_are(driver):
    found = usable(driver, CUDA_VISIBLE_DEVICES=f"MIG-{UUIDS[0]}/1/0, {MIGS[1]}")
    assert [(one["index"], one["uuid"]) for one in found] == [(0, f"MIG-{UUIDS[0]}/1/0"), (1, MIGS[1])]


def test_slices_without_visible_devices(driver):
    found = usable(driver, FAKE_NAME="Fake H100 80GB MIG 1g.10gb", FAKE_GPUS="1")
    assert [one["uuid"] for one in found] == [MIGS[0]]  # NVML tells of no others


# ---- near cores


def card(index, bus_id="0000:3a:00.0"):
    return Gpu(index, UUIDS[index], "Fake", 80 << 30, (9, 0), bus_id)


def near(tmp_path, monkeypatch, text, allowed):
    folder = tmp_path / "sys/bus/pci/devices/0000:3a:00.0"
    folder.mkdir(parents=True)
    (folder / "local_cpulist").write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(allowed))
    return near_cores(card(0), tmp_path)


@pytest.mark.parametrize(
    ("text", "allowed", "expected"),
    [
        ("0-3,8-11\n", range(16), [0, 1, 2, 3, 8, 9, 10, 11]),
        ("0-3,8-11\n", [2, 3, 4, 9], [2, 3, 9]),
        ("5\n", range(8), [5]),
        ("0-3\n", [4, 5], [4, 5]),  # a cpuset on the other socket
        ("\n", [0, 1], [0, 1]),
    ],
)
def test_near_cores(tmp_path, monkeypatch, text, allowed, expected):
    assert near_cores is devices.near_cores
    assert near(tmp_path, monkeypatch, text, allowed) == expected


def test_near_cores_where_nothing_tells(tmp_path):
    mine = sorted(os.sched_getaffinity(0))
    assert near_cores(card(0), tmp_path) == near_cores(card(0, None), tmp_path) == mine


def test_cards_on_the_bus(tmp_path):
    for name, vendor, kind in (
        ("0000:3b:00.0", "0x10de", "0x030200"),
        ("0000:3a:00.0", "0x10de", "0x030000"),
        ("0000:3a:00.1", "0x10de", "0x040300"),  # the sound of its HDMI plug
        ("0000:01:00.0", "0x8086", "0x030000"),
    ):
        folder = tmp_path / "sys/bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "class").write_text(kind + "\n")
    (tmp_path / "sys/bus/pci/devices/0000:02:00.0").mkdir()
    assert devices.cards_on_the_bus(tmp_path) == ["0000:3a:00.0", "0000:3b:00.0"]
    assert devices.cards_on_the_bus(tmp_path / "nothing") == []


# ---- who asked for which

CARDS = [card(0), card(1), card(2)]


@pytest.mark.parametrize(
    ("gpus", "ids", "expected"),
    [
        (None, None, [0, 1, 2]),
        ("all", None, [0, 1, 2]),
        (2, None, [0, 1]),
        (None, ["0", "0", "1"], [0, 0, 1]),
        (None, ["2,0", "2"], [2, 0, 2]),
        (None, [UUIDS[1], "0"], [1, 0]),
        (None, ["gpu-1", "GPU-2222"], [1, 2]),
    ],
)
def test_select(gpus, ids, expected):
    assert [gpu.index for gpu in select(gpus, ids, CARDS)] == expected


@pytest.mark.parametrize(
    ("gpus", "ids", "message"),
    [
        (4, None, r"--gpus 4: visible here: 0 \(Fake, GPU-0000.*1 \(Fake, GPU-1111"),
        (0, None, "--gpus 0: expected all, or a number from 1"),
        (-1, None, "--gpus -1: expected"),
        ("many", None, "--gpus many: expected all"),
        (None, ["3"], "--gpu-ids 3: visible here: 0 "),
        (None, ["0", "GPU-9"], "--gpu-ids GPU-9: visible here"),
        (None, ["GPU-"], "--gpu-ids GPU-: GPU-0.* begin so; write more of it"),
        (None, ["-1"], "--gpu-ids -1: visible here"),
        (None, [" "], "--gpu-ids: expected at least one"),
        (1, ["0"], "--gpus 1 and --gpu-ids 0: choose one"),
    ],
)
def test_select_what_is_not_there(gpus, ids, message):
    with pytest.raises(UsageError, match=message):
        select(gpus, ids, CARDS)


@pytest.mark.parametrize(("gpus", "ids"), [("all", None), (None, None), (1, None), (None, ["0"])])
def test_select_of_nothing(gpus, ids):
    with pytest.raises(UsageError, match="no GPU is visible here; gpupipe doctor says why"):
        select(gpus, ids, [])
