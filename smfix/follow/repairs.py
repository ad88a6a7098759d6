"""The disks of the incidents that are due: found, treated as the policy allows, and nothing else.

Each storage repository's disks are one errand (:mod:`smfix.follow.worker_thread`): one whose storage does not
answer in a moment is left to itself, and holds up nobody else. The errand asks before it writes, and the
answer is given here: by the policy, by the recurrence of damage, and only after it was written down that an
attempt begins.

While the storage manager's GC is at work on an SR, its disks are not looked at again: only GC's lock is, every two
seconds. When GC has ended, or the policy's patience with it, the repair goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from smfix.errors import SmfixError
from smfix.follow import policy
from smfix.follow.incident_state import DAY, Stage, attempted
from smfix.follow.policy import Policy
from smfix.follow.state import FollowerState, TrackedIncident
from smfix.follow.tracker import incident
from smfix.follow.worker_thread import WorkerThread
from smfix.host import storage_probe
from smfix.sm.gc_lock import Collector, GcWait
from smfix.sm.resolve import Found, sr_mounts
from smfix.usecases import from_log, image_relatives
from smfix.usecases.from_log import RunOptions
from smfix.values import Incident, JournalRecord, Outcome, Reason, State, Status, TreatedIncident

_DAMAGED_AGAIN = (Reason.NO_FIX, Reason.NEEDS_CONFIRM)
_WRITTEN = (Status.REPAIRED, Status.PARTLY_REPAIRED, Status.ROLLED_BACK)
_SOUND = Outcome(Status.VALID, "the image is sound")
_STEP = 0.2  # seconds between two looks whether we are to stop
_MOMENT = 2.0  # seconds that the others wait for one storage
_AT_ONCE = 64  # incidents treated before the log is looked at again
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_GC_LOOK = timedelta(seconds=2)  # between two looks whether GC has ended
_BESIDE_GC = GcWait(0.0, "the repair waits for its end")
_IN_ITS_GAP = GcWait(takes_gap=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """A repair wants to write: whose, where, and what is foreseen."""

    case: str
    path: str
    sr: str | None
    outcome: Outcome


@dataclass(slots=True)
class Denied:
    """Why the answer was no. `until`: nothing changes before."""

    status: Status
    reason: Reason | None
    message: str
    until: datetime | None = None


@dataclass(slots=True)
class _Running:
    """An errand that has not come back in a moment. `since`: of the monotonic clock; `given_up`: that was told."""

    sr: str
    told: list[tuple[str, Incident]]
    errand: WorkerThread[Asked, list[TreatedIncident]]
    since: float
    given_up: bool = False


@dataclass(slots=True)
class RepairScheduler:
    """Treats what is due. `may_write`: ``--yes``, or a policy that allows it. `save` makes the ledger durable.

    `foreseen` are the outcomes that were asked about, by incident, until the caller takes them. `touched` are the
    SRs whose locks a repair may have taken, until the caller takes them.
    """

    ledger: FollowerState
    run_options: RunOptions
    may_write: bool
    save: Callable[[], None]
    now: Callable[[], datetime]
    stopping: Callable[[], bool]
    rules: Policy = field(default_factory=Policy)
    patience: float = field(default_factory=storage_probe.patience)
    foreseen: dict[str, Outcome] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    _gc_of: dict[str, Collector] = field(default_factory=dict)  # by incident: the GC whose end it waits for
    _looked_for_gc: datetime = _LONG_AGO
    _denied: dict[str, Denied] = field(default_factory=dict)
    _late: list[_Running] = field(default_factory=list)

    def due(self) -> list[TrackedIncident]:
        """The incidents whose disk is to be looked at now."""
        now = self.now()
        due = [case for case, at in self._waiting() if at <= now]
        if any(case.id in self._gc_of for case in due):
            self._looked_for_gc = now
        return [case for case in due if not self._still_waits_for_gc(case)][:_AT_ONCE]

    def _still_waits_for_gc(self, case: TrackedIncident) -> bool:
        """The GC that this incident waits for is at work still, and the policy has patience with it."""
        before = self._gc_of.get(case.id)
        if before is None or self._is_out_of_patience(case):
            return False
        now = self.run_options.collector(before.sr)
        if now is None:
            del self._gc_of[case.id]
        return now is not None and now.pid == before.pid

    def _is_out_of_patience(self, case: TrackedIncident) -> bool:
        """GC has kept this incident waiting for longer than the policy says."""
        most, life = self.rules.gc_patience, case.life
        waits = life.stage is Stage.WAITING and life.reason == Reason.LOCKED.value
        return most is not None and waits and self.now() - life.since >= most

    def until_due(self) -> float | None:
        """Seconds until there is something to do; None: nothing is waited for."""
        times = [(at - self.now()).total_seconds() for _, at in self._waiting()]
        if self._late:
            times.append(_STEP)
        return max(0.0, min(times)) if times else None

    def _waiting(self) -> list[tuple[TrackedIncident, datetime]]:
        """The incidents that will be looked at, and when; without those of a storage that is being waited for."""
        silent = {one.sr for one in self._late}
        due = [(case, self._due(case)) for case in self.ledger.cases.values() if (case.sr or "") not in silent]
        return [(case, at) for case, at in due if at is not None]

    def _due(self, case: TrackedIncident) -> datetime | None:
        if case.id not in self._gc_of:
            return case.life.due
        now = self.now()
        # A clock that was set back makes the last look one of the future.
        return self._looked_for_gc + _GC_LOOK if self._looked_for_gc <= now else now - _GC_LOOK

    def treat(self, cases: Sequence[TrackedIncident]) -> list[tuple[TreatedIncident, Denied | None]]:
        """What became of the disks of `cases`, parents first; and of those that were late before."""
        done = self._returned()
        by_sr: dict[str, list[TrackedIncident]] = {}
        for case in cases:
            by_sr.setdefault(case.sr or "", []).append(case)
        for sr, group in by_sr.items():
            if self.stopping():
                break
            done += self._group(sr, group)
        return done

    def _group(self, sr: str, cases: list[TrackedIncident]) -> list[tuple[TreatedIncident, Denied | None]]:
        told = [(case.id, incident(case, self.ledger.files)) for case in cases]
        run_options = self.run_options._replace(gc=_BESIDE_GC)
        gap = frozenset(case.id for case in cases if self._is_out_of_patience(case))
        may_write = self.may_write

        def work(ask: Callable[[Asked], bool]) -> list[TreatedIncident]:
            return _treat_all(told, run_options, ask if may_write else None, gap)

        errand, since = WorkerThread(work), time.monotonic()
        while not errand.serve(_STEP, self._answer):
            if self.stopping() and not errand.granted:
                return []  # nothing was written, and nothing will be: nobody answers any more
            if not errand.granted and time.monotonic() - since >= min(_MOMENT, self.patience):
                self._late.append(_Running(sr, told, errand, since))
                return []
            if time.monotonic() - since >= self.patience:
                self._late.append(late := _Running(sr, told, errand, since))
                return self._given_up(late)
        if self.stopping() and not errand.granted:
            return []
        return self._results(errand, told)

    def _results(
        self, errand: WorkerThread[Asked, list[TreatedIncident]], told: list[tuple[str, Incident]]
    ) -> list[tuple[TreatedIncident, Denied | None]]:
        try:
            done = errand.result()
        except Exception as error:  # noqa: BLE001 - the bug that one disk meets must not end the service
            words = f"unexpected {type(error).__name__}: {error}; this is a bug, please report it"
            return [(_failed(name, one, words), None) for name, one in told]
        return [self._judged(treated) for treated in done]

    def _given_up(self, late: _Running) -> list[tuple[TreatedIncident, Denied | None]]:
        late.given_up = True
        then = "smfix looks as soon as it answers"
        silent = {name: storage_probe.words(_whose(one), self.patience, then) for name, one in late.told}
        return [(_failed(name, one, silent[name]), None) for name, one in late.told]

    def _returned(self, seconds: float = 0.0) -> list[tuple[TreatedIncident, Denied | None]]:
        """What the late ones have brought back. Of one that was given up only what was written counts.

        What it saw may be old by now, as is what was seen of a disk that the log has named again meanwhile.
        """
        back: list[tuple[TreatedIncident, Denied | None]] = []
        for one in list(self._late):
            if one.errand.serve(seconds, _never if one.given_up else self._answer):
                self._late.remove(one)
                back += self._taken(one)
            elif not one.given_up and time.monotonic() - one.since >= self.patience:
                back += self._given_up(one)
        return back

    def _taken(self, late: _Running) -> list[tuple[TreatedIncident, Denied | None]]:
        counts = {name: one.count for name, one in late.told}
        results = self._results(late.errand, late.told) if late.errand.granted or not late.given_up else []
        taken = []
        for name, count in counts.items():
            if (case := self.ledger.cases.get(name)) is None:
                continue
            is_old = late.given_up or case.count != count
            mine = [done for done in results if done[0].id == name]
            taken += [done for done in mine if not is_old or (done[0].outcome and done[0].outcome.status in _WRITTEN)]
            if is_old:
                case.life = replace(case.life, due=self.now())
        return taken

    def finish(self) -> None:
        """Smfix ends: wait for a repair in hand that has been slow."""
        self._late = [one for one in self._late if one.errand.granted]
        self._returned(self.patience)

    # ---------------------------------------------------------------- yes or no

    def _answer(self, asked: Asked) -> bool:
        self.foreseen[asked.case] = asked.outcome
        denied = self._denies(asked) or self._waits_for_gc(asked)
        if denied is not None:
            self._denied[asked.case] = denied
            return False
        case = self.ledger.cases[asked.case]
        before = case.life
        case.life = attempted(case.life, self.now())
        try:
            self.save()
        except SmfixError as error:
            case.life = before
            self._denied[asked.case] = Denied(Status.FAILED, None, f"{error}; nothing was written to the image")
            return False
        if asked.sr is not None:
            self.touched.add(asked.sr)
        return True

    def _denies(self, asked: Asked) -> Denied | None:
        now = self.now()
        if self.stopping():
            return Denied(Status.REFUSED, Reason.STALE, "smfix is being stopped; nothing was written", now)
        plan = asked.outcome.plan
        if plan is None:  # an interrupted repair is put back: that undoes, and repairs nothing
            return Denied(Status.REFUSED, Reason.POLICY, "the policy says dry-run") if self.rules.dry_run else None
        if (last := self.repaired_at(asked.path)) is not None:
            return Denied(Status.REFUSED, Reason.RECURRED, _recurred(last))
        repairs = [at for _, at in self.ledger.repairs]
        why = policy.forbids(self.rules, asked.sr, plan.fixes, repairs, now)
        if why is None:
            return None
        codes = ", ".join(dict.fromkeys(fix.code for fix in plan.fixes))
        return Denied(
            Status.REFUSED, Reason.POLICY, f"{why[0]}; {codes} would be repaired, nothing was written", why[1]
        )

    def _waits_for_gc(self, asked: Asked) -> Denied | None:
        """As the repair itself would find, but before a volume is made writable for nothing."""
        busy = self.run_options.collector(asked.sr)
        if busy is None or self._is_out_of_patience(self.ledger.cases[asked.case]):
            return None
        refusal = _BESIDE_GC.refusal(busy)
        return Denied(Status.REFUSED, refusal.reason, refusal.message)

    def repaired_at(self, path: str | None) -> datetime | None:
        """When the disk at `path` was repaired within the last day; None: it was not."""
        if path is None:
            return None
        real = os.path.abspath(path)
        times = [at for other, at in self.ledger.repairs if other == real and self.now() - at < DAY]
        return max(times, default=None)

    # ---------------------------------------------------------------- what came of it

    def _judged(self, treated: TreatedIncident) -> tuple[TreatedIncident, Denied | None]:
        """The outcome as a follower tells it: what was denied, what came back, what was done unseen."""
        outcome = treated.outcome
        denied = self._denied.pop(treated.id, None)
        case = self.ledger.cases[treated.id]
        self._gc_of.pop(treated.id, None)
        if outcome is None:
            # The log calls it over; the repair that made it so may not have been told yet.
            unseen = case.life.trying and treated.path and self._unseen(_SOUND, treated.path, case.life.trying)
            return (treated._replace(state=State.OPEN, outcome=unseen), None) if unseen else (treated, None)
        last = self.repaired_at(treated.path)
        if denied is not None and outcome.status is Status.WOULD_REPAIR:
            step = () if denied.reason in (Reason.STALE, Reason.LOCKED) else outcome.next
            outcome = outcome._replace(status=denied.status, reason=denied.reason, message=denied.message,
                remaining=outcome.findings, lost_sectors=0, next=step,
            )  # fmt: skip
        elif last is not None and outcome.reason in _DAMAGED_AGAIN:
            outcome = outcome._replace(reason=Reason.RECURRED, message=f"{_recurred(last)}; {outcome.message}")
        elif outcome.status is Status.VALID and case.life.trying is not None and treated.path is not None:
            outcome = self._unseen(outcome, treated.path, case.life.trying) or outcome
        if outcome.reason is Reason.LOCKED:
            outcome = outcome._replace(next=())  # the next look is ours
            if (busy := self.run_options.collector(treated.sr)) is not None:
                self._gc_of[treated.id] = busy
        if outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED) and treated.path is not None:
            now = self.now()
            kept = [(path, at) for path, at in self.ledger.repairs if now - at < DAY]
            self.ledger.repairs = [*kept, (os.path.abspath(treated.path), now)]
        return treated._replace(outcome=outcome), denied

    def _unseen(self, outcome: Outcome, path: str, since: datetime) -> Outcome | None:
        """The repair that was finished right before smfix was killed: its journal tells of it."""
        words = "repaired and verified before smfix was stopped"
        for at, real, record in self._verified():
            if at >= since - timedelta(seconds=1) and real == os.path.abspath(path):
                return outcome._replace(status=Status.REPAIRED, message=words, journal=record.id, undo=record.undo)
        return None

    def remember(self) -> None:
        """Take up the repairs of the last day that the journals tell of, whoever made them."""
        now = self.now()
        known = list(self.ledger.repairs)
        for at, path, _ in self._verified():
            is_known = any(other == path and abs(when - at) < timedelta(minutes=1) for other, when in known)
            if now - at < DAY and not is_known:
                self.ledger.repairs.append((path, min(at, now)))

    def _verified(self) -> list[tuple[datetime, str, JournalRecord]]:
        """The repairs that stand, by their journals: when, the image's path."""
        try:
            records = from_log.journals(self.run_options)
        except SmfixError:
            return []
        return [
            (record.created, os.path.abspath(record.path), record)
            for record in records
            if record.state == "verified" and record.created is not None and record.path is not None
        ]


