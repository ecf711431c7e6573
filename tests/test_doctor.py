"""gpupipe doctor: on this machine, and on machines with a fake driver."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import fake_driver
import pytest

from gpupipe import doctor
from gpupipe.cli.main import main
from gpupipe.cuda.probe import driver_version
from gpupipe.errors import UsageError
from gpupipe.ops.keypoints import models, original
from gpupipe.reports.doctor import doctor_text

BARE = pytest.mark.skipif(driver_version() is not None, reason="a real driver is here")
NO_TORCH = pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return fake_driver.build(tmp_path_factory.mktemp("driver"))


def run(folder, *words, packages=True, **variables):
    return subprocess.run(
        [sys.executable, "-m", "gpupipe.cli.main", "doctor", *words],
        env=fake_driver.environment(folder, packages, **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def told(folder, *words, **variables):
    return json.loads(run(folder, "--json", *words, **variables).stdout)


# ---- on this machine


@BARE
@NO_TORCH
def test_without_a_gpu(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^driver +none$", said, re.MULTILINE)
    assert re.search(r"^av +18\.\S+ .*ok, FFmpeg \d", said, re.MULTILINE)
    assert re.search(r"^torch +- .*not installed: pip install 'torch>=2.14'$", said, re.MULTILINE)
    assert re.search(r"^ffmpeg +yes$", said, re.MULTILINE)
    assert re.search(r"^cuda +missing +no NVIDIA driver: ", said, re.MULTILINE)
    assert re.search(r"^nvdec +missing +as cuda$", said, re.MULTILINE)
    assert "\x1b" not in said and not re.search(r" $", said, re.MULTILINE)


@BARE
def test_keypoints_without_networks(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not Path(path, "mediapipe").is_dir()])
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ai-edge-litert +2\.\S+ +keypoints on CPU cores +ok$", said, re.MULTILINE)
    assert re.search(r"^networks +- +keypoints +not there: gpupipe models fetch mediapipe$", said, re.MULTILINE)
    step = "not installed: gpupipe models fetch mediapipe --environment"
    assert re.search(rf"^mediapipe +- +the original +{step}$", said, re.MULTILINE)
    assert re.search(r"^keypoints +missing +networks: not there: gpupipe models fetch mediapipe$", said, re.MULTILINE)
    assert main(["doctor", "--require", "keypoints", "mediapipe"]) == 1


@BARE
def test_keypoints_with_networks(monkeypatch, tmp_path):
    data = b"a network"
    network = models.ModelFile("one", "one/one.tflite", len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(models, "MODELS", (network,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = models.cache_folder() / network.path
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    assert doctor.examine(["keypoints"]).missing == {}
    path.write_bytes(data[:-1])
    reason = doctor.examine(["keypoints"]).missing["keypoints"]
    assert (
        f"networks: {models.cache_folder()}: one/one.tflite: 8 bytes, expected 9. Get it anew: {models.FETCH}" == reason
    )
    path.unlink()
    path.mkdir()
    assert doctor.examine(["keypoints"]).missing["keypoints"] == f"networks: not there: {models.FETCH}"


def test_keypoints_run_by_litert_or_on_a_card(driver, monkeypatch, tmp_path):
    (tmp_path / "ai_edge_litert.py").touch()  # no package: as if it were not installed
    torch = "from types import SimpleNamespace as N\nversion = N(cuda={!r})\ncuda = N(device_count=lambda: 2)\n"
    site = fake_driver.environment(driver)["PYTHONPATH"]
    words = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": f"{tmp_path}{os.pathsep}{site}"}
    networks = "networks: not there: gpupipe models fetch mediapipe"
    litert = "ai-edge-litert: not installed: pip install 'gpupipe[keypoints]'"
    for cuda, missing in (("13.0", networks), (None, f"{litert}; {networks}")):
        (tmp_path / "torch.py").write_text(torch.format(cuda))
        assert told(driver, "--require", "keypoints", **words)["abilities"]["keypoints"] == missing


def test_mediapipe_is_started_in_its_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = original.environment_folder()
    (folder / "bin").mkdir(parents=True)
    (folder / "complete").touch()
    python = folder / "bin" / "python"
    greets = f"import socket\ns = socket.socket(fileno=int({{}}))\ns.sendall(b'{models.VERSION}'.ljust(16, b'\\0'))\n"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{greets.format("$3")}s.recv(1)"\n')
    python.chmod(0o755)
    found = doctor.examine(["mediapipe"])
    assert found.missing == {}
    assert (found.package("mediapipe").version, found.package("mediapipe").note) == (models.VERSION, f"in {folder}")
    python.write_text("#!/bin/sh\necho 'no libGL' >&2\nexit 1\n")
    reason = doctor.examine(["mediapipe"]).missing["mediapipe"]
    assert reason.startswith(f"mediapipe: {python}: MediaPipe does not start: it ended with exit status 1 (no libGL).")
    assert reason.endswith(f"remove {folder} and run: {models.FETCH} --environment")


@BARE
def test_a_card_without_a_driver(monkeypatch):
    monkeypatch.setattr(doctor.devices, "cards_on_the_bus", lambda: ["0000:3b:00.0"])
    (advice,) = doctor.examine(["nvdec"]).advice
    assert "there is an NVIDIA card (0000:3b:00.0): install its driver" in advice
    monkeypatch.setattr(doctor.devices, "cards_on_the_bus", lambda: [])
    assert doctor.examine(["nvdec"]).advice == ("no GPU is used: clips are decoded on CPU cores",)


@BARE
def test_required_and_missing(capsys):
    assert main(["doctor", "--require", "nvdec", "ffmpeg"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("nvdec   missing  no NVIDIA driver: libcuda.so.1 cannot be loaded.")
    assert said.endswith("ffmpeg  yes\n")
    assert main(["doctor", "--require", "ffmpeg"]) == 0
    assert main(["doctor", "--require", "ffmpeg,cuda", "--json"]) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert {name: reason is None for name, reason in json.loads(said)["abilities"].items()} == {
        "ffmpeg": True,
        "cuda": False,
    }


def test_required_is_not_known(capsys):
    assert main(["doctor", "--require", "warp"]) == 2
    assert "--require warp: expected one of ffmpeg, cuda, nvdec, nvjpg, dali, nvml, torch" in capsys.readouterr().err
    with pytest.raises(UsageError):
        doctor.examine(["nvdec", "warp"])


def test_help_names_all_that_can_be_required(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert [name for name in doctor.ABILITIES if name not in said] == []


# ---- with a card


def test_with_cards(driver):
    ran = run(driver)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert any(line.startswith("driver") and line.endswith("takes CUDA up to 13.0") for line in lines)
    cards = [line.split() for line in lines if "Fake H100" in line]
    cpus = {line[-2] for line in cards}
    assert [[*line[:4], *line[-5:-2], line[-1]] for line in cards] == [
        [str(n), "Fake", "H100", "80GB", "9.0", "7", "7", fake_driver.UUIDS[n]] for n in (0, 1)
    ]
    assert len(cpus) == 1  # no such PCI address here: all CPUs
    at = lines.index("GPU 0, 1 decodes (largest picture, height x width):")
    assert lines[at + 1].split() == ["8", "bit", "10", "bit", "12", "bit"]
    assert [line.split() for line in lines[at + 2 : at + 8]] == [
        ["h264", "4:2:0", "4096x4096", "-", "-"],
        ["hevc", "4:2:0", "8192x8192", "8192x8192", "8192x8192"],
        ["hevc", "4:4:4", "8192x8192", "8192x8192", "8192x8192"],
        ["vp8", "4:2:0", "4096x4096", "-", "-"],
        ["vp9", "4:2:0", "8192x8192", "8192x8192", "8192x8192"],
        ["av1", "-", "-", "-"],
    ]
    yes = {line.split()[0] for line in lines if line.endswith(" yes")}
    assert yes >= {"ffmpeg", "cuda", "nvdec", "nvjpg"}


def test_json_tells_the_same(driver):
    found = told(driver)
    assert found["driver"]["cuda"] == "13.0"
    assert [one["gpu"]["uuid"] for one in found["devices"]] == list(fake_driver.UUIDS[:2])
    assert {one["jpeg_engines"] for one in found["devices"]} == {7}
    kinds = found["devices"][0]["kinds"]
    assert {"codec": "hevc", "chroma": "444", "depth": 12, "engines": 7, "max_height": 8192, "max_width": 8192} in kinds
    assert len(kinds) == 1 + 6 + 1 + 3
    assert {one["module"]: one["version"] for one in found["packages"]}["PyNvVideoCodec"] == "2.2.4"
    assert found["abilities"]["nvdec"] is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FAKE_CODEC": "broken"}, "PyNvVideoCodec: does not work here (RuntimeError: Failed to load NVENC library)"),
        ({"FAKE_CODEC": "none"}, "no card here has a video decoder (NVDEC): use --backend ffmpeg"),
        ({"FAKE_CODEC": "deaf"}, "does not say what the card decodes: RuntimeError: CUDA_ERROR_OUT_OF"),
        ({"FAKE_CRASH": "1"}, "was ended by SIGSEGV"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' leaves no card"),
    ],
    ids=str,
)
def test_nvdec_is_missing(driver, variables, words):
    ran = run(driver, "--require", "nvdec", **variables)
    assert ran.returncode == 1
    assert words in " ".join(ran.stdout.split())


def test_a_report_is_no_failure(driver):
    assert run(driver, FAKE_CRASH="1").returncode == 0


def test_nvdec_is_there(driver):
    ran = run(driver, "--require", "nvdec")
    assert (ran.returncode, ran.stdout) == (0, "nvdec  yes\n")


def test_only_what_is_required_is_looked_at(driver):
    found = told(driver, "--require", "cuda")
    assert [one["module"] for one in found["packages"]] == ["cupy"]
    assert [one["kinds"] for one in found["devices"]] == [[], []]


@pytest.mark.skipif(find_spec("nvidia") is not None, reason="CUDA packages are installed")
def test_what_to_install_follows_the_driver(driver):
    found = told(driver, packages=False, FAKE_CUDA="12080")
    assert found["abilities"]["cuda"] == "cupy: not installed: pip install 'gpupipe[cu12]'"
    assert "pip install 'gpupipe[cu12]' brings what the driver (CUDA 12.8) can run" in found["advice"]
    said = run(driver, packages=False).stdout
    assert "pip install 'gpupipe[cu13]'" in said  # square brackets are no markup


@BARE
def test_without_the_video_capability(tmp_path):
    folder = fake_driver.build(tmp_path, leave_out=("libnvcuvid.so.1",))
    found = told(folder, NVIDIA_DRIVER_CAPABILITIES="compute,utility")
    assert found["abilities"]["cuda"] is None
    assert found["abilities"]["nvdec"].startswith("NVIDIA_DRIVER_CAPABILITIES=compute,utility leaves out")
    assert found["abilities"]["nvdec"] in found["advice"]


def test_with_nvml(driver):
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    found = told(driver, FAKE_LOST="1")
    assert found["driver"]["version"] == "580.95.05" and found["abilities"]["nvml"] is None
    assert found["driver"]["lost"][0].startswith("GPU 1 does not answer (NVML: GPU is lost)")
    assert found["driver"]["lost"][0] in found["advice"]
    assert "libnvidia-ml.so.1 is not there" in told(driver, FAKE_NVML="12")["abilities"]["nvml"]


def test_cards_that_differ_have_tables_of_their_own(driver, monkeypatch):
    for name, value in fake_driver.environment(driver).items():
        monkeypatch.setenv(name, value)
    kind = doctor.Kind("av1", "420", 8, 3, 8192, 8192)
    cards = []
    for index, name in enumerate(("Old", "New", "Old")):
        gpu = doctor.Gpu(index, f"GPU-{index}", name, None, None, None)
        cards.append(doctor.Device(gpu, (0, 1, 2, 5), (kind,) if name == "New" else (), None, None, "no libnvjpeg"))
    found = replace(doctor.examine(["ffmpeg"]), devices=tuple(cards))
    said = doctor_text(found)
    assert "GPU 0, 2 decodes (" in said and "GPU 1 decodes (" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["0", "Old", "unknown", "unknown", "0", "unknown", "0-2,5", "GPU-0"] in rows
    assert ["1", "New", "unknown", "unknown", "3", "unknown", "0-2,5", "GPU-1"] in rows


# ---- where it is shown


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_cut_off(driver, monkeypatch, width):
    for name, value in fake_driver.environment(driver).items():
        monkeypatch.setenv(name, value)
    gpu = doctor.Gpu(0, fake_driver.UUIDS[1], "NVIDIA H100 80GB HBM3", 80 << 30, (9, 0), None)
    card = doctor.Device(gpu, tuple(range(8)), (), None, 7, None)
    found = replace(doctor.examine(["nvdec"]), devices=(card,))
    said = doctor_text(found, width)
    assert "\u2026" not in said and max(map(len, said.splitlines())) <= max(90, width)
    assert fake_driver.UUIDS[1] in "".join(said.split())


def test_colours_on_a_terminal_alone(driver):
    ours, theirs = pty.openpty()
    environment = fake_driver.environment(driver, TERM="xterm-256color", COLUMNS="80")
    command = [sys.executable, "-m", "gpupipe.cli.main", "doctor", "--require", "nvdec", "ffmpeg"]
    with subprocess.Popen(command, env=environment, stdout=theirs) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError as error:  # how a terminal says that nobody writes any more
                assert error.errno == errno.EIO
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert child.returncode == 0
    assert shown.count(b"\x1b[32myes") == 2
    assert b"\x1b" not in run(driver, "--require", "nvdec", "ffmpeg").stdout.encode()
