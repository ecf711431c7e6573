"""The ledger: what became of each item, in SQLite, one row an item that has an outcome.

An item without a row is pending, so that a plan of a million items costs nothing here. One writer a
ledger: the supervisor of its run shard. The order is always: data synced, then rows committed, in groups.

The journal is a rollback journal, not WAL: WAL needs shared memory and breaks on network file systems,
and with commits in groups it would gain nothing measurable.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.errors import GpupipeError, OutputError, UsageError
from gpupipe.outcome import FAILED, Event, Outcome, RunRecord
from gpupipe.sinks.parquet import storable

LOCK_SECONDS = 60.0  # who reads the ledger keeps its writer waiting; longer than that is no reading
_PAGE_ROWS = 4096


_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "dict": dict}
_STORAGE = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip
"""Errors that say nothing against the ledger itself."""


def _row(of: Outcome | Event) -> tuple[Any, ...]:
    return tuple(storable(value) if isinstance(value, str) else value for value in astuple(of))


def _kinds(table: type) -> dict[str, type]:
    return {field.name: _TYPES[str(field.type).partition("[")[0]] for field in fields(table)}


_KINDS = tuple(_kinds(Outcome).values())
_EVENT_KINDS = tuple(_kinds(Event).values())
_RUN_KINDS = _kinds(RunRecord)
_COLUMNS = [field.name for field in fields(Outcome)]
_EVENT_COLUMNS = [field.name for field in fields(Event)]
_SCHEMA = f"""
create table if not exists items (ordinal integer primary key, {", ".join(_COLUMNS[1:])}) without rowid;
create index if not exists items_state on items (state, error);
create table if not exists meta (key text primary key, value) without rowid;
create table if not exists runs (started real primary key, record) without rowid;
create table if not exists events ({", ".join(_EVENT_COLUMNS)});
"""
_ADD_EVENT = f"insert into events values ({', '.join('?' * len(_EVENT_COLUMNS))})"
_UPSERT = f"insert or replace into items ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))})"


class Ledger:
    """One run shard's ledger, open for writing or reading."""

    def __init__(self, path: Path, plan_hash: str | None = None) -> None:
        """Open for reading; with `plan_hash`, for writing, made if absent.

        Raises
        ------
        UsageError
            The ledger belongs to another plan.
        OutputError
            The file cannot be made or is no ledger.
        """
        self.path = path
        self.born = True
        try:
            with reading(path):
                self._open(plan_hash)
        except BaseException:
            if hasattr(self, "_db"):
                self.close()
            raise

    def _open(self, plan_hash: str | None) -> None:
        path = self.path
        if plan_hash is None:
            # Where it may be written, a reader finishes what a killed writer left half-done (a hot journal).
            mode = "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=LOCK_SECONDS)
            self.born = bool(self._db.execute("select 1 from sqlite_master where name = 'meta'").fetchone())
        else:
            self._db = sqlite3.connect(path, timeout=LOCK_SECONDS)
            self._db.execute("pragma journal_mode = truncate")
            self._db.execute("pragma synchronous = full")
            self._db.executescript(f"begin;{_SCHEMA}commit;")  # all of it or nothing, for whoever reads it next
            there = self.meta("plan")
            if there is None:
                self.commit([], plan=plan_hash)
            elif there != plan_hash:
                raise UsageError(f"{path}: belongs to another plan ({there}). Use another output folder.")

    def commit(
        self, outcomes: Iterable[Outcome], run: RunRecord | None = None, events: Iterable[Event] = (), **meta: Any
    ) -> None:
        """Write a group of outcomes, and what else is new, in one durable transaction. The data must be synced before.

        Events stay what they are; everything else replaces what stood there. Messages may name files whose names are
        not UTF-8: such letters are written out.
        """
        try:
            with self._db:
                self._db.executemany(_UPSERT, map(_row, outcomes))
                self._db.executemany(_ADD_EVENT, map(_row, events))
                if run is not None:
                    self._db.execute("insert or replace into runs values (?, ?)", (run.started, _dumps(asdict(run))))
                self._db.executemany(
                    "insert or replace into meta values (?, ?)", [(key, _dumps(value)) for key, value in meta.items()]
                )
        except sqlite3.Error as error:
            raise _output_error(self.path, error) from error

    def check(self, count: int) -> None:
        """Look at the ends of the indexes, which costs nothing however many rows there are.

        Raises
        ------
        OutputError
            An item that a plan of `count` items does not have, or in no state that there is.
        """
        with reading(self.path):
            for column, most in (("ordinal", count - 1), ("state", FAILED)):
                query = f"select (select min({column}) from items), (select max({column}) from items)"
                for end in self._db.execute(query).fetchone():
                    if end is not None and not (type(end) is int and 0 <= end <= most):
                        raise ValueError(f"{column} {_brief(end)}, expected 0 to {most}")
            if self._db.execute("select 1 from items where state is null limit 1").fetchone():
                raise ValueError("an item without a state")

    def meta(self, key: str) -> Any:
        """A value kept with the ledger; None where there is none."""
        with reading(self.path):
            row = self._db.execute("select value from meta where key = ?", (key,)).fetchone()
            return None if row is None else json.loads(row[0])

    def runs(self) -> list[RunRecord]:
        """Every run so far, the earliest first."""
        with reading(self.path):
            return [_run(text) for (text,) in self._db.execute("select record from runs order by started")]

    def events(self) -> Iterator[Event]:
        """What happened, in its order."""
        with reading(self.path):
            rows = self._db.execute(f"select {', '.join(_EVENT_COLUMNS)} from events order by at, rowid")
            for row in _typed(rows, _EVENT_KINDS):
                yield Event(*row)

    def counts(self) -> dict[tuple[int, str], int]:
        """Items by (state, error), from the index alone."""
        with reading(self.path):
            rows = self._db.execute("select state, error, count(*) from items group by state, error")
            return {(state, error): count for state, error, count in _typed(rows, (int, str, int))}

    def states(self) -> np.ndarray:
        """int64 [3, rows]: ordinal, state and epoch of every row."""
        with reading(self.path):
            rows = self._db.execute("select ordinal, state, epoch from items")
            flat = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64)
        return flat.reshape(-1, 3).T

    def outcomes(self, state: int | None = None) -> Iterator[Outcome]:
        """Every row, or those of one state, by ordinal."""
        where = "" if state is None else f"and state = {int(state)}"
        for row in self._pages(_COLUMNS, _KINDS, where):
            yield Outcome(*row)

    def outcome(self, ordinal: int) -> Outcome | None:
        """The row of one item; None where it has none."""
        with reading(self.path):
            rows = self._db.execute(f"select {', '.join(_COLUMNS)} from items where ordinal = ?", (ordinal,)).fetchall()
            return next((Outcome(*row) for row in _typed(rows, _KINDS)), None)

    def fingerprints(self) -> Iterator[tuple[int, int, str, int]]:
        """Ordinal, state, fingerprint and epoch of every row that is not pending, by ordinal."""
        return self._pages(["ordinal", "state", "fingerprint", "epoch"], (int, int, str, int), "and state != 0")

    def _pages(self, columns: list[str], kinds: tuple[type, ...], where: str) -> Iterator[Any]:
        # Who looks at a file for every row would else keep the writer of a run that is at work waiting.
        last = -1
        query = f"select {', '.join(columns)} from items where ordinal > ? {where} order by ordinal limit {_PAGE_ROWS}"
        with reading(self.path):
            while rows := self._db.execute(query, (last,)).fetchall():
                yield from _typed(rows, kinds)
                last = rows[-1][0]

    def measures(self) -> Iterator[tuple[int, int, int, int, str, int, float, float, int, int]]:
        """Ordinal, state, epoch, worker, backend, attempts, seconds, finished, nbytes and the input's size in bytes (0
        where it had none) of every row that is not pending, by ordinal; the words of failures are left where they are.
        """
        kinds = (int, int, int, int, str, int, float, float, int, int)
        with reading(self.path):
            rows = self._db.execute(
                "select ordinal, state, epoch, worker, backend, attempts, seconds, finished, nbytes, "
                "cast(fingerprint as integer) from items where state != 0 order by ordinal"  # "size:mtime_ns" begins so
            )
            yield from _typed(rows, kinds)

    def close(self) -> None:
        """Close the database."""
        self._db.close()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what is met while reading a ledger that others altered into an :class:`OutputError` that names it."""
    try:
        yield
    except GpupipeError:  # some of ours are ValueErrors too
        raise
    except sqlite3.Error as error:
        raise _output_error(path, error) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(where: object, what: object) -> OutputError:
    """The error of a ledger that others altered: where and how."""
    return OutputError(
        0,
        f"{where}: the ledger is damaged ({_brief(what)}). Put it back from a copy; or move it away and run the same "
        "command again, which does its items anew.",
    )


def _output_error(path: Path, error: sqlite3.Error) -> OutputError:
    # The lower byte says what kind it is; where there is none, a value could not be made of what was read.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _STORAGE:
        return OutputError(0, f"{path}: {error}. {_advice(error)}")
    return damaged(path, error)


def _brief(met: object) -> str:
    return str(met)[:200].replace("\n", " ")


def _typed(rows: Iterable[tuple[Any, ...]], kinds: tuple[type, ...]) -> Iterator[tuple[Any, ...]]:
    """The rows; raises ``ValueError`` where SQLite, which stores anything anywhere, has a value of another type."""
    for row in rows:
        if tuple(map(type, row)) != kinds:  # the quick look first: this is done for every row
            wrong = [value for value, kind in zip(row, kinds, strict=True) if not _is(value, kind)]
            if wrong:
                raise ValueError(f"{_brief(repr(wrong[0]))} in the row of {_brief(repr(row[0]))}")
        yield row


def _is(value: Any, kind: type) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)


def _run(text: Any) -> RunRecord:
    record = RunRecord(**json.loads(text))
    for name, kind in _RUN_KINDS.items():
        if not _is(value := getattr(record, name), kind):
            raise ValueError(f"{name} of a run is {_brief(repr(value))}")
    numbers = [record.started, record.at, record.seconds, record.rate, record.cpu_seconds, *record.stages.values()]
    if not all(_is(number, float) and math.isfinite(number) for number in numbers):
        raise ValueError("a time of a run is no number")
    return record


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _advice(error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return "Another process has it open: end that (fuser names it) and run the same command again."
    return "Run the same command again once the storage is well."
