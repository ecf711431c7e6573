"""Makes the demo's clips and pairs, runs ``gpupipe clips`` on them, and says where to look.

Killed half-way and started again it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpupipe.cli.main import main as gpupipe
from gpupipe.demo.clips import BROKEN, CLIPS
from gpupipe.demo.sheet import contact_sheet, write_png
from gpupipe.sinks import pickles
from gpupipe.sinks.files import publish
from gpupipe.summary import EXIT_DONE, EXIT_FAILED_ITEMS, EXIT_INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 when everything went as planned, the broken clip's failure included."""
    parser = argparse.ArgumentParser(prog="python -m gpupipe.demo", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"), metavar="DIR", help="(default: demo)")
    folder: Path = parser.parse_args(argv).folder
    try:
        return _run(folder)
    except KeyboardInterrupt:
        _say("interrupted; run the same command again to continue")
        return EXIT_INTERRUPTED


def _run(folder: Path) -> int:
    pairs, dataset = _make_inputs(folder)
    words = ["clips", "--pairs-json", str(pairs), "--clips-dir", str(folder / "clips"), "--output-dir", str(dataset)]
    _say(f"\n$ {shlex.join(['gpupipe', *words])}")
    code = gpupipe(words)
    if code not in (EXIT_DONE, EXIT_FAILED_ITEMS):
        return code
    failures = [json.loads(line) for line in (dataset / "failed.jsonl").read_text(encoding="utf-8").splitlines()]
    sheet = folder / "contact-sheet.png"
    _draw_sheet(dataset, sheet)
    _say_where(dataset, sheet, failures)
    surprises = {failure["id"].partition("_")[2] for failure in failures} ^ BROKEN
    if surprises:
        _say(f"\nNot as planned: {', '.join(sorted(surprises))}. Please report it.")
    return 1 if surprises else 0


def _make_inputs(folder: Path) -> tuple[Path, Path]:
    """Clips and pairs.json, each made once."""
    clips = folder / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    _say(f"Clips in {clips}:")
    for clip in CLIPS:
        began = time.monotonic()
        made = f"{time.monotonic() - began:.1f} s" if clip.make(clips) else "there already"
        _say(f"  {clip.file_name:16} {clip.about} ({made})")
    pairs = folder / "pairs.json"
    text = json.dumps([clip.pair() for clip in CLIPS], indent=2, ensure_ascii=False).encode() + b"\n"
    if not pairs.exists() or pairs.read_bytes() != text:
        publish(pairs, [text])
    return pairs, folder / "dataset"


def _samples(dataset: Path) -> list[Path]:
    """Folder of each clip's sample, whether it is there or not, in input order."""
    return [dataset / f"sample_{number:06d}_{clip.vid}" for number, clip in enumerate(CLIPS)]


def _draw_sheet(dataset: Path, sheet: Path) -> None:
    frames = [folder / "video_input.pkl" for folder in _samples(dataset)]
    write_png(sheet, contact_sheet([pickles.loads(p.read_bytes()) if p.exists() else None for p in frames]))


def _say_where(dataset: Path, sheet: Path, failures: list[dict[str, Any]]) -> None:
    _say(f"\nLook at   {sheet}: a row a clip, top to bottom:")
    for clip, folder in zip(CLIPS, _samples(dataset), strict=True):
        _say(f"            {clip.vid:8} {clip.about}{'' if folder.exists() else ' (failed, as planned)'}")
    _say("          Portrait or not, every frame is 160 x 256 unless --frame-height and --frame-width say otherwise.")
    first = next(filter(Path.exists, _samples(dataset)), None)
    if first is not None:
        _say(f"A sample  {first}: {', '.join(sorted(path.name for path in first.iterdir()))}")
    _say(f"Splits    {dataset / 'dataset_info.json'}")
    _say(f"Failures  {dataset / 'failed.jsonl'}:")
    for failure in failures:
        _say(f"            {failure['id']}: {failure['message']}")
    _say("          That clip was cut off on purpose: a bad file costs itself, is named, and stops nothing else.")
    command = Path(sys.prefix, "bin", "gpupipe")
    _say(f"Status    {shlex.join([str(command), 'status', str(dataset)])}")
    _say(f"Report    {shlex.join([str(command), 'report', str(dataset)])}, then open {dataset / 'report.html'}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