class Rescans:
    """The SRs that the storage manager is asked to look at again, one after the other, which may take minutes.

    `rescan` asks for one SR, and says whether it will, and a line about it; None: nobody is asked. At the end
    nobody waits: the storage manager goes on without us.
    """

    def __init__(self, rescan: Callable[[str], tuple[bool, str]] | None) -> None:
        self._rescan = rescan
        self._wanted: list[str] = []
        self._running: tuple[str, WorkerThread[None, tuple[bool, str]]] | None = None

    @property
    def is_busy(self) -> bool:
        """True while there is an answer to come."""
        return self._running is not None or bool(self._wanted)

    def want(self, srs: Iterable[str | None]) -> None:
        """Ask for these too, each once; where a scan has begun already, for another one after it."""
        if self._rescan is not None:
            self._wanted = list(dict.fromkeys((*self._wanted, *filter(None, srs))))

    def poll(self) -> tuple[str, bool, str] | None:
        """The SR that was answered for, with the answer; None: not yet. Begins with the next one."""
        ended = None
        if self._running is not None:
            sr, errand = self._running
            if not errand.serve(0.0, bool):
                return None
            self._running = None
            try:
                ended = sr, *errand.result()
            except Exception as error:  # noqa: BLE001 - a bug here must not end the service
                ended = sr, False, f"unexpected {type(error).__name__}: {error}; this is a bug, please report it"
        if self._wanted and (rescan := self._rescan) is not None:
            sr = self._wanted.pop(0)
            self._running = sr, WorkerThread(lambda _ask: rescan(sr))
        return ended


