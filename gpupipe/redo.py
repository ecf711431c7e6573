"""Which items that have an outcome are worked again: those whose input is another now, and those a person names.

Only says which. The caller commits them as pending, durably, before a byte of the output changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from gpupipe.errors import UsageError
from gpupipe.fingerprint import change
from gpupipe.job import Job
from gpupipe.ledgers import Ledgers
from gpupipe.outcome import FAILED
from gpupipe.plan import Plan


@dataclass(frozen=True)
class Choice:
    """Failed items to be tried again.

    Attributes
    ----------
    reasons : frozenset of str
        Error types, as ``failed.jsonl`` has them; empty for any.
    ids : frozenset of str
        Ids or ordinals, as ``failed.jsonl`` has them; empty for any.
    """

    reasons: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    def ordinals(self, job: Job, plan: Plan, ledgers: Ledgers, owned: np.ndarray) -> list[int]:
        """Those of the owned items.

        Raises
        ------
        UsageError
            A reason or an id that no failed item has.
        """
        reasons, ids, found = set(self.reasons), set(self.ids), []
        for outcome in ledgers.outcomes(FAILED):
            if not owned[outcome.ordinal]:
                continue
            names = {str(outcome.ordinal)}
            if self.ids:
                names.add(job.item_id(outcome.ordinal, plan.item(outcome.ordinal)))
            if (self.reasons and outcome.error not in self.reasons) or (self.ids and not names & self.ids):
                continue
            reasons.discard(outcome.error)
            ids -= names
            found.append(outcome.ordinal)
        for flag, left in (("--reason", reasons), ("--ids", ids)):
            if left:
                raise UsageError(f"{flag} {' '.join(sorted(left))}: no failed item has that; see failed.jsonl")
        return found


@dataclass(frozen=True)
class Changes:
    """What became of the inputs of the items that have an outcome.

    Attributes
    ----------
    done, failed : list of int
        Ordinals whose input is another file now.
    gone : int
        Done items whose input is no more: they stay as they are.
    """

    done: list[int]
    failed: list[int]
    gone: int


def changes(job: Job, plan: Plan, ledgers: Ledgers, owned: np.ndarray) -> Changes:
    """Look at every input again."""
    done: list[int] = []
    failed: list[int] = []
    gone = 0
    for (ordinal, state, before), item in plan.beside(ledgers.fingerprints(), itemgetter(0)):
        if not owned[ordinal]:
            continue
        what = change(before, job.input_file(item))
        if state == FAILED and what != "same":  # what was bad and is no more has another reason now
            failed.append(ordinal)
        elif what == "changed":
            done.append(ordinal)
        elif what == "gone":
            gone += 1
    return Changes(done, failed, gone)
