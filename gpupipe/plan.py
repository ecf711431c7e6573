"""The frozen plan: the items in their order, and the configuration that decides their bytes.

On disk, in ``OUT/.gpupipe/plan/``:

- ``items.jsonl``: one JSON value a line, an item a line, in ordinal order;
- ``items.idx``: int64 [N + 1], the byte offset of each line and the length of the file;
- ``order.npy`` (optional): int64 [N], the ordinals in the order they are worked (items of one file together);
- ``starts.npy`` (optional): bool [N], by work position, True where another input file begins;
- ``plan.json``: job, options, counts and the hash of it all; written last.

The hash covers what changes bytes, not workers, backends, devices or run shards. Workers read their
items from here by position: no item travels through a pipe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import xxhash

from gpupipe.errors import UsageError
from gpupipe.sinks.files import file_hash, output_errors, publish, remove_tree, sync_file, sync_folder

Row = TypeVar("Row")

VERSION = 2
BOOKKEEPING = ".gpupipe"
_HEAD = {"job": str, "options": dict, "inputs": dict, "source": dict, "count": int, "items_hash": str, "hash": str,
         "files": dict}  # fmt: skip
_FILES = {"items.idx", "order.npy", "starts.npy"}
_ANEW = "Put it back from a copy, or make the dataset anew in another output folder."


def folder_of(output: Path) -> Path:
    """The dataset's folder: `output` itself, or ``FILE.gpupipe`` beside it where the output is a file."""
    beside = output.with_name(f"{output.name}{BOOKKEEPING}")
    return beside if beside.is_dir() and not (output / BOOKKEEPING).is_dir() else output


