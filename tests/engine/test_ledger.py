import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from gpupipe.errors import OutputError, UsageError
from gpupipe.ledger import Ledger
from gpupipe.ledgers import Ledgers
from gpupipe.outcome import DONE, FAILED, PENDING, Event, Outcome, RunRecord


@pytest.fixture
def shard(tmp_path):
    def make(number=0):
        folder = tmp_path / f"shard-{number}"
        folder.mkdir(exist_ok=True)
        return folder / "ledger.db"

    return make


def test_outcomes_come_back_as_they_went_in(shard, tmp_path):
    told = Outcome(7, FAILED, 2, 1.5, 3, "ffmpeg", "9:8", "", 0, "decode", "CorruptError", "frame 3 é", "", 12.0, 1)
    ledger = Ledger(shard(), "plan")
    ledger.commit([told, Outcome(2, DONE, record='{"pts": [0.5]}')], answer=4.5)
    assert list(ledger.outcomes(FAILED)) == [told]
    assert [outcome.ordinal for outcome in ledger.outcomes()] == [2, 7]
    assert ledger.meta("answer") == 4.5
    assert ledger.meta("nothing") is None
    ledger.close()


def test_a_later_outcome_replaces_the_earlier(shard):
    ledger = Ledger(shard(), "plan")
    first = Outcome(1, FAILED, error="x")
    ledger.commit([first])
    ledger.commit([replace(first, state=DONE, error="")])
    assert ledger.counts() == {(DONE, ""): 1}
    ledger.close()


def test_another_plans_ledger_is_refused(shard):
    Ledger(shard(), "plan").close()
    with pytest.raises(UsageError, match="another plan"):
        Ledger(shard(), "other")


def test_a_file_that_is_no_ledger_is_an_error_of_the_output(shard):
    shard().write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(OutputError, match=r"ledger\.db"):
        Ledger(shard(), "plan")


def test_of_several_rows_the_highest_epoch_counts(shard, tmp_path):
    first, second = Ledger(shard(0), "plan"), Ledger(shard(1), "plan")
    first.commit([Outcome(n, DONE, epoch=0) for n in range(6)] + [Outcome(6, DONE, epoch=2)])
    second.commit([Outcome(3, PENDING, epoch=1), Outcome(4, FAILED, error="x", epoch=1), Outcome(6, FAILED, epoch=1)])
    both = Ledgers(tmp_path, epoch=2)
    np.testing.assert_array_equal(both.states(8), [1, 1, 1, 0, 2, 1, 1, 0])
    assert [outcome.ordinal for outcome in both.outcomes(DONE)] == [0, 1, 2, 5, 6]
    assert both.counts() == {(DONE, ""): 5, (PENDING, ""): 1, (FAILED, "x"): 1}
    for each in (both, first, second):
        each.close()


READERS = {
    "outcomes": lambda ledgers: list(ledgers.outcomes()),
    "counts": lambda ledgers: ledgers.counts(),
    "states": lambda ledgers: ledgers.states(3),
    "fingerprints": lambda ledgers: list(ledgers.fingerprints()),
    "outcome": lambda ledgers: [ledgers.outcome(n) for n in range(3)],
    "runs": lambda ledgers: ledgers.runs(),
    "events": lambda ledgers: list(ledgers.events()),
    "measures": lambda ledgers: [list(ledger.measures()) for ledger in ledgers.ledgers],
}


@pytest.mark.parametrize(
    ("harm", "readers"),
    [
        ("update items set epoch = 'x'", {"outcomes", "states", "fingerprints", "outcome", "measures"}),
        ("update items set error = null", {"outcomes", "counts", "outcome"}),
        ("update items set error = cast(x'ff' as text)", {"outcomes", "counts", "outcome"}),
        ("update items set fingerprint = x'00'", {"outcomes", "fingerprints", "outcome"}),
        ("update items set seconds = 'long'", {"outcomes", "outcome", "measures"}),
        ("drop table items", {*READERS} - {"runs", "events"}),
        ("drop table runs", {"runs"}),
        ("update runs set record = '{}'", {"runs"}),
        ("update runs set record = '[[['", {"runs"}),
        ("update runs set record = replace(record, '1.5', '1e999')", {"runs"}),
        ("update runs set record = replace(record, '1.5', '\"x\"')", {"runs"}),
        ("drop table events", {"events"}),
        ("update events set at = 'noon'", {"events"}),
    ],
)
def test_what_others_wrote_is_an_error_of_the_output(shard, tmp_path, harm, readers):
    """It names the ledger and the next step; what is whole can still be read."""
    ledger = Ledger(shard(), "plan")
    ledger.commit([Outcome(n, DONE) for n in range(3)], RunRecord(1.5), [Event(2.0, "stop", -1, -1, "")])
    ledger.close()
    with closing(sqlite3.connect(shard())) as database:
        database.executescript(harm)
    with closing(Ledgers(tmp_path, epoch=0)) as ledgers:
        for name, read in READERS.items():
            if name in readers:
                with pytest.raises(OutputError, match=r"ledger\.db: the ledger is damaged .* move it away"):
                    read(ledgers)
            else:
                read(ledgers)


@pytest.mark.parametrize("wrong", ["ordinal = -1", "ordinal = 3", "ordinal = 'x'", "state = 3", "state = -1",
                                   "state = null", "state = x'01'", "state = 'done'"])  # fmt: skip
def test_items_and_states_that_cannot_be_are_found_at_once(shard, tmp_path, wrong):
    ledger = Ledger(shard(), "plan")
    ledger.commit([Outcome(n, DONE) for n in range(3)])
    ledger.close()
    Ledgers(tmp_path, 0, 3).close()
    with closing(sqlite3.connect(shard())) as database:
        database.executescript(f"update items set {wrong} where ordinal = 2")
    with pytest.raises(OutputError, match="the ledger is damaged"):
        Ledgers(tmp_path, 0, 3)


def test_an_item_of_two_ledgers_of_one_layout_is_found(shard, tmp_path):
    for number in (0, 1):
        ledger = Ledger(shard(number), "plan")
        ledger.commit([Outcome(1, DONE)])
        ledger.close()
    with closing(Ledgers(tmp_path, epoch=0)) as ledgers:
        for read in (ledgers.outcomes, ledgers.fingerprints):
            with pytest.raises(OutputError, match="item 1"):
                list(read())


def test_a_reader_does_not_stop_the_writer(shard, tmp_path):
    ledger = Ledger(shard(), "plan")
    ledger.commit([Outcome(n, DONE) for n in range(5000)])
    reader = sqlite3.connect(shard())
    rows = reader.execute("select * from items")
    rows.fetchone()
    rows.close()
    ledger.commit([Outcome(5000, DONE)])
    reader.close()
    ledger.close()


def test_a_million_rows_are_counted_at_once(shard, tmp_path):
    ledger = Ledger(shard(), "plan")
    ledger.close()
    with sqlite3.connect(shard()) as db:
        db.execute(
            "insert into items (ordinal, state, error, epoch) "
            "with recursive n(i) as (select 0 union all select i + 1 from n where i < 999999) "
            "select i, 1 + (i % 50 = 0), iif(i % 50 = 0, 'x', ''), 0 from n"
        )
    db.close()
    ledgers = Ledgers(tmp_path, epoch=0)
    began = time.process_time()
    assert ledgers.counts() == {(DONE, ""): 980_000, (FAILED, "x"): 20_000}
    assert time.process_time() - began < 1.0
    ledgers.close()
