"""How far is the GPU path from what the card can do, and does it make the same bytes as the CPU?

    python -m bench.gpu [--parts kernel parity nvdec job pinned] [--media DIR] [--write DIR] [--rounds 3]

One command, less than 8 minutes, nothing beyond the extras `cu12` or `cu13`; torch, CV-CUDA and DALI are measured too
where they are installed. Prints a table with the targets, then one JSON line, and writes bench/results/gpu-NAME.json.

`kernel`: bytes read and written a second, 1080p NV12 to 256x160 and to 224x224 float16, batch 64, against a copy within
the card and against the peers' chains. `parity`: CPU and GPU byte for byte, on random surfaces of every layout, and on
clips of every codec that the card decodes (made here by PyAV; and those of --media). `nvdec`: short clips against the
video engines' ceiling, with and without skipping, with a pool of decoders and with fresh ones. `job`: `gpupipe clips`
on GPU, CPU and both. `pinned`: from the card to a file of /dev/shm or --write.

Each part runs in a process of its own with a time limit. What is missing for one is said: `unavailable: reason`; the
others go on. Exit code 1 where bytes differ or a part broke; without a GPU it is 0, and nothing is written unless
--results names a folder.

Last answer: not yet measured on hardware.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.gpu_parts import parent, table
from bench.gpu_parts.board import BOARD
from bench.harness import RESULTS, facts, finish, options, rounded

_PACKAGES = (
    "torch", "cupy-cuda12x", "cupy-cuda13x", "PyNvVideoCodec", "nvidia-ml-py", "nvidia-dali-cuda120",
    "nvidia-dali-cuda130", "cvcuda-cu12", "cvcuda-cu13",
)  # fmt: skip


def main(argv: list[str] | None = None, board: str = BOARD, more: dict[str, Any] | None = None) -> int:
    """Run; `board` opens what is measured on, `more` are further options of the parts."""
    parser = options(__doc__)
    parser.set_defaults(rounds=3, machine=None, results=None)
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in parent.PARTS], metavar="PART")
    parser.add_argument("--media", type=Path, metavar="DIR", help="parity: its video files too")
    parser.add_argument("--write", type=Path, metavar="DIR", help="pinned: where to write (default: /dev/shm)")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where clips are made (default: temporary)")
    arguments = parser.parse_args(argv)
    given = {name: str(path.absolute()) for name in ("media", "write") if (path := getattr(arguments, name))}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-gpu-", dir=arguments.scratch) as scratch:
        for part in parent.PARTS:
            if arguments.parts and part.name not in arguments.parts:
                continue
            told = {"board": board, "scratch": scratch, "rounds": arguments.rounds, **given, **(more or {})}
            found[part.name] = parent.run(part, told)
            print(f"{part.title}: {_word(found[part.name])}", file=sys.stderr, flush=True)
    result = whole(found, arguments.rounds)
    print(table.text(table.rows(result)))
    arguments.machine = arguments.machine or slug(result["device"].get("gpu", "none"))
    if result["device"] or arguments.results is not None:
        arguments.results = arguments.results or RESULTS
        finish("gpu", arguments, result)
    else:
        print(json.dumps(rounded({"benchmark": "gpu", "machine": arguments.machine, **facts(), **result})))
    return int(bad(found))


def whole(found: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The result: what the parts told, and of which card; that is the same for all of them."""
    device: dict[str, Any] = {}
    for told in found.values():
        device = device or told.pop("facts", {})
        told.pop("facts", None)
    versions = facts()["versions"]
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"rounds": rounds, "device": device, "versions": versions, "parts": found}


def bad(found: dict[str, Any]) -> bool:
    """True where a part broke or bytes differ."""
    if any("failed" in told for told in found.values()):
        return True
    parity, job = found.get("parity", {}), found.get("job", {})
    clips = [clip for clip in parity.get("clips", {}).values() if isinstance(clip, dict)]
    cases = found.get("kernel", {}).get("cases", {}).values()
    return (
        bool(parity.get("synthetic", {}).get("different"))
        or any(clip.get("planes_different") or clip.get("rows_different") or "error" in clip for clip in clips)
        or not job.get("same_bytes", True)
        or any("failed" in way for way in job.get("ways", {}).values())
        or not all(case.get("tools", {}).get("gpupipe", {}).get("same_as_cpu", True) for case in cases)
    )


def slug(gpu: str) -> str:
    """A card's name as files have it: ``h100-80gb-hbm3``."""
    words = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return words.removeprefix("nvidia-").removeprefix("geforce-")


def _word(told: dict[str, Any]) -> str:
    return next((f"{key}: {told[key]}" for key in ("failed", "unavailable") if key in told), "done")


if __name__ == "__main__":
    sys.exit(main())