def _treat_all(
    told: Sequence[tuple[str, Incident]],
    run_options: RunOptions,
    ask: Callable[[Asked], bool] | None,
    gap: frozenset[str] = frozenset(),
) -> list[TreatedIncident]:
    """Find and treat each; in the errand's thread, so it changes nothing but disks it may."""
    mounts = sr_mounts(run_options.sr_mounts)
    places = from_log.find_images([one for _, one in told], lambda one: from_log.find_image(one, mounts))
    done = []
    for index in image_relatives.parents_first([place if isinstance(place, Found) else None for place in places]):
        (name, one), place = told[index], places[index]
        sr = place.target.sr if isinstance(place, Found) else one.sr
        decide = _decider(name, sr, ask) if ask is not None else None
        gc = _IN_ITS_GAP if name in gap else run_options.gc
        done.append(from_log.treat_incident(name, one, place, run_options._replace(decide=decide, gc=gc)))
    return done


def _decider(name: str, sr: str | None, ask: Callable[[Asked], bool]) -> from_log.Decide:
    return lambda path, outcome: ask(Asked(name, path, sr, outcome))


def _never(_asked: Asked) -> bool:
    return False


def _whose(one: Incident) -> str:
    return f"SR {one.sr}" if one.sr is not None else one.path or one.vdi.text


def _failed(name: str, one: Incident, words: str) -> TreatedIncident:
    return TreatedIncident(name, one, one.vdi.text, one.sr, one.path, one.state, Outcome(Status.FAILED, words))


def _recurred(last: datetime) -> str:
    return (
        f"damaged again after the repair of {last.isoformat(timespec='seconds')}: a second repair within a day "
        "is refused, because the cause is elsewhere (the storage, another host that writes, another tool). Find it "
        "first; then repair by hand"
    )
