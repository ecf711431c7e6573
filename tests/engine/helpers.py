"""What the engine's tests share."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def tree(out: Path) -> dict[str, str]:
    """Hash of every file of an output, bookkeeping and failures aside."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(".gpupipe/") and name != "failed.jsonl":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def write_plan(folder: Path, words: list[str]) -> Path:
    path = folder / "words.json"
    path.write_text(json.dumps(words))
    return path


class Quietly:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.notices = []
        self.snapshots = 0

    def update(self, snapshot):
        self.snapshots += 1

    def notice(self, text):
        self.notices.append(text)


def environment() -> dict[str, str]:
    """Of a process that must find the toy job."""
    path = os.pathsep.join([str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return dict(os.environ, PYTHONPATH=path)


def start(code: str, *arguments: str, **options) -> subprocess.Popen:
    """A Python process running `code` with the toy job in reach."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment(), **options)


RUN = """
import json, sys
from pathlib import Path
from helpers import Quietly
from gpupipe.launch import Run, run
from toy import ToyJob
job, how = json.loads(sys.argv[1]), json.loads(sys.argv[2])
how["output"] = Path(how["output"])
sys.exit(run(ToyJob(**job), Run(**how), Quietly()).exit_code)
"""


def start_run(job: dict, how: dict, **options) -> subprocess.Popen:
    """A whole run in a process of its own."""
    return start(RUN, json.dumps(job), json.dumps(how, default=str), **options)


def alive(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def workers_of(pid: int) -> list[int]:
    """Process ids of the workers a supervisor started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"gpupipe.worker" in command and command[command.index(b"gpupipe.worker") + 3] == str(pid).encode():
                found.append(int(entry.name))
    return found
