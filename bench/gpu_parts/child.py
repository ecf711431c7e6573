"""A part's own process: what it finds goes to its parent line by line, so that nothing found is lost with it.

python -m bench.gpu_parts.child kernel '{"board": "bench.gpu_parts.board:open_board", ...}'
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from bench.gpu_parts.board import Board, Unavailable, open_named
from bench.harness import rounded

Tell = Callable[..., None]
"""``tell(value, *names)``: what was found and where it belongs, one name a level; later words replace earlier ones."""


def main(words: list[str]) -> int:
    part, options = words[0], json.loads(words[1])
    # What libraries print goes to standard error: standard output holds findings alone.
    findings = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(value: Any, *names: str) -> None:
        print(json.dumps({"names": names, "value": rounded(value)}), file=findings, flush=True)

    code = 0
    try:
        measure = importlib.import_module(f"bench.gpu_parts.{part}").measure
        board: Board = open_named(options["board"])
        tell({"gpu": board.name, **board.facts()}, "facts")
        measure(board, options, tell)
    except Unavailable as error:
        tell(str(error), "unavailable")
    except Exception as error:
        traceback.print_exc()
        tell(" ".join(f"{type(error).__name__}: {error}".split())[:500], "failed")
        code = 1
    findings.flush()
    sys.stderr.flush()
    os._exit(code)  # destructors of drivers' libraries are no part of the measurement, and some hang


if __name__ == "__main__":
    main(sys.argv[1:])