class Plan:
    """A plan read back from disk; raises :class:`UsageError`, which names the file, where it is none.

    Attributes
    ----------
    folder : Path
        The plan's own folder.
    job : str
        Name of the job.
    options : dict
        What decides the bytes, JSON values only; part of the hash.
    inputs : dict
        Where the inputs were when the plan was made, and what the files beside the items are asked for since;
        information, not hashed.
    source : dict
        Path, size and time of the file the items came from; information, not hashed.
    count : int
        N, the number of items.
    hash : str
    order : numpy.ndarray or None
        int64 [N], ordinals by work position; None where they are the same.
    starts : numpy.ndarray or None
        bool [N], by work position, True where another input file begins; None where each item has its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        head = _head(folder)
        self.job: str = head["job"]
        self.options: dict[str, Any] = head["options"]
        self.inputs: dict[str, Any] = head["inputs"]
        self.count: int = head["count"]
        self.items_hash: str = head["items_hash"]
        self.hash: str = head["hash"]
        self._files: dict[str, str] = head["files"]
        self.source: dict[str, Any] = head["source"]
        self._offsets = _offsets(folder, self.count)
        self.order = _order(folder / "order.npy", self.count)
        self.starts = _array(folder / "starts.npy", "|b1", self.count)
        self._file = (folder / "items.jsonl").open("rb")

    def item(self, ordinal: int) -> Any:
        """The item's JSON value as planned."""
        start, stop = int(self._offsets[ordinal]), int(self._offsets[ordinal + 1])
        return self._parsed(os.pread(self._file.fileno(), stop - start, start), ordinal)

    def items(self) -> Iterator[Any]:
        """All items in ordinal order, one at a time in memory."""
        ordinal = -1
        with (self.folder / "items.jsonl").open("rb") as file:
            for ordinal, line in enumerate(file):
                yield self._parsed(line, ordinal)
        if ordinal + 1 != self.count:
            raise UsageError(f"{file.name}: holds {ordinal + 1} lines, expected {self.count}. {_ANEW}")

    def _parsed(self, line: bytes, ordinal: int) -> Any:
        try:
            return json.loads(line.decode("ascii"))
        except (ValueError, RecursionError) as error:
            where = self.folder / "items.jsonl"
            raise UsageError(f"{where}: line {ordinal + 1} is no item ({_brief(error)}). {_ANEW}") from error

    def beside(self, rows: Iterable[Row], ordinal: Callable[[Row], int]) -> Iterator[tuple[Row, Any]]:
        """Each row with its item; the rows come by ordinal, and the items are read once, in order."""
        items = enumerate(self.items())
        for row in rows:
            wanted = ordinal(row)
            yield row, next(item for number, item in items if number == wanted)

    def ordinal(self, position: int) -> int:
        """The item worked at `position`."""
        return position if self.order is None else int(self.order[position])

    def faults(self) -> Iterator[tuple[Path, str]]:
        """What is not as it was written, and how; the head itself was looked at when it was read."""
        sums = {"items.jsonl": self.items_hash, **self._files}
        for name, before in sums.items():
            path = self.folder / name
            if not path.is_file():
                yield path, "missing"
            elif file_hash(path) != before:
                yield path, "is altered"

    def inputs_on_disk(self) -> dict[str, Any]:
        """The inputs as another run may have renewed them since this was read."""
        inputs: dict[str, Any] = _head(self.folder)["inputs"]
        return inputs

    def renew_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Have it name other inputs, here and on disk; its hash and all else stay."""
        head = _head(self.folder)
        head["inputs"] = {**head["inputs"], **inputs}
        publish(self.folder / "plan.json", [_head_bytes(head)], self.folder.parent)
        self.inputs = head["inputs"]

    def close(self) -> None:
        """Close the items file."""
        self._file.close()


class PlanWriter:
    """Writes a plan beside its place, then moves it there whole.

    Several run shards may plan at once: the bytes are determined, so whoever is second drops its own.
    """

    def __init__(
        self,
        bookkeeping: Path,
        job: str,
        options: dict[str, Any],
        inputs: dict[str, Any],
        source: dict[str, Any],
    ) -> None:
        self._target = bookkeeping / "plan"
        self._folder = bookkeeping / f"plan.{os.uname().nodename}.{os.getpid()}.partial"
        self._job, self._options = job, options
        self._words = {"inputs": inputs, "source": source}
        remove_tree(self._folder)
        with output_errors(self._folder):
            self._folder.mkdir(parents=True)
            self._file = (self._folder / "items.jsonl").open("wb", buffering=1 << 20)
        self._lengths: list[np.ndarray] = []
        self._buffer: list[int] = []
        self._hash = xxhash.xxh3_128()
        self._arrays: dict[str, np.ndarray] = {}
        self.count = 0
        self.notices: list[str] = []  # what whoever adds the items has to say about them

    def add(self, item: Any) -> None:
        """Append one item, any JSON value."""
        # Lone surrogates are legal in JSON escapes: ensure_ascii keeps them as they came.
        line = json.dumps(item, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        with output_errors(self._folder):
            self._file.write(line)
        self._buffer.append(len(line))
        self.count += 1
        if len(self._buffer) == 65536:
            self._spill()

    def _spill(self) -> None:
        self._lengths.append(np.array(self._buffer, dtype=np.int64))
        self._buffer = []

    def group(self, keys: Iterable[str]) -> None:
        """Work items of equal key (their input file) together; `keys` in ordinal order, one an item."""
        first: dict[str, int] = {}
        group = np.fromiter((first.setdefault(key, len(first)) for key in keys), dtype=np.int64)
        steps = np.diff(group, prepend=-1)
        if (steps < 0).any():
            order = np.argsort(group, kind="stable").astype("<i8")
            self._arrays["order"] = order
            steps = np.diff(group[order], prepend=-1)
        self._arrays["starts"] = steps != 0

    @property
    def items_hash(self) -> str:
        """Hash of the items so far."""
        return self._hash.hexdigest()

    def publish(self) -> Plan:
        """Freeze the plan and return it as read back from its place."""
        self._spill()
        lengths = np.concatenate(self._lengths)
        offsets = np.zeros(len(lengths) + 1, dtype="<i8")
        np.cumsum(lengths, out=offsets[1:])
        items_hash = self.items_hash
        head = {
            "version": VERSION,
            "job": self._job,
            "options": self._options,
            **self._words,
            "count": self.count,
            "items_hash": items_hash,
            "hash": plan_hash(self._job, self._options, items_hash),
        }
        with output_errors(self._folder):
            self._file.close()
            offsets.tofile(self._folder / "items.idx")
            for name, array in self._arrays.items():
                np.save(self._folder / f"{name}.npy", array)
            names = ["items.idx", *(f"{name}.npy" for name in self._arrays)]
            head["files"] = {name: file_hash(self._folder / name) for name in names}
            (self._folder / "plan.json").write_bytes(_head_bytes(head))
            for path in self._folder.iterdir():
                sync_file(path)
            sync_folder(self._folder)
            try:
                self._folder.rename(self._target)
            except OSError:
                if not (self._target / "plan.json").exists():
                    raise
                remove_tree(self._folder)
            sync_folder(self._target.parent)
        plan = Plan(self._target)
        if plan.hash != head["hash"]:  # another run planned at the same time
            lines = differences(plan, self._job, self._options) or [
                f"items: {plan.count} there, {self.count} others asked"
            ]
            plan.close()
            raise UsageError(
                f"{self._target.parent.parent}: another run just planned otherwise.\n  " + "\n  ".join(lines)
            )
        return plan

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # what is still buffered for a full disk
            self._file.close()
        remove_tree(self._folder)


def plan_hash(job: str, options: dict[str, Any], items_hash: str) -> str:
    """Hash of all that decides the bytes of the output."""
    text = json.dumps([VERSION, job, options, items_hash], sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode())


def exists(bookkeeping: Path) -> bool:
    """True where a plan was frozen."""
    return (bookkeeping / "plan" / "plan.json").exists()


def differences(plan: Plan, job: str, options: dict[str, Any]) -> list[str]:
    """What the plan on disk and the configuration asked for disagree on, one line each."""
    lines = [] if plan.job == job else [f"job: {plan.job} there, {job} asked"]
    for key in sorted({*plan.options, *options}):
        there, asked = plan.options.get(key), options.get(key)
        if there != asked:
            lines.append(f"{key}: {json.dumps(there)} there, {json.dumps(asked)} asked")
    return lines


def _offsets(folder: Path, count: int) -> np.ndarray:
    """int64 [N + 1], of lines that fill items.jsonl: nothing is allocated for a count that is not there."""
    index, lines = folder / "items.idx", folder / "items.jsonl"
    try:
        nbytes, end = index.stat().st_size, lines.stat().st_size
        if nbytes != 8 * (count + 1):
            raise UsageError(f"{index}: {nbytes} bytes long, expected {8 * (count + 1)}. {_ANEW}")
        offsets = np.fromfile(index, dtype="<i8")
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read ({error.strerror}). {_ANEW}") from error
    if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] <= offsets[:-1]).any():
        raise UsageError(f"{index}: is not that of {lines.name}; one of them is altered. {_ANEW}")
    return offsets


def _order(path: Path, count: int) -> np.ndarray | None:
    order = _array(path, "<i8", count)
    if order is None or count == 0:
        return order
    if order.min() < 0 or order.max() >= count or (np.bincount(order, minlength=count) != 1).any():
        raise UsageError(f"{path}: is no order of {count} items. {_ANEW}")
    return order


def _array(path: Path, dtype: str, count: int) -> np.ndarray | None:
    """An array of the plan; None where it has none."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of the format")
            shape, _, there = np.lib.format.read_array_header_1_0(file)
            if shape != (count,) or there != np.dtype(dtype):
                raise ValueError(f"it holds {there} {list(shape)}, expected {np.dtype(dtype)} [{count}]")
            values = np.fromfile(file, there, count)
            if len(values) != count:
                raise ValueError("it is cut short")
    except (ValueError, TypeError, SyntaxError, RecursionError, TokenError, OSError) as error:
        raise UsageError(f"{path}: is altered ({_brief(error)}). {_ANEW}") from error
    return values


