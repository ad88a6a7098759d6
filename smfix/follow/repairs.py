"""Repair the disks of the incidents that are due, within the policy.

A worker thread (:mod:`smfix.follow.worker_thread`) looks at the due disks of one storage repository, so that storage
that hangs delays no other SR. The worker asks before it writes. The main thread answers: it applies the policy, refuses
a second repair within a day, and saves the state before it grants the request.

While the storage manager's GC is at work on an SR, only GC's lock is looked at, every two seconds. When GC has ended,
or the policy's patience is used up, the repair goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from smfix.errors import SmfixError
from smfix.follow import policy
from smfix.follow.incident_state import DAY, Stage, note_attempt
from smfix.follow.policy import Policy
from smfix.follow.state import FollowerState, TrackedIncident
from smfix.follow.tracker import incident_of
from smfix.follow.worker_thread import WorkerThread
from smfix.host import storage_probe
from smfix.sm.gc_lock import Collector, GcWait
from smfix.sm.resolve import Found, sr_mounts
from smfix.usecases import from_log, image_relatives, resolve
from smfix.usecases.journal import journals
from smfix.usecases.repair_context import collector_of
from smfix.usecases.run_options import Decide, RunOptions
from smfix.values import Incident, JournalRecord, Outcome, Reason, State, Status, TreatedIncident

_DAMAGED_AGAIN = (Reason.NO_FIX, Reason.NEEDS_CONFIRM)
_REPAIRED = (Status.REPAIRED, Status.PARTLY_REPAIRED)
_WRITTEN = (*_REPAIRED, Status.ROLLED_BACK)
_SOUND = Outcome(Status.VALID, "the image is sound")
_STEP = 0.2  # seconds between two checks whether smfix is to stop
_BLOCKS_OTHERS = 2.0  # seconds for which other SRs wait for a worker
_AT_ONCE = 64  # incidents that are treated before the log is read again
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_GC_CHECK = timedelta(seconds=2)  # between two looks at GC's lock
_BESIDE_GC = GcWait(0.0, "the repair waits for its end")
_IN_ITS_GAP = GcWait(takes_gap=True)


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """The request of a worker to write the image at `path` of incident `id`; `outcome` is the plan."""

    id: str
    path: str
    sr: str | None
    outcome: Outcome


@dataclass(slots=True)
class Denied:
    """The answer to a request that was not granted. `until`: the answer stays the same before."""

    status: Status
    reason: Reason | None
    message: str
    until: datetime | None = None


Named = list[tuple[str, Incident]]
"""Incidents with their ids."""
Judged = tuple[TreatedIncident, Denied | None]
"""The result for one incident, and why its request was denied."""


@dataclass(slots=True)
class _LateWorker:
    """A worker that needs long. `since`: of the monotonic clock. `is_given_up`: its incidents got a result already."""

    sr: str
    incidents: Named
    worker: WorkerThread[WriteRequest, list[TreatedIncident]]
    since: float
    is_given_up: bool = False


@dataclass(slots=True)
class RepairScheduler:
    """Treats incidents that are due. `may_write`: ``--yes``, or a policy. `save` saves the state durably.

    `foreseen` holds the plan of each request, by incident, until the caller removes it. `touched` holds the SRs whose
    locks a repair may have taken, until the caller removes them.
    """

    state: FollowerState
    run_options: RunOptions
    may_write: bool
    save: Callable[[], None]
    now: Callable[[], datetime]
    is_stopping: Callable[[], bool]
    rules: Policy = field(default_factory=Policy)
    patience: float = field(default_factory=storage_probe.patience)
    foreseen: dict[str, Outcome] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    _gc_of: dict[str, Collector] = field(default_factory=dict)  # by incident: the GC whose end it waits for
    _gc_checked: datetime = _LONG_AGO
    _denied: dict[str, Denied] = field(default_factory=dict)
    _late: list[_LateWorker] = field(default_factory=list)

    # ---------------------------------------------------------------- due

    def due(self) -> list[TrackedIncident]:
        """Return the incidents whose disks are to be looked at now."""
        now = self.now()
        due = [tracked for tracked, at in self._with_time() if at <= now]
        if any(tracked.id in self._gc_of for tracked in due):
            self._gc_checked = now
        return [tracked for tracked in due if not self._waits_for_gc(tracked)][:_AT_ONCE]

    def _waits_for_gc(self, tracked: TrackedIncident) -> bool:
        """Return True while the GC that this incident waits for is at work, and the policy is patient."""
        before = self._gc_of.get(tracked.id)
        if before is None or self._is_out_of_patience(tracked):
            return False
        now = collector_of(self.run_options, before.sr)
        if now is None:
            del self._gc_of[tracked.id]
        return now is not None and now.pid == before.pid

    def _is_out_of_patience(self, tracked: TrackedIncident) -> bool:
        """Return True if GC has kept this incident waiting for longer than the policy allows."""
        most, progress = self.rules.gc_patience, tracked.progress
        waits = progress.stage is Stage.WAITING and progress.reason == Reason.LOCKED.value
        return most is not None and waits and self.now() - progress.since >= most

    def until_due(self) -> float | None:
        """Return the seconds until an incident is due; None if none will be."""
        times = [(at - self.now()).total_seconds() for _, at in self._with_time()]
        if self._late:
            times.append(_STEP)
        return max(0.0, min(times)) if times else None

    def _with_time(self) -> list[tuple[TrackedIncident, datetime]]:
        """Return the incidents that will be looked at, with the time; without those of an SR with a late worker."""
        silent = {one.sr for one in self._late}
        answering = [one for one in self.state.incidents.values() if (one.sr or "") not in silent]
        due = [(tracked, self._due_at(tracked)) for tracked in answering]
        return [(tracked, at) for tracked, at in due if at is not None]

    def _due_at(self, tracked: TrackedIncident) -> datetime | None:
        if tracked.id not in self._gc_of:
            return tracked.progress.due
        now = self.now()
        # After the clock was set back, the last check seems to be in the future.
        return self._gc_checked + _GC_CHECK if self._gc_checked <= now else now - _GC_CHECK

    # ---------------------------------------------------------------- workers

    def treat(self, due: Sequence[TrackedIncident]) -> list[Judged]:
        """Look at the disks of `due`, parents first. Return their results, and those of late workers."""
        done = self._poll_late()
        by_sr: dict[str, list[TrackedIncident]] = {}
        for tracked in due:
            by_sr.setdefault(tracked.sr or "", []).append(tracked)
        for sr, group in by_sr.items():
            if self.is_stopping():
                break
            done += self._treat_sr(sr, group)
        return done

    def _treat_sr(self, sr: str, group: list[TrackedIncident]) -> list[Judged]:
        incidents = [(tracked.id, incident_of(tracked, self.state.files)) for tracked in group]
        run_options = self.run_options._replace(gc=_BESIDE_GC)
        impatient = frozenset(tracked.id for tracked in group if self._is_out_of_patience(tracked))
        may_write = self.may_write

        def work(ask: Callable[[WriteRequest], bool]) -> list[TreatedIncident]:
            return _treat_all(incidents, run_options, ask if may_write else None, impatient)

        worker, since = WorkerThread(work), time.monotonic()
        while not worker.serve(_STEP, self._answer):
            if self.is_stopping() and not worker.has_permission:
                return []  # it has written nothing, and gets no permission any more
            if not worker.has_permission and time.monotonic() - since >= min(_BLOCKS_OTHERS, self.patience):
                self._late.append(_LateWorker(sr, incidents, worker, since))
                return []
            if time.monotonic() - since >= self.patience:
                self._late.append(late := _LateWorker(sr, incidents, worker, since))
                return self._give_up(late)
        if self.is_stopping() and not worker.has_permission:
            return []
        return self._results(worker, incidents)

    def _results(self, worker: WorkerThread[WriteRequest, list[TreatedIncident]], incidents: Named) -> list[Judged]:
        try:
            done = worker.result()
        except Exception as error:  # noqa: BLE001 - a bug that one disk meets must not end the service
            message = f"unexpected {type(error).__name__}: {error}; this is a bug, please report it"
            return [(_failed(name, incident, message), None) for name, incident in incidents]
        return [self._judge(treated) for treated in done]

    def _give_up(self, late: _LateWorker) -> list[Judged]:
        """Report that the storage does not answer; the worker goes on."""
        late.is_given_up = True
        then = "smfix looks as soon as it answers"
        return [
            (_failed(name, incident, storage_probe.words(_storage_of(incident), self.patience, then)), None)
            for name, incident in late.incidents
        ]

    def _poll_late(self, seconds: float = 0.0) -> list[Judged]:
        """Return the results of late workers that have ended, and give up those that need too long."""
        done: list[Judged] = []
        for late in list(self._late):
            if late.worker.serve(seconds, _deny if late.is_given_up else self._answer):
                self._late.remove(late)
                done += self._late_results(late)
            elif not late.is_given_up and time.monotonic() - late.since >= self.patience:
                done += self._give_up(late)
        return done

    def _late_results(self, late: _LateWorker) -> list[Judged]:
        """Return the results of a late worker; of outdated ones only those that wrote.

        A result is outdated if the worker was given up, or if the log has named the disk again meanwhile.
        """
        results = (
            self._results(late.worker, late.incidents) if late.worker.has_permission or not late.is_given_up else []
        )
        done = []
        for name, incident in late.incidents:
            tracked = self.state.incidents.get(name)
            if tracked is None:
                continue
            is_outdated = late.is_given_up or tracked.count != incident.count
            own = [one for one in results if one[0].id == name]
            done += [one for one in own if not is_outdated or (one[0].outcome and one[0].outcome.status in _WRITTEN)]
            if is_outdated:
                tracked.progress = replace(tracked.progress, due=self.now())
        return done

    def finish(self) -> None:
        """Wait for a repair of a late worker, because smfix ends."""
        self._late = [late for late in self._late if late.worker.has_permission]
        self._poll_late(self.patience)

    # ---------------------------------------------------------------- permissions

    def _answer(self, request: WriteRequest) -> bool:
        """Return whether the request is granted. Before it is, save that an attempt begins."""
        self.foreseen[request.id] = request.outcome
        denied = self._policy_denial(request) or self._gc_denial(request)
        if denied is not None:
            self._denied[request.id] = denied
            return False
        tracked = self.state.incidents[request.id]
        before = tracked.progress
        tracked.progress = note_attempt(tracked.progress, self.now())
        try:
            self.save()
        except SmfixError as error:
            tracked.progress = before
            self._denied[request.id] = Denied(Status.FAILED, None, f"{error}; nothing was written to the image")
            return False
        if request.sr is not None:
            self.touched.add(request.sr)
        return True

    def _policy_denial(self, request: WriteRequest) -> Denied | None:
        now = self.now()
        if self.is_stopping():
            return Denied(Status.REFUSED, Reason.STALE, "smfix is being stopped; nothing was written", now)
        plan = request.outcome.plan
        if plan is None:  # an interrupted repair is put back: that is an undo, not a repair
            return Denied(Status.REFUSED, Reason.POLICY, "the policy says dry-run") if self.rules.dry_run else None
        if (last := self.repaired_at(request.path)) is not None:
            return Denied(Status.REFUSED, Reason.RECURRED, _recurred(last))
        repairs = [at for _, at in self.state.repairs]
        why = policy.forbids(self.rules, request.sr, plan.fixes, repairs, now)
        if why is None:
            return None
        codes = ", ".join(dict.fromkeys(fix.code for fix in plan.fixes))
        message = f"{why[0]}; {codes} would be repaired, nothing was written"
        return Denied(Status.REFUSED, Reason.POLICY, message, why[1])

    def _gc_denial(self, request: WriteRequest) -> Denied | None:
        """Deny while GC is at work, as the repair itself would, but before a volume is made writable."""
        busy = collector_of(self.run_options, request.sr)
        if busy is None or self._is_out_of_patience(self.state.incidents[request.id]):
            return None
        refusal = _BESIDE_GC.refusal(busy)
        return Denied(Status.REFUSED, refusal.reason, refusal.message)

    # ---------------------------------------------------------------- results

    def _judge(self, treated: TreatedIncident) -> Judged:
        """Return the result as the follower reports it: with the denial, or with a repair found in the journals."""
        outcome = treated.outcome
        denied = self._denied.pop(treated.id, None)
        trying = self.state.incidents[treated.id].progress.trying
        self._gc_of.pop(treated.id, None)
        if outcome is None:
            # The log proves that it is over; a repair by a smfix that was killed may be the cause.
            unreported = trying and treated.path and self._unreported_repair(_SOUND, treated.path, trying)
            return (treated._replace(state=State.OPEN, outcome=unreported), None) if unreported else (treated, None)
        last = self.repaired_at(treated.path)
        if denied is not None and outcome.status is Status.WOULD_REPAIR:
            steps = () if denied.reason in (Reason.STALE, Reason.LOCKED) else outcome.next
            outcome = outcome._replace(status=denied.status, reason=denied.reason, message=denied.message,
                remaining=outcome.findings, lost_sectors=0, next=steps,
            )  # fmt: skip
        elif last is not None and outcome.reason in _DAMAGED_AGAIN:
            outcome = outcome._replace(reason=Reason.RECURRED, message=f"{_recurred(last)}; {outcome.message}")
        elif outcome.status is Status.VALID and trying is not None and treated.path is not None:
            outcome = self._unreported_repair(outcome, treated.path, trying) or outcome
        if outcome.reason is Reason.LOCKED:
            outcome = outcome._replace(next=())  # the follower itself looks again
            if (busy := collector_of(self.run_options, treated.sr)) is not None:
                self._gc_of[treated.id] = busy
        if outcome.status in _REPAIRED and treated.path is not None:
            now = self.now()
            recent = [(path, at) for path, at in self.state.repairs if now - at < DAY]
            self.state.repairs = [*recent, (os.path.abspath(treated.path), now)]
        return treated._replace(outcome=outcome), denied

    def _unreported_repair(self, outcome: Outcome, path: str, since: datetime) -> Outcome | None:
        """Return the outcome of a repair that ended after `since`, right before smfix was killed; None if none did."""
        message = "repaired and verified before smfix was stopped"
        for at, real, record in self._verified():
            if at >= since - timedelta(seconds=1) and real == os.path.abspath(path):
                return outcome._replace(status=Status.REPAIRED, message=message, journal=record.id, undo=record.undo)
        return None

    def repaired_at(self, path: str | None) -> datetime | None:
        """Return when the disk at `path` was repaired within the last day; None if it was not."""
        if path is None:
            return None
        real = os.path.abspath(path)
        times = [at for other, at in self.state.repairs if other == real and self.now() - at < DAY]
        return max(times, default=None)

    def remember(self) -> None:
        """Add the repairs of the last day that are in the journals, by this or by another smfix."""
        now = self.now()
        known = list(self.state.repairs)
        for at, path, _ in self._verified():
            is_known = any(other == path and abs(when - at) < timedelta(minutes=1) for other, when in known)
            if now - at < DAY and not is_known:
                self.state.repairs.append((path, min(at, now)))

    def _verified(self) -> list[tuple[datetime, str, JournalRecord]]:
        """Return the verified repairs in the journals: time, path, record."""
        try:
            records = journals(self.run_options)
        except SmfixError:
            return []
        return [
            (record.created, os.path.abspath(record.path), record)
            for record in records
            if record.state == "verified" and record.created is not None and record.path is not None
        ]


def _treat_all(
    incidents: Named,
    run_options: RunOptions,
    ask: Callable[[WriteRequest], bool] | None,
    impatient: frozenset[str] = frozenset(),
) -> list[TreatedIncident]:
    """Find and treat each disk, parents first. Runs in the worker, so it changes nothing of the follower.

    `ask` None: a dry run. `impatient` are the incidents that wait for GC no longer.
    """
    mounts = sr_mounts(run_options.sr_mounts)
    places = resolve.find_images([one for _, one in incidents], lambda one: resolve.find_image(one, mounts))
    done = []
    for index in image_relatives.parents_first([place if isinstance(place, Found) else None for place in places]):
        (name, incident), place = incidents[index], places[index]
        sr = place.target.sr if isinstance(place, Found) else incident.sr
        decide = _decider(name, sr, ask) if ask is not None else None
        gc = _IN_ITS_GAP if name in impatient else run_options.gc
        done.append(from_log.treat_incident(name, incident, place, run_options._replace(decide=decide, gc=gc)))
    return done


def _decider(name: str, sr: str | None, ask: Callable[[WriteRequest], bool]) -> Decide:
    return lambda path, outcome: ask(WriteRequest(name, path, sr, outcome))


def _deny(_request: WriteRequest) -> bool:
    return False


def _storage_of(incident: Incident) -> str:
    return f"SR {incident.sr}" if incident.sr is not None else incident.path or incident.vdi.text


def _failed(name: str, incident: Incident, message: str) -> TreatedIncident:
    outcome = Outcome(Status.FAILED, message)
    return TreatedIncident(name, incident, incident.vdi.text, incident.sr, incident.path, incident.state, outcome)


def _recurred(last: datetime) -> str:
    return (
        f"damaged again after the repair of {last.isoformat(timespec='seconds')}: a second repair within a day "
        "is refused, because the cause is elsewhere (the storage, another host that writes, another tool). Find it "
        "first; then repair by hand"
    )
