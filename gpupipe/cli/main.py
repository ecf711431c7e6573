"""The command ``gpupipe``: finds the subcommand, turns errors into exit codes."""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from collections.abc import Sequence

from gpupipe import __version__
from gpupipe.cli import clips, doctor, keypoints, models, report, retry, status, verify
from gpupipe.cli.run import read_settings
from gpupipe.errors import GpupipeError, UsageError
from gpupipe.summary import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another encoding shows \\xe9, and ends nothing
            stream.reconfigure(errors="backslashreplace")
    words = keypoints.whole(dashes(sys.argv[1:] if argv is None else argv))
    parser, jobs = _parser()
    try:
        for job, flags in jobs.items():
            if words[: len(job)] == list(job):
                read_settings(flags, job[0])
        arguments = parser.parse_args(words)
        return int(arguments.run(arguments))
    except UsageError as error:
        return _say(error, EXIT_USAGE)
    except GpupipeError as error:
        return _say(error, EXIT_STOPPED)
    except KeyboardInterrupt:
        print("gpupipe: interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:  # a defect of ours: 1, Python's own code for it, means "verify found a difference" here
        traceback.print_exc()
        return EXIT_STOPPED


def _say(error: GpupipeError, code: int) -> int:
    # An OSError prints its number first; the sentence is its second argument.
    text = error.args[1] if isinstance(error, OSError) and len(error.args) > 1 else error
    print(f"gpupipe: {text}", file=sys.stderr)
    return code


def dashes(argv: Sequence[str]) -> list[str]:
    """Long options with ``_`` written with ``-``; values are left alone."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        words.append(name.replace("_", "-") + equals + value if word.startswith("--") else word)
    return words


def _parser() -> tuple[argparse.ArgumentParser, dict[tuple[str, ...], argparse.ArgumentParser]]:
    """The parser, and those of the jobs by the words that call them."""
    parser = argparse.ArgumentParser(prog="gpupipe", description="Bulk media work: nothing lost, nothing silent.")
    parser.add_argument("--version", action="version", version=f"gpupipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    jobs = {("clips",): clips.add(commands), ("keypoints", keypoints.EXTRACT): keypoints.add(commands)}
    for command in (status, report, verify, retry, doctor, models):
        command.add(commands)
    return parser, jobs


if __name__ == "__main__":
    sys.exit(main())