def _brief(met: object) -> str:
    """In a line, however long it is."""
    return str(met)[:200].replace("\n", " ")


def _head(folder: Path) -> dict[str, Any]:
    path = folder / "plan.json"
    try:
        head = json.loads(path.read_bytes())
        version = head.get("version")
        checksum = _head_checksum(head)
    except (ValueError, AttributeError, RecursionError, OSError) as error:
        raise UsageError(f"{path}: is no plan ({_brief(error)}). {_ANEW}") from error
    if version != VERSION:
        raise UsageError(
            f"{folder}: plan version {version!r}, this gpupipe reads {VERSION}. "
            "Use the gpupipe that made it, or another output folder."
        )
    if head.get("checksum") != checksum:
        raise UsageError(f"{path}: is altered. {_ANEW}")
    for key, kind in _HEAD.items():
        if type(head.get(key)) is not kind:
            raise UsageError(f"{path}: {key} is {_brief(repr(head.get(key)))}. {_ANEW}")
    if head["count"] < 0:
        raise UsageError(f"{path}: count is {head['count']}. {_ANEW}")
    if not set(head["files"]) <= _FILES:
        raise UsageError(f"{path}: files are {_brief(', '.join(sorted(head['files'])))}. {_ANEW}")
    if head["hash"] != plan_hash(head["job"], head["options"], head["items_hash"]):
        raise UsageError(f"{path}: hash is not that of its words. {_ANEW}")
    return dict(head)


def _head_bytes(head: dict[str, Any]) -> bytes:
    text = json.dumps({**head, "checksum": _head_checksum(head)}, indent=1, sort_keys=True)
    return f"{text}\n".encode()


def _head_checksum(head: dict[str, Any]) -> str:
    text = json.dumps({key: value for key, value in head.items() if key != "checksum"}, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode())
