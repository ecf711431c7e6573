"""The package from Python: cheap to import, and the same output as the command's."""

import ast
import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
import typing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from synth import Clip, encode, read_number

import gpupipe
from gpupipe import api_clips, calls
from gpupipe.cli.main import _parser, main
from gpupipe.settings import Run

ROOT = Path(gpupipe.__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three clips, one of them absent."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "clips").mkdir()
    pairs = []
    for number in range(3):
        name = f"v{number}_0_1.mp4"
        pairs.append({"vid": f"v{number}", "clip_path": name, "transcript": f"a cow number {number}"})
        if number != 1:
            encode(folder / "clips" / name, Clip(count=12 + number, size=(48, 64), first=10 * number))
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


def make(data, out, **options):
    options = {"clips_dir": data / "clips", "size": (48, 64), "num_frames": 4, "num_workers": 1, **options}
    return gpupipe.clips(data / "pairs.json", out, **options)


def command(data, out, *words):
    inputs = ["--pairs-json", data / "pairs.json", "--clips-dir", data / "clips", "--output-dir", out]
    options = ["--frame-height", 48, "--frame-width", 64, "--num-frames", 4, "--num-workers", 1, "--quiet"]
    return main(["clips", *map(str, [*inputs, *options, *words])])


def tree(out):
    """Hash of every file but the bookkeeping."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".gpupipe" not in path.relative_to(out).parts
    }


def python(*words, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, check=True, capture_output=True, text=True, **options
    )


# ---- the package


def test_every_public_name_is_there_and_listed():
    assert gpupipe.__all__ == sorted(gpupipe.__all__) == dir(gpupipe)
    for name in gpupipe.__all__:
        assert getattr(gpupipe, name) is not None
    assert gpupipe.clips is api_clips.clips and gpupipe.UsageError.__module__ == "gpupipe.errors"
    everything = {}
    exec("from gpupipe import *", everything)
    assert set(gpupipe.__all__) <= everything.keys()
    with pytest.raises(AttributeError, match="module 'gpupipe' has no attribute 'nothing'"):
        gpupipe.nothing  # noqa: B018


def test_editors_see_the_names_that_are_loaded_late():
    source = ast.parse(Path(gpupipe.__file__).read_text())
    branch = next(node for node in source.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module.removeprefix("gpupipe.")
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.keys() | {"__version__"} == set(gpupipe.__all__)
    assert {name: home for name, home in seen.items() if home != "errors"} == gpupipe._MODULES


def test_import_loads_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import gpupipe; new = set(sys.modules) - before; print(sorted("
        "name for name in new if name.split('.')[0] not in sys.stdlib_module_names and name != 'gpupipe'))"
    )
    assert python("-c", code).stdout.strip() == "[]"


def test_errors_and_facts_load_without_numpy():
    code = "import sys, gpupipe; gpupipe.UsageError, gpupipe.StreamInfo, gpupipe.Summary; print('numpy' in sys.modules)"
    assert python("-c", code).stdout.strip() == "False"


def test_import_is_quick():
    code = "import time; t = time.perf_counter(); import gpupipe; print(time.perf_counter() - t)"
    assert min(float(python("-c", code).stdout) for _ in range(3)) < 0.05


# ---- what all jobs share


@pytest.mark.parametrize("function", [gpupipe.clips, gpupipe.keypoints], ids=lambda function: function.__name__)
def test_both_kinds_of_call_take_the_same_parameters(function):
    """What editors and type checkers are told of a job's function is written by hand."""
    whole = {name: one.annotation for name, one in inspect.signature(function).parameters.items() if name != "dry_run"}
    shared = {name: kind.__forward_arg__ for name, kind in calls.RunParameters.__annotations__.items()}
    for told, kind in zip(map(inspect.signature, typing.get_overloads(function)), ("Summary", "Forecast"), strict=True):
        own = {name: one.annotation for name, one in told.parameters.items()}
        assert (told.return_annotation, own.pop("run")) == (kind, "Unpack[RunParameters]")
        assert own.pop("dry_run") == {"Summary": "Literal[False]", "Forecast": "Literal[True]"}[kind]
        assert own.keys() & shared.keys() == set() and {**own, **shared} == whole


@pytest.mark.parametrize("how", ["function", "command"])
def test_what_is_asked_for_reaches_the_run(data, tmp_path, monkeypatch, how):
    asked = {
        "num_workers": 3, "gpus": "all", "gpu_ids": [0, "GPU-1"], "num_workers_per_gpu": 2, "audit": 0.5, "shard": 1,
        "total_shards": 4, "overwrite": True, "fail_fast": True, "continue_on_error": True, "max_failure_rate": 0.25,
        "item_timeout": 7.5, "memory_per_worker": 1 << 30, "fingerprint": "content",
        "checkpoint_file": tmp_path / "checkpoint.json",
    }  # fmt: skip
    expected = {name.replace("num_workers", "workers"): value for name, value in asked.items()}
    expected = Run(output=tmp_path / "out", **{**expected, "gpu_ids": ("0", "GPU-1")})
    assert not [field.name for field in fields(Run) if getattr(expected, field.name) == field.default]
    runs = []

    def look(job, run, notices=()):
        runs.append(run)
        raise gpupipe.UsageError("seen")

    monkeypatch.setattr("gpupipe.calls.forecast_of", look)
    monkeypatch.setattr("gpupipe.cli.run.forecast_of", look)
    if how == "function":
        with pytest.raises(gpupipe.UsageError, match="seen"):
            make(data, tmp_path / "out", **asked, dry_run=True)
    else:
        words = []
        for name, value in asked.items():
            values = [] if value is True else [",".join(map(str, value))] if isinstance(value, list) else [value]
            words += ["--" + name.replace("_", "-"), *values]
        assert command(data, tmp_path / "out", *words, "--dry-run") == 2
    assert runs == [expected]


# ---- clips


@pytest.mark.parametrize("format", ["samples", "npy", "webdataset"])
def test_same_output_as_the_command(data, tmp_path, format):
    summary = make(data, tmp_path / "call", format=format)
    assert command(data, tmp_path / "command", "--format", format) == summary.exit_code == 3
    assert tree(tmp_path / "call") == tree(tmp_path / "command") != {}


def test_same_defaults_as_the_command():
    _, jobs = _parser()
    flags = {action.dest: action.default for action in jobs["clips",]._actions}
    parameters = inspect.signature(gpupipe.clips).parameters
    renamed = {"size": (flags["frame_height"], flags["frame_width"]), "progress": False}
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            assert parameter.default == renamed.get(name, flags.get(name)), name
    # Flags without a parameter: those that name clusters, and what only a shell needs.
    assert flags.keys() - parameters.keys() == {
        "help", "frame_height", "frame_width", "resume", "num_nodes", "batch_size", "quiet", "json"
    }  # fmt: skip


def test_summary_frames_and_status(data, tmp_path):
    summary = make(data, tmp_path / "out")
    assert isinstance(summary, gpupipe.Summary)
    assert (summary.items, summary.done, summary.failed, summary.pending) == (3, 2, 1, 0)
    assert summary.reasons == {"MissingInputError": 1} and summary.complete
    assert json.loads(Path(summary.failures_file).read_text())["id"] == "000001_v1"
    frames = gpupipe.load_pickle(tmp_path / "out" / "sample_000002_v2" / "video_input.pkl")
    assert [read_number(frame) for frame in frames] == [20, 24, 28, 33]
    with gpupipe.open_video(data / "clips" / "v2_0_1.mp4") as video:
        np.testing.assert_array_equal(video.frames(num=4, size=(48, 64)), frames)
    found = gpupipe.status(tmp_path / "out")
    assert (found["items"], found["done"], found["failed"], found["state"]) == (3, 2, 1, "complete")
    with pytest.raises(gpupipe.UsageError, match="no output of gpupipe"):
        gpupipe.status(tmp_path)


def test_call_and_command_continue_each_other(data, tmp_path):
    assert make(data, tmp_path / "out", continue_on_error=True).exit_code == 0
    assert command(data, tmp_path / "out") == 3
    again = make(data, str(tmp_path / "out"), num_workers=2)
    assert again.earlier == again.items == 3
    with pytest.raises(gpupipe.UsageError, match="another configuration"):
        make(data, tmp_path / "out", seed=np.int64(7))
    assert make(data, tmp_path / "out", seed=np.int64(7), overwrite=True).earlier == 0


def test_relative_paths(data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    out = os.path.relpath(tmp_path / "out")
    summary = gpupipe.clips("pairs.json", out, clips_dir="clips", num_frames=2, size=(48, 64), num_workers=1)
    assert summary.done == 2 and Path(summary.output).samefile(tmp_path / "out")


def test_shards(data, tmp_path):
    parts = [make(data, tmp_path / "out", shard_size=1, shard=i, total_shards=2, format="npy") for i in range(2)]
    assert [(part.items, part.complete) for part in parts] == [(2, False), (1, True)]
    make(data, tmp_path / "whole", shard_size=1, format="npy")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips_dir": None}, "expected one of --clips-dir"),
        ({"num_frames": 0}, "--num-frames 0"),
        ({"size": 160}, r"size=160: expected \(height, width\)"),
        ({"size": (160, 256, 3)}, r"expected \(height, width\)"),
        ({"format": "hdf5"}, "--format 'hdf5'"),
        ({"backend": "magic"}, "backend 'magic'"),
        ({"num_workers": 0}, "--num-workers 0"),
        ({"num_workers": 1 << 70}, "--num-workers"),
        ({"total_shards": 1 << 70}, "--total-shards"),
        ({"memory_per_worker": 1 << 63}, "--memory-per-worker"),
        ({"shard_size": 1 << 70}, "--shard-size"),
        ({"size": (65537, 16)}, "--frame-height 65537"),
        ({"size": (16, 65537)}, "--frame-width 65537"),
        ({"shard": 2, "total_shards": 2}, "--shard 2"),
        ({"strict": True, "allow_partial": True}, "choose one"),
    ],
    ids=str,
)
def test_calls_that_cannot_be(data, tmp_path, options, message):
    with pytest.raises(gpupipe.UsageError, match=message):
        make(data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_pairs_file_that_is_none(data, tmp_path):
    (tmp_path / "pairs.json").write_text('[{"vid": ]')
    with pytest.raises(gpupipe.UsageError, match="line 1, column 10"):
        gpupipe.clips(tmp_path / "pairs.json", tmp_path / "out", clips_dir=data / "clips")


def test_from_another_thread(data, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(make(data, tmp_path / "out")))
    thread.start()
    thread.join()
    assert results[0].done == 2


def test_two_threads_on_two_outputs(data, tmp_path):
    results = {}
    threads = [
        threading.Thread(target=lambda n=name: results.update({n: make(data, tmp_path / n)})) for name in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: summary.done for name, summary in results.items()} == {"a": 2, "b": 2}
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_script_without_a_guard(data, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, gpupipe\n"
        "pairs, clips, out = sys.argv[1:]\n"
        "summary = gpupipe.clips(pairs, out, clips_dir=clips, num_frames=4, size=(48, 64), num_workers=2)\n"
        "print(summary.done, summary.failed)\n"
    )
    ran = python(script, data / "pairs.json", data / "clips", tmp_path / "out")
    assert (ran.stdout, ran.stderr) == ("2 1\n", "")
    make(data, tmp_path / "here")
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


def test_quiet_unless_asked(data, tmp_path, capfd):
    make(data, tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    make(data, tmp_path / "b", progress=True)
    shown = capfd.readouterr()
    assert shown.out == "" and "3/3 (100%)" in shown.err


def test_interrupt_ends_the_script_and_the_same_call_continues(data, tmp_path):
    pairs = [{"vid": f"v{n}", "clip_path": "v2_0_1.mp4"} for n in range(400)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, gpupipe\n"
        "summary = gpupipe.clips(sys.argv[1], sys.argv[3], clips_dir=sys.argv[2], num_workers=1)\n"
        "print('went on', summary.exit_code, summary.earlier)\n"
    )
    words = [sys.executable, script, tmp_path / "pairs.json", data / "clips", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out").glob("sample_*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "went on" not in out and "KeyboardInterrupt" in err and "the same call continues" in err
    assert 0 < len(list((tmp_path / "out").glob("sample_*"))) < 400
    ran = python(*words[1:])
    assert ran.stdout.startswith("went on 0 ") and int(ran.stdout.split()[-1]) > 0


# ---- pickles


def test_load_pickle_runs_nothing(tmp_path):
    import pickle

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(os.getcwd))
    with pytest.raises(gpupipe.InputError, match=r"evil\.pkl"):
        gpupipe.load_pickle(path)
    with pytest.raises(FileNotFoundError):
        gpupipe.load_pickle(tmp_path / "absent.pkl")
