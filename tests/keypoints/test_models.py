"""Network files: wheels and folders, whole, damaged, wrong and absent; the command that gets them."""

import hashlib
import sys
import zipfile

import pytest

from gpupipe.cli.main import main
from gpupipe.errors import MissingInputError, UsageError
from gpupipe.ops.keypoints import models, original

FILES = {"one": ("first/one.tflite", b"first network" * 50), "two": ("second/two.tflite", b"second network" * 70)}


@pytest.fixture(autouse=True)
def small_table(monkeypatch, tmp_path):
    """Two small networks for the six large ones, and a cache folder that is empty."""
    table = [models.ModelFile(name, path, len(data), hashlib.sha256(data).hexdigest()) for name, (path, data) in rows()]
    monkeypatch.setattr(models, "MODELS", tuple(table))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [])  # no mediapipe beside gpupipe


def rows():
    return FILES.items()


def expected():
    return {name: data for name, (_, data) in rows()}


def write_wheel(path, change=None, leave_out=(), method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as wheel:
        wheel.writestr("mediapipe/__init__.py", "raise SystemExit('imported')")
        for name, (place, data) in rows():
            if name not in leave_out:
                wheel.writestr(f"mediapipe/modules/{place}", (change or {}).get(name, data))
    return path


def write_folder(folder, below):
    for _, (place, data) in rows():
        path = folder / below / place
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return folder


def test_wheel(tmp_path):
    assert models.read_models(write_wheel(tmp_path / "mediapipe-0.10.21-any.whl")) == expected()


@pytest.mark.parametrize("below", ["", "modules", "mediapipe/modules"])
def test_folder(tmp_path, below):
    assert models.read_models(write_folder(tmp_path / "here", below)) == expected()


def test_flat_folder(tmp_path):
    for place, data in FILES.values():
        (tmp_path / place.rpartition("/")[2]).write_bytes(data)
    assert models.read_models(tmp_path) == expected()


def test_installed_package_is_found_and_not_run(tmp_path, monkeypatch):
    write_folder(tmp_path / "site", "mediapipe/modules")
    (tmp_path / "site/mediapipe/__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    assert models.read_models() == expected()


def test_nothing_there_names_the_command():
    with pytest.raises(MissingInputError, match=r"Run: gpupipe models fetch mediapipe\n.*--from WHEEL_OR_FOLDER"):
        models.read_models()


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (lambda path: write_wheel(path, {"two": b"other network" * 70}), UsageError, "910 bytes, expected 980"),
        (lambda path: write_wheel(path, {"two": bytes(980)}), UsageError, "SHA-256 .*expected"),
        (lambda path: write_wheel(path, {"two": bytes(1 << 20)}), UsageError, "more than 980 bytes"),
        (
            lambda path: write_wheel(path, leave_out=["two"]),
            MissingInputError,
            "no mediapipe/modules/second/two.tflite",
        ),
        (lambda path: path.write_bytes(b"PK nothing"), UsageError, "no wheel, or a damaged one"),
        (lambda path: None, MissingInputError, "there is no such wheel or folder"),
        (lambda path: path.mkdir(), MissingInputError, "no mediapipe/modules/first/one.tflite"),
    ],
    ids=["shorter", "other bytes", "longer", "without one", "no zip", "absent", "empty folder"],
)
def test_wrong_sources(tmp_path, made, error, said):
    path = tmp_path / "given"
    made(path)
    with pytest.raises(error, match=said):
        models.fetch(path)
    assert not models.cache_folder().exists()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_damaged_wheels_are_named(tmp_path, share):
    path = write_wheel(tmp_path / "whole.whl")
    data = bytearray(path.read_bytes())
    place = data.find(b"second/two.tflite") + 17 + int(share * 20)  # inside the packed bytes
    data[place : place + 4] = b"\xff\x00\xff\x00"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"whole\.whl: (no wheel, or a damaged one|second/two.tflite)"):
        models.read_models(path)


def test_fetch_is_whole_and_mends(tmp_path, capsys):
    wheel = write_wheel(tmp_path / "given.whl")
    assert main(["models", "--list"]) == 1
    assert capsys.readouterr().out.count("absent") == 2
    assert main(["models", "fetch", "mediapipe", "--from", str(wheel)]) == 0
    assert main(["models", "--list"]) == 0
    wheel.unlink()
    assert models.read_models() == expected()
    (models.cache_folder() / "first/one.tflite").write_bytes(b"damage")
    assert [state for _, state in models.held()] == ["damaged", "there"]
    with pytest.raises(UsageError, match="6 bytes, expected 650"):
        models.read_models()
    models.fetch(write_wheel(tmp_path / "again.whl"))
    assert models.read_models() == expected()
    assert list(models.cache_folder().rglob("*.partial")) == []


def test_a_download_that_fails_says_what_pip_said(monkeypatch, capsys):
    monkeypatch.setattr(models, "VERSION", "0.0.0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert main(["models", "fetch", "mediapipe"]) == 2
    said = capsys.readouterr().err
    assert "mediapipe==0.0.0" in said
    assert "--from WHEEL_OR_FOLDER" in said


def test_environment_counts_only_when_complete(tmp_path):
    folder = original.environment_folder()
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").touch()
    with pytest.raises(MissingInputError, match="fetch mediapipe --environment"):
        original.original_python()
    (folder / "complete").touch()
    assert original.original_python() == folder / "bin/python"
