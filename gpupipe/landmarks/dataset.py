"""Whatever people have of keypoints, opened by its path."""

from __future__ import annotations

from pathlib import Path

from gpupipe.errors import InputError, MissingInputError
from gpupipe.landmarks.npz_file import NpzFolder
from gpupipe.landmarks.records import LoadedPickle
from gpupipe.landmarks.shard_folder import INDEX, ShardFolder, drops_empty
from gpupipe.landmarks.streamed_pickle import StreamedPickle
from gpupipe.plan import BOOKKEEPING, folder_of

LandmarkFile = ShardFolder | StreamedPickle | LoadedPickle | NpzFolder


def open_landmarks(path: Path) -> LandmarkFile:
    """Open keypoints for reading: a :class:`gpupipe.landmarks.clip.Landmarks`, closed by ``with`` or ``close()``.

    Parameters
    ----------
    path : Path
        The output of a keypoints run, folder or file (its shards are read, 543 points; of a file whose run left out
        frames with nobody, the file); another pickle of keypoints, of this package or of older programs (143 points;
        the latter whole in memory); a folder that ``prepare`` wrote (143 points).

    Raises
    ------
    InputError
        It is nothing of these, damaged, or its run is not complete.
    """
    folder = folder_of(path)
    if (folder / INDEX).exists() and not (folder != path and path.exists() and drops_empty(folder)):
        return ShardFolder(folder)
    if path.is_dir() and NpzFolder.found(path):
        return NpzFolder(path)
    if (folder / BOOKKEEPING).is_dir() and not path.is_file():
        raise InputError(f"{path}: its run is not complete, it has no {INDEX}. Run its command again to complete it.")
    if path.is_dir():
        raise InputError(f"{path}: holds neither {INDEX} of a keypoints run nor the .npz files of prepare.")
    return open_pickle(path)


def open_pickle(path: Path) -> StreamedPickle | LoadedPickle:
    """Open a pickle of keypoints, whatever lies beside it; raises as :func:`open_landmarks`."""
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file or folder of keypoints.")
    try:
        return StreamedPickle.recognised(path) or LoadedPickle(path)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
