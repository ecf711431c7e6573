"""The images: what their files say, and the installation they are made by, run here without one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
FILES = ("Dockerfile", "Dockerfile.cpu")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions(name):
    """(instruction, rest) in order; comments and continuations are resolved, arguments put in."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found, arguments = [], {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            rest = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), " ".join(rest.split()))
            if word == "ARG":
                key, _, value = rest.partition("=")
                arguments[key] = value
            found.append((word, rest))
    return found


def stages(name):
    """A list of instructions each, beginning with FROM."""
    found = []
    for word, rest in instructions(name):
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def of(stage, word):
    return [rest for name, rest in stage if name == word]


@pytest.mark.parametrize("name", FILES)
class TestImages:
    def test_bases_are_pinned(self, name):
        bases = [rest.split()[0] for word, rest in instructions(name) if word == "FROM"]
        assert len(bases) == 2 and len(set(bases)) == 1  # what was built on one would not run on another
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z0-9.-]+", bases[0]), bases

    def test_the_last_stage_has_no_compiler(self, name):
        built, last = stages(name)
        assert re.search(r"apt-get install .*g\+\+", of(built, "RUN")[0])
        words = shlex.split(" ".join(of(last, "RUN")))
        assert not {"g++", "gcc", "build-essential", "python3-dev", "pip"} & set(words)
        assert of(last, "COPY") == ["--from=build /opt/gpupipe /opt/gpupipe"]

    def test_it_runs_as_nobody_in_particular(self, name):
        last = stages(name)[-1]
        assert of(last, "USER") == ["gpupipe"]
        assert any("useradd" in run and "gpupipe" in run for run in of(last, "RUN"))
        words = [word for word, _ in last]
        assert words.index("USER") > max(at for at, word in enumerate(words) if word in ("RUN", "COPY"))

    def test_entry_and_health(self, name):
        last = stages(name)[-1]
        assert [json.loads(text) for text in of(last, "ENTRYPOINT")] == [["gpupipe"]]
        (health,) = of(last, "HEALTHCHECK")
        expected = ["gpupipe", "doctor"] + (["--require", "nvdec"] if name == "Dockerfile" else [])
        assert json.loads(health.partition("CMD ")[2]) == expected
        assert any(text.startswith("PATH=/opt/gpupipe/bin:") for text in of(last, "ENV"))

    def test_what_it_copies_is_there_and_goes_to_the_builder(self, name):
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        sources = [word for rest in of(stages(name)[0], "COPY") for word in rest.split()[:-1]]
        assert [source for source in sources if not (ROOT / source).exists()] == []
        assert set(sources) == allowed

    def test_it_is_installed_by_the_script(self, name):
        kind = "cu13" if name == "Dockerfile" else "cpu"
        (command,) = [run for run in of(stages(name)[0], "RUN") if "apt-get" not in run]
        assert shlex.split(command) == ["docker/install.sh", "/opt/gpupipe", kind]
        assert os.access(DOCKER / "install.sh", os.X_OK)


def test_the_container_is_given_video():
    (words,) = of(stages("Dockerfile")[-1], "ENV")
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in words.split()


def pins(kind):
    lines = (DOCKER / f"constraints-{kind}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("kind", ["build", "cpu", "cu12", "cu13"])
def test_every_requirement_is_pinned_to_what_it_allows(kind):
    wanted = PROJECT["build-system"]["requires"]
    if kind != "build":
        wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"].get(kind, [])
    pinned = pins(kind)
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.name.lower() in pinned, f"{text}: run docker/constraints.py"
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), text


def test_every_image_decodes_alike():
    decoders = ("av", "pillow", "simplejpeg", "tokenizers")
    kinds = [pins(kind) for kind in ("cpu", "cu12", "cu13")]
    assert len({tuple(kind[name] for name in decoders) for kind in kinds}) == 1


# ---- the installation itself

SMALLEST = """
import dataclasses, sys
from gpupipe.demo import __main__ as demo
demo.CLIPS = tuple(dataclasses.replace(clip, count=20) for clip in demo.CLIPS if clip.vid in ("sunset", "broken"))
sys.exit(demo.main([sys.argv[1]]))
"""


def script(*words, **options):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [DOCKER / "install.sh", *words]
    return subprocess.run(
        command, env=environment | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False, **options
    )


def test_installed_without_a_container(tmp_path):
    target = tmp_path / "with spaces"
    before = sorted((ROOT / "csrc").iterdir())
    done = script(target, "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"gpupipe {version('gpupipe')}\n") and re.search(r"^ffmpeg +yes$", done.stdout, re.M)
    assert sorted((ROOT / "csrc").iterdir()) == before
    assert sorted(path.name for path in (target / "bin").glob("pip*")) == []

    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    where = subprocess.run(
        [target / "bin/python", "-c", "import gpupipe; print(gpupipe.__file__)"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(target)
    demo = subprocess.run(
        [target / "bin/python", "-c", SMALLEST, tmp_path / "demo"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert (tmp_path / "demo/dataset/sample_000000_sunset/video_input.pkl").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "docker/install.sh FOLDER [cpu|cu12|cu13]"),
        (("there", "cu11"), "cu11: expected cpu, cu12 or cu13"),
        (("there",), "there is there already"),
    ],
)
def test_what_the_script_refuses(tmp_path, words, said):
    if len(words) == 1:
        (tmp_path / "there").mkdir()
    done = script(*words, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [*words[:1]] * (len(words) == 1)
