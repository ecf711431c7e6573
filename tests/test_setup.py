"""What an installation must be: quick to import, light, in order, and whole."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tarfile
import zipfile
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

import gpupipe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpupipe"

# The house, from the ground up: a module imports from its own floor and from those below, never from above.
FLOORS = (
    ("types", "errors", "machine", "closing"),
    ("_native", "layouts", "pulse", "wire"),
    ("memory", "stages"),
    ("decode", "transform"),
    ("cuda",),
    ("ops", "sinks"),
    (
        "frames",
        "frame_batch",
        "video",
        "plan",
        "outcome",
        "ledger",
        "commits",
        "ledgers",
        "ownership",
        "leases",
        "summary",
        "progress",
        "fingerprint",
        "posts",
        "settings",
        "checkpoint",
        "gauges",
        "findings",
        "doctor",
    ),
    ("job", "lanes", "ahead", "landmarks"),
    ("remains", "again", "failures"),
    ("planning", "redo"),
    ("worker", "writer", "member", "death", "watchdog", "prober", "tally"),
    ("supervisor", "hand", "trial"),
    ("launch", "verification", "estimate", "forecast"),
    ("jobs",),
    ("reports",),
    ("shown",),
    ("calls",),
    ("api", "api_clips", "api_keypoints"),
    ("cli",),
    ("demo",),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

HEAVY = (
    *("PIL", "PyNvVideoCodec", "av", "cupy", "cv2", "faiss", "jinja2", "mediapipe", "nvidia", "pyarrow", "ray", "rich"),
    *("ai_edge_litert", "prometheus_client", "simplejpeg", "tokenizers", "torch"),
)
IMPORT_SECONDS = 0.2


def modules() -> dict[str, Path]:
    """Dotted name below the package to file; the package's own ``__init__`` is the door and stands on no floor."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imported(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            below = name.removeprefix("gpupipe.") if name.startswith("gpupipe.") else ""
            while below and below not in known:  # a class or function: the module it is in
                below = below.rpartition(".")[0]
            if below:
                found.add(below)
    return found


def test_every_module_has_its_floor():
    assert {name.partition(".")[0] for name in modules()} <= FLOOR.keys()


def test_imports_point_one_way():
    known = {*modules(), "_native"}
    wrong = [
        f"{name} imports {other}"
        for name, path in sorted(modules().items())
        for other in sorted(imported(path, known))
        if FLOOR[other.partition(".")[0]] > FLOOR[name.partition(".")[0]]
    ]
    assert wrong == []


def test_imports_go_round_no_circle():
    found = modules()
    graph = {name: imported(path, {*found, "_native"}) - {name} for name, path in found.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_light(tmp_path):
    loaded = run_python("import sys, gpupipe; print(*sorted({m.partition('.')[0] for m in sys.modules}))", tmp_path)
    assert set(loaded.split()) & set(HEAVY) == set()


def test_import_is_quick(tmp_path):
    code = "import time; began = time.perf_counter(); import gpupipe; print(time.perf_counter() - began)"
    assert min(float(run_python(code, tmp_path)) for _ in range(5)) < IMPORT_SECONDS


def test_version_is_one(tmp_path):
    said = subprocess.run(
        [sys.executable, "-m", "gpupipe.cli.main", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"gpupipe {gpupipe.__version__}\n"
    assert version("gpupipe") == gpupipe.__version__


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the sources: building writes beside them, and stale files there would end up in a wheel."""
    target = tmp_path_factory.mktemp("build") / "tree"
    products = shutil.ignore_patterns("__pycache__", "*.so", "_native.cpp", "*.egg-info", ".*", "build", "dist")
    target.mkdir()
    for name in ("gpupipe", "csrc", "docs", "tests"):
        shutil.copytree(ROOT / name, target / name, ignore=products)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, target)
    return target


def build(tree: Path, *command: str) -> None:
    done = subprocess.run([sys.executable, *command], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_is_whole(tree, tmp_path):
    build(tree, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), ".")
    (wheel,) = tmp_path.glob("gpupipe-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        assert [name for name in names if name.startswith("gpupipe/_native.") and name.endswith(".so")]
        (entry,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        assert b"gpupipe = gpupipe.cli.main:main" in file.read(entry)
    wanted = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    wanted |= {f"gpupipe/reports/html/{name}" for name in ("page.jinja", "style.css")}
    wanted |= {"gpupipe/py.typed", "gpupipe/_native.pyi"}
    wanted |= {f"gpupipe/{name}.txt.gz" for name in ("ops/clip_merges", "landmarks/face_triangles")}
    wanted |= {f"gpupipe/cuda/{name}" for name in ("frames.cu", "plane.h")}  # compiled where the GPU is
    wanted |= {f"gpupipe/cuda/{name}" for name in ("keypoints_crop.cu", "keypoints_warp.h")}
    assert wanted <= names
    info = entry.rpartition("/")[0]
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names
    assert {name.partition("/")[0] for name in names} == {"gpupipe", info}  # no tests, no csrc


def test_source_distribution_is_whole(tree, tmp_path):
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    build(tree, "-c", code)
    (path,) = tmp_path.glob("gpupipe-*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").iterdir() if path.name != "_native.cpp"}
    assert sources | {"setup.py", "pyproject.toml", "LICENSE", "NOTICE", "README.md", "gpupipe/py.typed"} <= names
    assert "csrc/_native.cpp" not in names
    assert not [name for name in names if name.endswith(".so")]
