"""Write ``constraints-*.txt`` anew: every package that an image installs, with its version.

    python docker/constraints.py

It asks pip what it would choose today; nothing is installed. Needs the network, and Python 3.11 or newer.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PYTHONS = {"build": "3.11", "cpu": "3.11", "cu12": "3.12", "cu13": "3.12"}
"""Which Python each is for: python:3.11-slim, and that of Ubuntu 24.04."""


def main() -> None:
    """Write them all."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    for kind, python in PYTHONS.items():
        wanted = project["build-system"]["requires"]
        if kind != "build":
            wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"].get(kind, [])
        pins = chosen(wanted, python)
        text = f"# Made by docker/constraints.py for Python {python}.\n" + "".join(f"{pin}\n" for pin in pins)
        (HERE / f"constraints-{kind}.txt").write_text(text, encoding="utf-8")
        print(f"constraints-{kind}.txt: {len(pins)} packages")


def chosen(wanted: list[str], python: str) -> list[str]:
    """``name==version`` of everything that pip would install, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--target", folder]
        command += ["--python-version", python, "--only-binary=:all:", "--report", str(report)]
        subprocess.run([*command, *wanted], check=True)
        packages = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return sorted(f"{re.sub(r'[-_.]+', '-', one['name']).lower()}=={one['version']}" for one in packages)


if __name__ == "__main__":
    main()
