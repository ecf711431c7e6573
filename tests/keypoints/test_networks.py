"""The networks' files and what runs them."""

import subprocess
import sys

import numpy as np
import pytest

from gpupipe.errors import UsageError
from gpupipe.ops.keypoints.graph import NETWORKS
from gpupipe.ops.keypoints.networks import Networks, identity
from gpupipe.ops.keypoints.tflite import pruned


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_networks_give_the_same_bytes(models, name):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install gpupipe[keypoints]")
    whole = interpreter.Interpreter(model_content=models[name], num_threads=1)
    draw = np.random.default_rng(1).random(whole.get_input_details()[0]["shape"], np.float32)
    outputs, operators = [], []
    for made in (models[name], pruned(models[name], NETWORKS[name].outputs)):
        runner = interpreter.Interpreter(model_content=made, num_threads=1)
        runner.allocate_tensors()
        runner.set_tensor(runner.get_input_details()[0]["index"], draw)
        runner.invoke()
        outputs.append([runner.get_tensor(output["index"]) for output in runner.get_output_details()])
        operators.append(len(runner._get_ops_details()))
    assert len(outputs[1]) == len(NETWORKS[name].outputs)
    for place, found in zip(NETWORKS[name].outputs, outputs[1], strict=True):
        np.testing.assert_array_equal(outputs[0][place], found)
    if name == "pose_landmark":
        assert operators[1] < 0.9 * operators[0]


def test_inputs_are_what_the_graph_says(networks):
    for name, network in NETWORKS.items():
        assert networks.input(name).shape == (network.crop.size, network.crop.size, 3)
        assert networks.input(name).dtype == np.float32


def test_results_are_good_after_the_next_run(networks):
    networks.input("pose_landmark")[:] = 0.5
    first = networks.run("pose_landmark")
    kept = [output.copy() for output in first]
    networks.input("pose_landmark")[:] = np.random.default_rng(2).random((256, 256, 3), np.float32)
    networks.run("pose_landmark")
    for before, after in zip(kept, first, strict=True):
        np.testing.assert_array_equal(before, after)


def test_without_litert_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UsageError, match=r"pip install gpupipe\[keypoints\]"):
        identity()
    with pytest.raises(UsageError, match=r"pip install gpupipe\[keypoints\]"):
        Networks({})


def test_stderr_has_no_notes_of_litert_and_all_else(models):
    code = """
import os
from gpupipe.ops.keypoints.models import read_models
from gpupipe.ops.keypoints.networks import Networks, _without_notes
Networks(read_models())
with _without_notes():
    os.write(2, b"INFO: something\\nERROR: something else\\n")
os.write(2, b"INFO: afterwards\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "ERROR: something else\nINFO: afterwards\n"
