"""`from-log --follow`: from the log line to the confirmed cure, until somebody stops it.

    tail -lines-> live reader -events-> caseload -due-> remedies -outcomes-> lives -> told, saved

One round: read what was written, file what it says, treat what is due, save, tell. What is told is
saved first and struck out after, so a kill between the two tells it twice and never not at all; each
event carries its number and the incident its id. A repair is written down before it begins, so that
its end is known even to the next process. While more than a bounded number of events wait for a hook
or a reader, the log is not read: it is its own queue.
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
from smfix.follow import state as ledgers
from smfix.follow.event_wait import EventWait
from smfix.follow.hooks import HookRun
from smfix.follow.incident_state import IncidentState, Stage
from smfix.follow.policy import Policy
from smfix.follow.repairs import Denied, RepairScheduler, Rescans
from smfix.follow.sd_notify import notify, watchdog_seconds
from smfix.follow.state import Document, FollowerState, PendingEvent, StateDamaged, TrackedIncident
from smfix.follow.state_store import StateFile
from smfix.follow.tracker import Tracker, incident
from smfix.host import atomic_file
from smfix.report import follow_report, jsondoc
from smfix.smlog.correlate.failures import Failure
from smfix.smlog.inputs.tail import Tail
from smfix.smlog.inputs.tail_position import Chunk
from smfix.smlog.parse.timestamps import Calendar, Localize, Stamp
from smfix.smlog.parse.window import REACH_BACK
from smfix.smlog.scanner import Scanner
from smfix.usecases.from_log import RunOptions
from smfix.values import Outcome, Status, TreatedIncident

MOST_UNTOLD = 1_000
"""Events that wait for a hook; beyond, the log is not read."""
METRICS = atomic_file.FileKind("a metrics file of smfix", follow_report.is_metrics, 0o644, "--metrics", "smfix.prom")

_CHUNKS = 8  # of the log, between two looks at everything else
_CATCHING_UP = 5.0  # seconds that a report may wait while the log is behind
_SAVED_EVERY = 5.0  # seconds, where only the position has moved
_MEASURED_EVERY = 15.0
_GATHER = 0.02  # seconds in which lines gather while somebody writes
_IN_HAND = 0.02  # seconds, while a record or a hook is waited for
_SET_BACK = timedelta(seconds=2)  # from which on it is no correction of a clock that runs
_AT_WORK = 0.2  # seconds, while the storage manager scans


@dataclass(frozen=True, slots=True)
class FollowQuestion:
    """What is follow_report, and how. `localize` gives a naive time the log's zone; `at_end`: new lines only.

    `metrics` is a file for node-exporter. `read_policy` gives the policy anew (SIGHUP). `rescan` asks
    the storage manager to look at an SR again, and says whether it will, and a line about it.
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
    """Follows one log. `tell` prints an event (False: nobody listens), `say` a line for the operator.

    `listens` says whether somebody still reads the events: a reader may go away between two of them.

    Raises what holding and reading the state raise: WriteFailed, Unreadable, Followed.
    """

    def __init__(
        self,
        asked: FollowQuestion,
        run_options: RunOptions,
        wake: EventWait,
        tell: Callable[[Document], bool],
        say: Callable[[str], None],
        listens: Callable[[], bool] = lambda: True,
    ) -> None:
        self._listens = listens
        self._asked, self._wake, self._tell, self._say = asked, wake, tell, say
        self._policy = asked.policy
        self._is_damaged = False
        self._file = StateFile(asked.state_dir, asked.log)
        self._file.hold()
        try:
            self._begin(run_options)
        except BaseException:
            self._file.release()
            raise

    def _begin(self, run_options: RunOptions) -> None:
        asked = self._asked
        self._ledger = self._restored()
        self._latest = _now()
        if any(case.life.since > self._latest for case in self._ledger.cases.values()):
            self._set_back(self._latest)
        self._fragments: dict[str, str] = {}
        resumed = self._is_damaged or bool(self._ledger.follower)
        self._tail = Tail(asked.log, self._ledger.position if resumed else None, at_end=asked.at_end)
        self._reader = self._resumed_reader()
        self._cases = Tracker(self._ledger)
        self._reader.wanted = self._cases.wanted()
        agreed = run_options._replace(consent=run_options.consent | self._policy.consent)
        self._remedies = RepairScheduler(
            self._ledger, agreed, asked.may_write, self._save, _now, lambda: self._wake.stopping, self._policy
        )
        self._remedies.remember()
        self._base_setting = run_options
        self._hook: tuple[HookRun, int] | None = None
        self._hooks_left: list[int] = []
        self._rescans = Rescans(asked.rescan)
        self._ask_again()
        self._permit_anew()  # this run may be allowed what the last one was not
        self._saved_at = self._measured_at = 0.0
        self._is_dirty = True
        self._nobody_listens = False
        self._trouble = self._metrics_trouble = ""
        self._behind_since: float | None = None
        self._ledger.follower = {"pid": os.getpid(), "started": _now().isoformat()}

    def _restored(self) -> FollowerState:
        text = self._file.load()
        if text is None:
            return FollowerState(os.path.abspath(self._asked.log))
        try:
            return ledgers.decode(text)
        except StateDamaged as error:
            aside = self._file.set_aside()
            self._is_damaged = True
            self._say(f"smfix: the state cannot be read ({error}); it is {aside} now, and all of the log is read anew")
            return FollowerState(os.path.abspath(self._asked.log))

    def _resumed_reader(self) -> Scanner:
        """A reader that knows the lines in front of the place where the last run stopped."""
        context = self._tail.context(REACH_BACK)
        start = self._ledger.place - sum(len(chunk.data) for chunk in context)
        reader = Scanner(place=start, begin=self._ledger.settled, grows=True)
        for chunk in context:
            reader.feed(chunk.data, self._index(chunk.file), chunk.first_line, time.monotonic())
        return reader

    # ---------------------------------------------------------------- the rounds

    def run(self) -> None:
        """Follow until the wake says stop, or nobody listens any more."""
        self._complain()
        self._save_if_possible()
        notify("READY=1", f"STATUS=following {self._asked.log}")
        pulse, beat = watchdog_seconds(), 0.0
        try:
            while not self._ends():
                busy = self.round()
                if pulse is not None and time.monotonic() - beat >= pulse:
                    beat = time.monotonic()
                    notify("WATCHDOG=1")
                if busy and not self._ends():
                    self._wake.pause(_GATHER)
                elif not self._ends():
                    self._wake.watch(self._tail.file, self._tail.identity)
                    self._wake.wait(self._until_next())
            notify("STOPPING=1")
        finally:
            self._stop()

    def _ends(self) -> bool:
        return self._wake.stopping or self._nobody_listens or not self._listens()

    def _look_at_the_clock(self) -> None:
        now = _now()
        if now < self._latest - _SET_BACK:
            self._say(f"smfix: the clock was set back by {(self._latest - now).total_seconds():.0f} s")
            self._set_back(now)
            self._is_dirty = True
        self._latest = now

    def _set_back(self, now: datetime) -> None:
        """The clock on the wall has been set back, so what was to be done at a time may be far away."""
        ledger = self._ledger
        for case in ledger.cases.values():
            case.life = incident_state.set_back(case.life, now)
        ledger.repairs = [(path, min(at, now)) for path, at in ledger.repairs]

    def round(self) -> bool:
        """Everything there is to do now; True where the log gave something."""
        self._look_at_the_clock()
        if self._wake.reload:
            self._wake.reload = False
            self._reload()
        gave = self._read()
        self._remind()
        self._treat()
        self._rescan()
        now = time.monotonic()
        if self._is_dirty or (self._has_moved() and now - self._saved_at >= self._patience()):
            self._save_if_possible()
        self._deliver()
        if self._asked.metrics and now - self._measured_at >= _MEASURED_EVERY:
            self._measure()
        return gave

    def _until_next(self) -> float | None:
        """Seconds until something is due by itself; None: nothing is."""
        if self._is_dirty or self._reader.is_waiting or self._hook is not None:
            return _IN_HAND
        until = self._remedies.until_due()
        return _AT_WORK if self._rescans.is_busy and (until is None or until > _AT_WORK) else until

    # ---------------------------------------------------------------- the log

    def _read(self) -> bool:
        gave = False
        is_behind = False
        if len(self._ledger.outbox) < MOST_UNTOLD:
            for _ in range(_CHUNKS):
                chunk = self._tail.read()
                if chunk is None:
                    break
                gave = True
                self._feed(chunk)
            else:
                is_behind = True
        self._complain()
        self._file_events()
        if not is_behind:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = time.monotonic()
        return gave

    def _feed(self, chunk: Chunk) -> None:
        data = chunk.data if chunk.data.endswith(b"\n") else chunk.data + b"\n"
        self._count("log_bytes_total", len(chunk.data))
        self._reader.feed(data, self._index(chunk.file), chunk.first_line, time.monotonic())
        self._file_events()

    def _file_events(self) -> None:
        """What can be told of the lines by now finds its case."""
        for event in self._reader.tell(time.monotonic()):
            for case, before in self._cases.take(event, _now(), self._time_of):
                self._moved(case, before)
            self._is_dirty = True
        for ended in self._reader.gc_ended():
            self._start_gc_again(ended.sr)

    def _start_gc_again(self, sr: str | None) -> None:
        """A GC of `sr` (None: unknown) ended at a held lock: after a repair of ours ask for a scan, once."""
        touched = self._remedies.touched
        ours = touched & {sr} if sr is not None else set(touched)
        touched -= ours
        for one in sorted(ours):
            self._rescans.want([one])
            self._say(f"smfix: SR {one}: GC ended early at a lock, after a repair; a scan is asked for")

    def _time_of(self, event: Failure) -> datetime | None:
        """The event's time: the latest year that is not after now, unless the operator says another."""
        if event.stamp is None:
            return None
        now = datetime.now()  # noqa: DTZ005 - it gets the log's zone here
        zone = self._asked.localize(now).tzinfo
        there = datetime.now(zone)
        latest = Stamp(None, there.month, there.day, there.hour, there.minute, there.second)
        return Calendar(self._asked.localize, there, latest, self._asked.year).time(event.stamp)

    def _index(self, name: str) -> int:
        if name not in self._ledger.files:
            self._ledger.files.append(name)
        return self._ledger.files.index(name)

    def _complain(self) -> None:
        for note in self._tail.notes:
            self._say(f"smfix: {note}")
        self._tail.notes.clear()

    # ---------------------------------------------------------------- the disks

    def _treat(self) -> None:
        behind = self._behind_since
        if behind is not None and time.monotonic() - behind < _CATCHING_UP:
            return  # the lines to come may say that it is over
        due = self._remedies.due()
        written = []
        for treated, denied in self._remedies.treat(due):
            case = self._ledger.cases.get(treated.id)
            if case is None:
                continue
            self._settle(case, treated, denied)
            outcome = treated.outcome
            if treated.sr and outcome is not None and outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
                self._count("repairs_total")
                written.append(treated.sr)
        self._reader.wanted = self._cases.wanted() if due else self._reader.wanted
        self._rescans.want(written)

    def _settle(self, case: TrackedIncident, treated: TreatedIncident, denied: Denied | None) -> None:
        before, outcome = case.life, treated.outcome
        case.disk = treated.path if treated.path is not None and outcome is not None else case.disk
        if outcome is None:
            case.life = incident_state.over(case.life, _now())
        else:
            until = denied.until if denied is not None else None
            case.life = incident_state.treated(case.life, outcome.status, outcome.reason, _now(), until)
            if case.proof is not None and outcome.settled:  # the log has said already that it is over
                case.life = incident_state.proved(case.life, _now())
        case.document = jsondoc.incident(treated)
        foreseen = self._remedies.foreseen.pop(case.id, outcome)
        looked = foreseen is not None and _was_diagnosed(foreseen)
        if looked and before.stage is Stage.SEEN and case.life.stage is not Stage.DIAGNOSED:
            # With leave to write the event that follows says what to type next, if anything.
            found = foreseen if foreseen is None or not self._asked.may_write else foreseen._replace(next=())
            self._announce(case, Stage.DIAGNOSED.value, treated._replace(outcome=found))
        self._moved(case, before)

    def _ask_again(self) -> None:
        """The last run may have ended before the storage manager had looked."""
        repaired = [case for case in self._ledger.cases.values() if case.life.stage is Stage.REPAIRED]
        self._rescans.want(case.document["sr"] for case in repaired if case.document is not None)

    def _rescan(self) -> None:
        ended = self._rescans.poll()
        if ended is None:
            return
        sr, done, words = ended
        self._say(f"smfix: SR {sr}: {words}")
        for case in self._ledger.cases.values() if done else ():
            if case.document is not None and case.document["sr"] == sr:
                before, case.life = case.life, incident_state.rescanned(case.life, _now())
                self._moved(case, before)

    def _moved(self, case: TrackedIncident, before: IncidentState | None) -> None:
        """Tell the step that the case's life has made, if it made one."""
        self._fragments.pop(case.id, None)
        name = incident_state.stage_event(before, case.life)
        if name is not None:
            self._announce(case, name)
        self._is_dirty = True

    def _announce(self, case: TrackedIncident, name: str, at_the_time: TreatedIncident | None = None) -> None:
        told_of = document(case, self._ledger.files) if at_the_time is None else jsondoc.incident(at_the_time)
        self._ledger.number += 1
        self._count(f"event {name}")
        told = follow_report.event(self._ledger.number, _now().isoformat(timespec="milliseconds"), name, told_of)
        self._ledger.outbox.append(PendingEvent(told))

    def _remind(self) -> None:
        now = _now()
        for case in self._ledger.cases.values():
            life = incident_state.reminded(case.life, now, self._policy.remind_first, self._policy.remind_last)
            if life is not None:
                case.life = life
                self._fragments.pop(case.id, None)
                self._announce(case, incident_state.REMINDER)
                self._is_dirty = True

    def _reload(self) -> None:
        if self._asked.read_policy is None:
            return
        try:
            self._policy = self._asked.read_policy()
        except SmfixError as error:
            self._say(f"smfix: {error}; the policy stays as it was")
            return
        self._remedies.rules = self._policy
        run_options = self._base_setting
        self._remedies.run_options = run_options._replace(consent=run_options.consent | self._policy.consent)
        self._permit_anew()
        self._say("smfix: the policy was read again")

    def _permit_anew(self) -> None:
        for case in self._ledger.cases.values():
            case.life = incident_state.permitted_anew(case.life, _now())
            self._fragments.pop(case.id, None)
        self._is_dirty = True

    # ---------------------------------------------------------------- telling

    def _deliver(self) -> None:
        """Print what was saved, then its hooks, one after the other."""
        for told in self._ledger.outbox:
            if not told.is_printed:
                told.is_printed = self._tell(told.document)
                if not told.is_printed:
                    self._nobody_listens = True
                    break
        self._poll_hook()
        while self._ledger.outbox and self._hook is None and self._ledger.outbox[0].is_printed:
            told = self._ledger.outbox[0]
            if not self._hooks_left:
                wanted = [n for n, hook in enumerate(self._policy.hooks) if hook.wants(told.document["event"])]
                if not wanted:
                    self._strike_out()
                    continue
                self._hooks_left = wanted
            self._start_hook(told)

    def _start_hook(self, told: PendingEvent) -> None:
        number = self._hooks_left[0]
        if number >= len(self._policy.hooks):  # the policy was read again meanwhile
            self._hooks_left.clear()
            return
        hook = self._policy.hooks[number]
        self._hook = HookRun(hook.command, follow_report.line(told.document), hook.timeout), number
        self._poll_hook()

    def _poll_hook(self) -> None:
        if self._hook is None:
            return
        ended = self._hook[0].poll()
        if ended is None:
            return
        if ended:
            self._count("hook_failures_total")
            self._say(f"smfix: {ended}")
        self._hook = None
        self._hooks_left = self._hooks_left[1:]
        if not self._hooks_left:
            self._strike_out()

    def _strike_out(self) -> None:
        del self._ledger.outbox[0]
        self._is_dirty = True

    # ---------------------------------------------------------------- keeping

    def _has_moved(self) -> bool:
        return self._ledger.place != self._reader.end

    def _patience(self) -> float:
        """Seconds that a position may stay unsaved; none for a new file: if it is gone later, we know of it."""
        mark = self._ledger.position.mark
        return _SAVED_EVERY if mark and (mark.device, mark.inode) == self._tail.identity else 0.0

    def _save(self) -> None:
        """Make everything durable. Raises WriteFailed."""
        self._ledger.position = self._tail.position
        self._ledger.place, self._ledger.settled = self._reader.end, self._reader.settled
        for case in self._ledger.cases.values():
            if case.life.trying is not None:
                self._fragments.pop(case.id, None)
        self._file.save(ledgers.encode(self._ledger, self._fragments))
        self._saved_at = time.monotonic()
        self._is_dirty = False

    def _save_if_possible(self) -> None:
        try:
            self._save()
            self._trouble = ""
        except WriteFailed as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._say(f"smfix: the state cannot be saved: {error}; nothing is repaired until it can")
            self._saved_at = time.monotonic()
            self._is_dirty = False

    def _count(self, name: str, number: int = 1) -> None:
        self._ledger.totals[name] = self._ledger.totals.get(name, 0) + number

    def _measure(self) -> None:
        self._measured_at = time.monotonic()
        log = {"log": self._ledger.log}
        totals = self._ledger.totals
        stages = [case.life.stage for case in self._ledger.cases.values()]
        position = self._tail.position
        samples: list[tuple[str, dict[str, str], float]] = [
            *(("incidents", {**log, "stage": stage.value}, stages.count(stage)) for stage in Stage),
            *(
                ("events_total", {**log, "event": name}, totals.get(f"event {name}", 0))
                for name in incident_state.EVENTS
            ),
            *((name, log, totals.get(name, 0)) for name in ("repairs_total", "log_bytes_total", "hook_failures_total")),
            ("reports_left_out_total", log, self._cases.left_out),
            ("log_unread_bytes", log, self._tail.unread()),
            ("log_gaps_total", log, position.gaps),
            ("log_lost_bytes_total", log, position.lost),
            ("last_look_seconds", log, time.time()),
        ]
        try:
            atomic_file.replace(self._asked.metrics or "", follow_report.metrics(samples).encode(), METRICS)
            self._metrics_trouble = ""
        except WriteFailed as error:
            if str(error) != self._metrics_trouble:
                self._metrics_trouble = str(error)
                self._say(f"smfix: the metrics cannot be written: {error}")

    def _stop(self) -> None:
        self._remedies.finish()
        if self._hook is not None and self._hook[0].stop() and len(self._hooks_left) == 1:
            self._strike_out()
        with suppress(WriteFailed):
            self._ledger.follower |= {"stopped": _now().isoformat()}
            self._save()
        if self._asked.metrics:
            self._measure()
        self._tail.close()
        self._file.release()


def _was_diagnosed(outcome: Outcome) -> bool:
    """The disk was looked into."""
    return bool(outcome.findings) or outcome.status is Status.VALID


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def document(case: TrackedIncident, files: list[str]) -> Document:
    """The contract's incident: what the log says, with what became of the disk."""
    told = incident(case, files)
    fresh = jsondoc.incident(TreatedIncident(case.id, told, case.vdi, case.sr, case.path, told.state, None))
    return fresh | ({} if case.document is None else _of_the_disk(case.document))


def _of_the_disk(told: Document) -> Document:
    """All of an incident's document that a look at the disk tells, and not the log."""
    log = ("kinds", "first_seen", "last_seen", "count", "evidence")
    return {key: value for key, value in told.items() if key not in log}
