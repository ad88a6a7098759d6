"""Follow one log: from the log line to the confirmed repair, until stopped.

    Tail -lines-> Scanner -events-> Tracker -due-> RepairScheduler -outcomes-> progress -> saved, delivered

One round reads new lines, files their events, repairs what is due, saves, and delivers. Each event is saved before it
is delivered, so events are delivered at least once; each has its number, and its incident has an id. A repair is saved
before it begins, so that the next process learns its end. While too many events wait for a hook or a reader, the log is
not read: it is the queue.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from smfix.errors import SmfixError, WriteFailed
from smfix.follow import incident_state
from smfix.follow.delivery import Delivery
from smfix.follow.event_wait import EventWait
from smfix.follow.incident_state import IncidentState, Stage
from smfix.follow.metrics import MetricsFile
from smfix.follow.policy import Policy
from smfix.follow.repairs import Denied, RepairScheduler
from smfix.follow.rescans import Rescans
from smfix.follow.sd_notify import notify, watchdog_seconds
from smfix.follow.state import FollowerRun, FollowerState, PendingEvent, TrackedIncident, observe
from smfix.follow.state_format import StateDamaged
from smfix.follow.state_store import StateFile
from smfix.follow.tracker import Tracker, incident_of
from smfix.report.follow_report import Document
from smfix.smlog.correlate.failures import Failure
from smfix.smlog.inputs.tail import Tail
from smfix.smlog.inputs.tail_position import Chunk
from smfix.smlog.parse.timestamps import Calendar, Localize, Stamp
from smfix.smlog.parse.window import REACH_BACK
from smfix.smlog.scanner import Scanner
from smfix.usecases.run_options import RunOptions
from smfix.values import Outcome, Status, TreatedIncident

MOST_PENDING = 1_000
"""Events that wait for a hook; while there are more, the log is not read."""

_CHUNKS = 8  # of the log, in one round
_CATCHING_UP = 5.0  # seconds for which a repair waits while the log is not read to its end
_SAVE_EVERY = 5.0  # seconds, if only the position has changed
_GATHER = 0.02  # seconds in which lines gather while the log grows
_BUSY = 0.02  # seconds, while a record is incomplete or a hook runs
_SCANNING = 0.2  # seconds, while the storage manager scans
_CLOCK_JUMP = timedelta(seconds=2)  # a clock that goes back by more was set back


@dataclass(frozen=True, slots=True)
class FollowSetup:
    """The log to follow, and how. `localize` gives a naive time the log's zone; `at_end`: read new lines only.

    `metrics` is a file for node-exporter. `read_policy` reads the policy again (SIGHUP). `rescan` has the storage
    manager scan an SR; it returns whether the scan succeeded, and a message.
    """

    log: str
    state_dir: str
    localize: Localize
    year: int | None = None
    at_end: bool = False
    may_write: bool = False
    metrics: str | None = None
    policy: Policy = field(default_factory=Policy)
    read_policy: Callable[[], Policy] | None = None
    rescan: Callable[[str], tuple[bool, str]] | None = None


class Follower:
    """Follows one log. `print_event` prints an event (False: its reader is gone), `say` a line for the operator.

    `has_reader` returns False if the reader of the events is gone, which may happen between two events. Raises
    WriteFailed, Unreadable and AlreadyFollowed as :class:`StateFile` does.
    """

    def __init__(
        self,
        setup: FollowSetup,
        run_options: RunOptions,
        wait: EventWait,
        print_event: Callable[[Document], bool],
        say: Callable[[str], None],
        has_reader: Callable[[], bool] = lambda: True,
    ) -> None:
        self._setup, self._wait, self._say, self._has_reader = setup, wait, say, has_reader
        self._policy = setup.policy
        self._store = StateFile(setup.state_dir, setup.log)
        self._store.hold()
        try:
            self._start(run_options, print_event)
        except BaseException:
            self._store.release()
            raise

    def _start(self, run_options: RunOptions, print_event: Callable[[Document], bool]) -> None:
        setup = self._setup
        self._state, is_resumed = self._load()
        self._latest = _now()
        if any(tracked.progress.since > self._latest for tracked in self._state.incidents.values()):
            self._set_clock_back(self._latest)
        self._tail = Tail(setup.log, self._state.position if is_resumed else None, at_end=setup.at_end)
        self._reader = self._resumed_reader()
        self._tracker = Tracker(self._state)
        self._reader.wanted = self._tracker.wanted()
        self._delivery = Delivery(self._state, print_event, self._say)
        self._metrics = MetricsFile(setup.metrics, self._say)
        agreed = run_options._replace(consent=run_options.consent | self._policy.consent)
        self._scheduler = RepairScheduler(
            self._state, agreed, setup.may_write, self._save, _now, lambda: self._wait.stopping, self._policy
        )
        self._scheduler.remember()
        self._run_options = run_options
        self._rescans = Rescans(setup.rescan)
        self._want_rescans()
        self._recheck_permissions()  # this run may have permissions that the last one had not
        self._saved_at = 0.0
        self._is_dirty = True
        self._save_error = ""
        self._behind_since: float | None = None
        self._state.run = FollowerRun(os.getpid(), _now())

    def _load(self) -> tuple[FollowerState, bool]:
        """Return the saved state, else a new one; and whether to resume at its position."""
        try:
            state = self._store.load()
        except StateDamaged as error:
            path = self._store.set_aside()
            self._say(f"smfix: the state cannot be read ({error}); it is {path} now, and all of the log is read anew")
            return FollowerState(os.path.abspath(self._setup.log)), True
        if state is None:
            return FollowerState(os.path.abspath(self._setup.log)), False
        return state, state.run.started is not None

    def _resumed_reader(self) -> Scanner:
        """Return a reader that has read the lines before the position at which the last run stopped."""
        context = self._tail.context(REACH_BACK)
        start = self._state.place - sum(len(chunk.data) for chunk in context)
        reader = Scanner(place=start, begin=self._state.settled, grows=True)
        for chunk in context:
            reader.feed(chunk.data, self._index(chunk.file), chunk.first_line, time.monotonic())
        return reader

    # ---------------------------------------------------------------- the rounds

    def run(self) -> None:
        """Follow until a signal stops smfix, or the reader of the events is gone."""
        self._pass_notes()
        self._save_if_possible()
        notify("READY=1", f"STATUS=following {self._setup.log}")
        pulse, beat = watchdog_seconds(), 0.0
        try:
            while not self._has_ended():
                has_read = self.round()
                if pulse is not None and time.monotonic() - beat >= pulse:
                    beat = time.monotonic()
                    notify("WATCHDOG=1")
                if has_read and not self._has_ended():
                    self._wait.pause(_GATHER)
                elif not self._has_ended():
                    self._wait.watch(self._tail.file, self._tail.identity)
                    self._wait.wait(self._until_next())
            notify("STOPPING=1")
        finally:
            self._stop()

    def _has_ended(self) -> bool:
        return self._wait.stopping or self._delivery.is_reader_gone or not self._has_reader()

    def _check_clock(self) -> None:
        now = _now()
        if now < self._latest - _CLOCK_JUMP:
            self._say(f"smfix: the clock was set back by {(self._latest - now).total_seconds():.0f} s")
            self._set_clock_back(now)
            self._is_dirty = True
        self._latest = now

    def _set_clock_back(self, now: datetime) -> None:
        """Move all times that are after `now` to `now`: else work that is due may wait for years."""
        for tracked in self._state.incidents.values():
            tracked.progress = incident_state.set_clock_back(tracked.progress, now)
        self._state.repairs = [(path, min(at, now)) for path, at in self._state.repairs]

    def round(self) -> bool:
        """Do everything that is due now. Return True if the log had new lines."""
        self._check_clock()
        if self._wait.reload:
            self._wait.reload = False
            self._reload_policy()
        has_read = self._read()
        self._remind()
        self._repair_due()
        self._poll_rescan()
        has_moved = self._state.place != self._reader.end
        if self._is_dirty or (has_moved and time.monotonic() - self._saved_at >= self._save_delay()):
            self._save_if_possible()
        if self._delivery.deliver(self._policy.hooks):
            self._is_dirty = True
        self._metrics.write_if_due(self._state, self._tail, self._tracker.left_out)
        return has_read

    def _until_next(self) -> float | None:
        """Return the seconds until the next round is due; None: until the log grows."""
        if self._is_dirty or self._reader.is_waiting or self._delivery.is_busy:
            return _BUSY
        until = self._scheduler.until_due()
        return _SCANNING if self._rescans.is_busy and (until is None or until > _SCANNING) else until

    # ---------------------------------------------------------------- the log

    def _read(self) -> bool:
        has_read = is_behind = False
        if len(self._state.outbox) < MOST_PENDING:
            for _ in range(_CHUNKS):
                chunk = self._tail.read()
                if chunk is None:
                    break
                has_read = True
                self._feed(chunk)
            else:
                is_behind = True
        self._pass_notes()
        self._file_events()
        if not is_behind:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = time.monotonic()
        return has_read

    def _feed(self, chunk: Chunk) -> None:
        data = chunk.data if chunk.data.endswith(b"\n") else chunk.data + b"\n"
        self._state.count("log_bytes_total", len(chunk.data))
        self._reader.feed(data, self._index(chunk.file), chunk.first_line, time.monotonic())
        self._file_events()

    def _file_events(self) -> None:
        """File the events of the lines that were read."""
        for event in self._reader.tell(time.monotonic()):
            for tracked, before in self._tracker.take(event, _now(), self._time_of):
                self._announce_stage(tracked, before)
            self._is_dirty = True
        for ended in self._reader.gc_ended():
            self._restart_gc(ended.sr)

    def _restart_gc(self, sr: str | None) -> None:
        """Ask for a scan of `sr`, because its GC ended at a held lock after a repair; None: of every SR repaired."""
        touched = self._scheduler.touched
        ended = touched & {sr} if sr is not None else set(touched)
        touched -= ended
        for one in sorted(ended):
            self._rescans.want([one])
            self._say(f"smfix: SR {one}: GC ended early at a lock, after a repair; a scan is asked for")

    def _time_of(self, event: Failure) -> datetime | None:
        """Return the event's time: in the latest year that is not after now, unless --year names one."""
        if event.stamp is None:
            return None
        now = datetime.now()  # noqa: DTZ005 - it gets the log's zone here
        there = datetime.now(self._setup.localize(now).tzinfo)
        latest = Stamp(None, there.month, there.day, there.hour, there.minute, there.second)
        return Calendar(self._setup.localize, there, latest, self._setup.year).time(event.stamp)

    def _index(self, name: str) -> int:
        if name not in self._state.files:
            self._state.files.append(name)
        return self._state.files.index(name)

    def _pass_notes(self) -> None:
        for note in self._tail.notes:
            self._say(f"smfix: {note}")
        self._tail.notes.clear()

    # ---------------------------------------------------------------- the disks

    def _repair_due(self) -> None:
        behind = self._behind_since
        if behind is not None and time.monotonic() - behind < _CATCHING_UP:
            return  # the next lines may prove that the incident is over
        due = self._scheduler.due()
        written = []
        for treated, denied in self._scheduler.treat(due):
            tracked = self._state.incidents.get(treated.id)
            if tracked is None:
                continue
            self._record_result(tracked, treated, denied)
            outcome = treated.outcome
            if treated.sr and outcome is not None and outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
                self._state.count("repairs_total")
                written.append(treated.sr)
        self._reader.wanted = self._tracker.wanted() if due else self._reader.wanted
        self._rescans.want(written)

    def _record_result(self, tracked: TrackedIncident, treated: TreatedIncident, denied: Denied | None) -> None:
        before, outcome = tracked.progress, treated.outcome
        if outcome is None:
            tracked.progress = incident_state.confirm(before, _now())
        else:
            until = denied.until if denied is not None else None
            tracked.progress = incident_state.note_result(before, outcome.status, outcome.reason, _now(), until)
            if tracked.proof is not None and outcome.settled:  # the log has proved already that it is over
                tracked.progress = incident_state.note_proof(tracked.progress, _now())
        tracked.disk = observe(treated)
        foreseen = self._scheduler.foreseen.pop(tracked.id, outcome)
        is_first = before.stage is Stage.SEEN and tracked.progress.stage is not Stage.DIAGNOSED
        if foreseen is not None and _was_diagnosed(foreseen) and is_first:
            # If smfix may write, the next steps follow with the next event.
            found = foreseen._replace(next=()) if self._setup.may_write else foreseen
            self._queue_event(tracked, Stage.DIAGNOSED.value, treated._replace(outcome=found))
        self._announce_stage(tracked, before)

    def _want_rescans(self) -> None:
        """Ask for the scans again that the last run may not have waited for."""
        disks = [one.disk for one in self._state.incidents.values() if one.progress.stage is Stage.REPAIRED]
        self._rescans.want(disk.sr for disk in disks if disk is not None)

    def _poll_rescan(self) -> None:
        ended = self._rescans.poll()
        if ended is None:
            return
        sr, is_done, message = ended
        self._say(f"smfix: SR {sr}: {message}")
        for tracked in self._state.incidents.values() if is_done else ():
            if tracked.disk is not None and tracked.disk.sr == sr:
                before = tracked.progress
                tracked.progress = incident_state.note_rescan(before, _now())
                self._announce_stage(tracked, before)

    def _announce_stage(self, tracked: TrackedIncident, before: IncidentState | None) -> None:
        """Queue an event if the incident's stage or reason differs from `before`."""
        name = incident_state.stage_event(before, tracked.progress)
        if name is not None:
            self._queue_event(tracked, name)
        self._is_dirty = True

    def _queue_event(self, tracked: TrackedIncident, name: str, treated: TreatedIncident | None = None) -> None:
        """Put an event into the outbox, with the incident as `treated` has it, else as it is now."""
        self._state.number += 1
        self._state.count(f"event {name}")
        if treated is None:
            incident, disk = incident_of(tracked, self._state.files), tracked.disk
        else:
            incident, disk = treated.incident, observe(treated)
        self._state.outbox.append(PendingEvent(self._state.number, _now(), name, tracked.id, incident, disk))

    def _remind(self) -> None:
        now = _now()
        for tracked in self._state.incidents.values():
            policy = self._policy
            progress = incident_state.remind(tracked.progress, now, policy.remind_first, policy.remind_last)
            if progress is not None:
                tracked.progress = progress
                self._queue_event(tracked, incident_state.REMINDER)
                self._is_dirty = True

    def _reload_policy(self) -> None:
        if self._setup.read_policy is None:
            return
        try:
            self._policy = self._setup.read_policy()
        except SmfixError as error:
            self._say(f"smfix: {error}; the policy stays as it was")
            return
        self._scheduler.rules = self._policy
        run_options = self._run_options
        self._scheduler.run_options = run_options._replace(consent=run_options.consent | self._policy.consent)
        self._recheck_permissions()
        self._say("smfix: the policy was read again")

    def _recheck_permissions(self) -> None:
        for tracked in self._state.incidents.values():
            tracked.progress = incident_state.recheck_permission(tracked.progress, _now())
        self._is_dirty = True

    # ---------------------------------------------------------------- the state

    def _save_delay(self) -> float:
        """Return the seconds for which a position may stay unsaved: 0 for a new file, so that its loss is noticed."""
        mark = self._state.position.mark
        return _SAVE_EVERY if mark and (mark.device, mark.inode) == self._tail.identity else 0.0

    def _save(self) -> None:
        """Save the state durably. Raises WriteFailed."""
        self._state.position = self._tail.position
        self._state.place, self._state.settled = self._reader.end, self._reader.settled
        self._store.save(self._state)
        self._saved_at = time.monotonic()
        self._is_dirty = False

    def _save_if_possible(self) -> None:
        try:
            self._save()
            self._save_error = ""
        except WriteFailed as error:
            if str(error) != self._save_error:
                self._save_error = str(error)
                self._say(f"smfix: the state cannot be saved: {error}; nothing is repaired until it can")
            self._saved_at = time.monotonic()
            self._is_dirty = False

    def _stop(self) -> None:
        self._scheduler.finish()
        self._delivery.stop()
        with suppress(WriteFailed):
            self._state.run.stopped = _now()
            self._save()
        self._metrics.write(self._state, self._tail, self._tracker.left_out)
        self._tail.close()
        self._store.release()


def _was_diagnosed(outcome: Outcome) -> bool:
    """Return True if the disk was read."""
    return bool(outcome.findings) or outcome.status is Status.VALID


def _now() -> datetime:
    return datetime.now(UTC).astimezone()
