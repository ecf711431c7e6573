"""The supervisor: deals leases to worker processes, takes their outcomes, commits them in groups, replaces the dead.

It never touches a pixel and decides nothing about bytes. One thread, one loop: messages, deaths, commits, display.
"""

from __future__ import annotations

import selectors
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpupipe.commits import GroupCommit
from gpupipe.death import death, judge
from gpupipe.errors import OutputError, StoppedError
from gpupipe.fingerprint import fingerprint
from gpupipe.job import Job
from gpupipe.leases import Leases
from gpupipe.ledger import Ledger
from gpupipe.machine import Usage, oom_kills
from gpupipe.member import Member
from gpupipe.outcome import FAILED, PENDING, Event, Outcome, RunRecord
from gpupipe.plan import Plan
from gpupipe.posts import Post
from gpupipe.progress import Reporter
from gpupipe.pulse import Beat
from gpupipe.sinks.base import Place, Sink
from gpupipe.summary import FAILURE_RATE
from gpupipe.tally import Tally
from gpupipe.watchdog import Watchdog, patience

LEASES_AHEAD = 2  # one at work, one waiting, so that no worker idles for a message
CRASHES_ALLOWED = 1  # a suspect is tried once more, alone
IDLE_DEATHS_ALLOWED = 3  # in a row, no item finished between them
JUDGED_ITEMS = 100  # fewer say nothing about a run's failure rate
_TICK_SECONDS = 0.2
_ADVICE = {
    "crash": "Keep the file out, or report it.",
    "hang": "If it only needs long: gpupipe retry with a longer --item-timeout.",
    "memory": "gpupipe retry with a larger --memory-per-worker, or on a machine with more.",
}


