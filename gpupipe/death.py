"""The death of a worker process: why it died, and which of the items in its hand may have caused it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from gpupipe.member import Member
from gpupipe.pulse import Beat
from gpupipe.stages import AUDIT


@dataclass(frozen=True)
class Death:
    """One death, judged.

    Attributes
    ----------
    why : str
        For people.
    error : str
        What an item that ended it has failed by: ``"crash"``, ``"hang"`` or ``"memory"``.
    innocent : bool
        No item in hand had to do with it.
    suspects : dict of int to Beat
        The items that may have ended it, by position.
    auditing : int or None
        Ordinal of the done item whose making again ended it.
    """

    why: str
    error: str
    innocent: bool
    suspects: dict[int, Beat]
    auditing: int | None


def judge(
    member: Member, status: int, at_work: dict[int, Beat], position: Callable[[int], int], spared: bool, on_lost: bool
) -> Death:
    """Say why a worker died.

    Parameters
    ----------
    member : Member
        Reaped, as its supervisor last knew it.
    status : int
        How its process ended.
    at_work : dict of int to Beat
        Its last pulse, by ordinal.
    position : callable
        From an ordinal to its position.
    spared : bool
        The out-of-memory killer ended no process of this run meanwhile, for certain.
    on_lost : bool
        Its card no longer answers.
    """
    # SIGKILL comes from the out-of-memory killer or from a person; only the first is the item's doing.
    by_hand = status == -signal.SIGTERM or (status == -signal.SIGKILL and spared)
    # What a card that was lost does to its other workers is no item's doing either, whatever it looks like.
    innocent = on_lost or (by_hand and not member.hung)
    known = member.late if member.hung else member.starved  # else any of those in hand
    suspects = {
        place: beat
        for ordinal, beat in at_work.items()
        if not innocent and known in (None, ordinal) and (place := position(ordinal)) in member.outstanding
    }
    if member.lost is not None:
        why = member.lost
    elif member.hung and member.late is None:
        why = "it did not begin what it was given" if member.outstanding else "it did not end"
    elif member.hung:
        longest = max((beat.seconds for beat in at_work.values()), default=0.0)
        why = f"it was on it for {longest:.0f} s, longer than it may"
    elif status == -signal.SIGKILL and not by_hand:
        why = "the machine ran out of memory"
    elif member.starved is not None:
        why = "it needs more memory than --memory-per-worker grants, or than there is"
    else:
        why = death(status)
    error = "hang" if member.hung else "memory" if member.starved is not None else "crash"
    auditing = next((ordinal for ordinal, beat in at_work.items() if beat.stage == AUDIT), None)
    if innocent or (member.late != auditing if member.hung else suspects):
        auditing = None
    return Death(why, error, innocent, suspects, auditing)


def death(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
