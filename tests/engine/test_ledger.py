import sqlite3
import time
from dataclasses import replace

import numpy as np
import pytest

from gpupipe.errors import OutputError, UsageError
from gpupipe.ledger import DONE, FAILED, PENDING, Ledger, Ledgers, Outcome


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