class Supervisor:
    """Runs the pending items of one run shard with N worker processes on this machine.

    Parameters
    ----------
    setup : dict
        What every worker is told (:class:`gpupipe.worker.Setup` without its number, and ``bookkeeping``).
    plan : Plan
    states : numpy.ndarray
        uint8 [N], the ledger's state of each item; those not owned are marked done by the caller's `owned`.
    owned : numpy.ndarray
        bool [N], items of this run shard.
    job : Job
        Names the place and the input of a quarantined item.
    record : RunRecord
        Of this run; kept up to date and committed.
    """

    def __init__(
        self,
        setup: dict[str, Any],
        plan: Plan,
        states: np.ndarray,
        owned: np.ndarray,
        ledger: Ledger,
        epoch: int,
        sink: Sink,
        place: Place,
        posts: Sequence[Post],
        reporter: Reporter,
        group_starts: np.ndarray | None,
        job: Job,
        record: RunRecord,
        fail_fast: bool = False,
        max_failure_rate: float | None = None,
        item_timeout: float | None = None,
        on_commit: Callable[[], None] | None = None,
    ) -> None:
        self._setup, self._plan, self._epoch = setup, plan, epoch
        self._sink, self._place, self._reporter, self._job = sink, place, reporter, job
        self._fail_fast, self._max_failure_rate = fail_fast, max_failure_rate
        self._watchdog = Watchdog(patience(job, plan, item_timeout))
        self._commits = GroupCommit(ledger, sink, place, states, owned, on_commit)
        self._tally = Tally(states, owned, record, posts)
        self.snapshot = self._tally.snapshot
        pending = owned & (states == PENDING)
        order = plan.order
        self._positions = None if order is None else np.argsort(order)
        self._leases = Leases(pending if order is None else pending[order], group_starts)
        self._posts = list(posts)
        self._workers = min(len(posts), self._leases.left)  # at a time; a lost card's place is another post's
        self._lost: set[str] = set()  # cards that no longer answer
        self._members: dict[int, Member] = {}
        self._selector = selectors.DefaultSelector()
        self._crashes: Counter[int] = Counter()
        self._idle_deaths = self._failures = 0
        self._oom = oom_kills()
        self.stop_reason = ""
        self._told = False

    # ---- the loop

    def run(self) -> None:
        """Work until every item has an outcome or :meth:`stop` was called.

        Raises
        ------
        OutputError, StoppedError
            The run cannot go on; what was finished is committed.
        """
        try:
            self._commits.open_shards()
            while self._leases.left or self._members:
                if self.stop_reason:
                    self._stop()
                self._end_hung()
                self._staff()
                for key, _ in self._selector.select(_TICK_SECONDS):
                    self._hear(key.data)
                if self._commits.due:
                    self._commit()
                self._show()
            self._commit()
            self._show()
        except BaseException:
            self._end_all()
            self._commit_what_is_sound()
            raise
        finally:
            self._end_all()
            self._selector.close()
            self._commits.close()
            self._tally.close()

    def stop(self, reason: str) -> None:
        """Ask that every worker finishes the item in hand and the run then ends; may be called by a signal handler."""
        self.stop_reason = self.stop_reason or reason

    def _stop(self) -> None:
        if not self._told:
            self._told = True
            self._note("stop", self.stop_reason)
            self._reporter.notice(f"{self.stop_reason}: finishing the items in hand; Ctrl-C (again) ends at once")
        self._leases.clear()
        for member in self._members.values():
            member.dismiss()

    def _end_hung(self) -> None:
        """End workers that are on one item for too long: their deaths are seen like any other."""
        for member, late in self._watchdog.overdue(self._members.values()):
            member.hung, member.late = True, late
            member.process.kill()

    def _staff(self) -> None:
        """Keep as many workers as there is work for, and each supplied."""
        for number, post in enumerate(self._posts):
            if len(self._members) == self._workers or not self._leases.left:
                break
            if number not in self._members and self._open(post):
                try:
                    member = Member.spawn(number, self._setup, self._place.staging.parent, post=post)
                except OSError as error:
                    raise StoppedError(
                        f"cannot start worker {number + 1} of {self._workers}: {error}. Use fewer with --num-workers."
                    ) from error
                self._members[number] = member
                self._selector.register(member.wire, selectors.EVENT_READ, member)
        for member in list(self._members.values()):
            self._supply(member)

    def _open(self, post: Post) -> bool:
        """True if a worker may start there now: the workers of one card start one after another."""
        if not post.gpu:
            return True
        starting = (member for member in self._members.values() if member.post.gpu == post.gpu and not member.depth)
        return post.gpu not in self._lost and next(starting, None) is None

    def _supply(self, member: Member) -> None:
        if member.stopping:
            return
        while len(member.leases) < LEASES_AHEAD and not member.alone:
            lease = self._leases.take(self._workers, member.rate(), not member.leases, max(1, member.depth))
            if lease is None:
                break
            member.lease(*lease, alone=lease[0] in self._crashes)
        if not member.leases and not self._leases.left and not self._others_busy(member):
            member.dismiss()

    def _others_busy(self, member: Member) -> bool:
        # While others still hold leases one of them may die and give work back.
        return any(other.outstanding for other in self._members.values() if other is not member)

    # ---- what workers say

    def _hear(self, member: Member) -> None:
        for message in member.wire.receive():
            if "fatal" in message:
                raise StoppedError(message["fatal"])
            elif "starved" in message:
                member.starved = message["starved"]
            elif "lost" in message:
                member.lost = message["lost"]
            elif "note" in message:
                self._note("device", message["note"], member.number)
                self._reporter.notice(message["note"])
            elif "audit" in message:
                self._audited(member, message["audit"], message["difference"])
            elif "recycle" in message:
                member.recycled = True
                self._note("recycle", message["recycle"], member.number)
            else:
                member.depth = message.get("depth", member.depth)
                before, member.usage = member.usage, Usage(*message["usage"])
                self._tally.use(message["stages"], before, member.usage)
                for row in message["completed"]:
                    self._complete(member, row)
        if member.wire.closed:
            self._bury(member)

    def _audited(self, member: Member, ordinal: int, difference: str) -> None:
        self.snapshot.audited += 1
        if difference:
            self.snapshot.differences += 1
            text = f"audit: FFmpeg and {member.post.label} differ: {difference}"
            self._note("audit", text, member.number, ordinal)
            self._reporter.notice(text)

    def _note(self, kind: str, text: str, worker: int = -1, ordinal: int = -1) -> None:
        self._commits.note(Event(time.time(), kind, worker, ordinal, text))

    def _complete(self, member: Member, row: list[Any]) -> None:
        ordinal, state, seconds, backend, fingerprint, checksum, nbytes, stage, error, message, record = row
        position = self._position(ordinal)
        member.complete(position)
        self._idle_deaths = 0
        outcome = Outcome(
            ordinal,
            state,
            1 + self._crashes[position],
            seconds,
            member.number,
            backend,
            fingerprint,
            checksum,
            nbytes,
            stage,
            error,
            message,
            record,
            time.time(),
            self._epoch,
        )
        self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        self._commits.add(outcome)
        self._tally.add(outcome)
        if outcome.state == FAILED:
            self._failures += 1
            if self._fail_fast:
                self.stop(f"--fail-fast: item {outcome.ordinal} failed: {outcome.message}")
            self._judge()

    def _judge(self) -> None:
        """Stop a run most of whose items fail: it is asked for wrongly, and would only take its time to say so."""
        shown, bound = self.snapshot, self._max_failure_rate
        worked = shown.done + shown.failed - shown.earlier
        if bound is not None and worked >= JUDGED_ITEMS and self._failures > bound * worked:
            (reason, count), *_ = shown.reasons.most_common(1)
            self.stop(
                f"{FAILURE_RATE} {bound:g}: {self._failures} of {worked} items failed, {count} of them with "
                f"{reason}. If that is as it should be, raise it or use --continue-on-error"
            )

    def _position(self, ordinal: int) -> int:
        return ordinal if self._positions is None else int(self._positions[ordinal])

    # ---- deaths

    def _bury(self, member: Member) -> None:
        """Reap a dead worker, then give its items back: never before, or two processes could write one row."""
        self._selector.unregister(member.wire)
        status = member.reap()
        at_work = {beat.ordinal: beat for beat in member.pulse.items() if beat.ordinal is not None}
        member.pulse.close()
        del self._members[member.number]
        oom, self._oom = self._oom, oom_kills()
        spared = oom is not None and oom == self._oom
        on_lost = member.lost is not None or member.post.gpu in self._lost
        found = judge(member, status, at_work, self._position, spared, on_lost)
        back = member.outstanding - found.suspects.keys()
        for position, beat in found.suspects.items():
            self._suspect(position, beat, found.error, found.why)
        if found.auditing is not None:
            text = f"item {found.auditing} was done, and making it again ended its process: {found.why}"
            self._audited(member, found.auditing, text)
        if member.lost is not None:
            self._retire(member)
        if not self.stop_reason:
            alone = {position for position in back if position in self._crashes}  # suspects stay so, whoever died
            self._leases.give_back(back - alone)
            for position in alone:
                self._leases.try_alone(position)
        if status == 0 and (member.stopping or member.recycled or not member.outstanding):
            return
        text = f"worker {member.number} died ({found.why}), {len(member.outstanding)} items go back"
        ordinal = next(iter(at_work)) if len(at_work) == 1 else -1
        self._note("hang" if member.hung else "death", text, member.number, ordinal)
        self._reporter.notice(text)
        self.snapshot.deaths += 1
        if member.outstanding and not found.suspects and not found.innocent and found.auditing is None:
            self._idle_deaths += 1
            if self._idle_deaths >= IDLE_DEATHS_ALLOWED:
                tail = member.log.read_text(errors="replace")[-2000:].strip()
                raise StoppedError(f"workers die without an item in hand ({death(status)}); {member.log} ends:\n{tail}")

    def _retire(self, member: Member) -> None:
        """No worker starts on that card again in this run; others on it may go on as long as they can."""
        if member.post.gpu in self._lost:
            return
        self._lost.add(member.post.gpu)
        self._note("device", f"{member.post.label} is not used any more: {member.lost}", member.number)
        if all(post.gpu in self._lost for post in self._posts):
            raise StoppedError(
                f"no device is left: {member.lost}. See gpupipe doctor; the same command continues, with --backend "
                "ffmpeg on CPU cores"
            )

    def _suspect(self, position: int, beat: Beat, error: str, why: str) -> None:
        self._crashes[position] += 1
        if self._crashes[position] <= CRASHES_ALLOWED:
            if not self.stop_reason:
                self._leases.try_alone(position)
            return
        ordinal = self._plan.ordinal(position)
        item = self._plan.item(ordinal)
        self._sink.void(ordinal, self._job.blob_name(ordinal, item))
        message = (
            f"two workers ended on this item, the second with nothing else in hand; the last time in stage "
            f"{beat.stage or 'unknown'}: {why}. {_ADVICE[error]}"
        )
        self._settle(
            Outcome(
                ordinal,
                FAILED,
                self._crashes[position],
                beat.seconds,
                fingerprint=fingerprint(self._job.input_file(item)),
                stage=beat.stage,
                error=error,
                message=message,
                finished=time.time(),
                epoch=self._epoch,
            )
        )

    def _end_all(self) -> None:
        for member in self._members.values():
            member.process.kill()
        for member in self._members.values():
            member.reap()
            member.pulse.close()
        self._members.clear()

    # ---- the ledger and the display

    def _commit(self) -> None:
        self._commits.commit(self._tally.record(len(self._members)))

    def _commit_what_is_sound(self) -> None:
        # The run is ending on an error that is being raised: a second one (a disk that is still full) adds nothing,
        # and what is not committed is done again.
        count = self._commits.waiting
        try:
            self._commit()
        except OutputError as error:
            self._reporter.notice(f"the last {count} outcomes could not be kept: {error}")

    def _show(self) -> None:
        self._reporter.update(self._tally.look(self._members.values()))
