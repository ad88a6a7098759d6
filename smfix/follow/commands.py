"""Follow a log as the command line says, report the state of followers, and reload their policies."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TextIO

from smfix.errors import SmfixError, Unreadable, UsageError, WriteFailed
from smfix.follow import incident_state, policy
from smfix.follow.event_wait import EventWait
from smfix.follow.incident_state import Stage
from smfix.follow.loop import Follower, FollowSetup
from smfix.follow.metrics import METRICS
from smfix.follow.policy import Policy
from smfix.follow.state import FollowerState, TrackedIncident
from smfix.follow.state_format import StateDamaged
from smfix.follow.state_store import StateFile, read_state, state_files
from smfix.follow.tracker import incident_of, treated_as
from smfix.formats.registry import rows
from smfix.host import atomic_file, kernel_path
from smfix.report import follow_report, jsondoc
from smfix.smlog.inputs.tail import Tail
from smfix.smlog.reader import zone_of
from smfix.usecases.rescan import rescan
from smfix.usecases.run_options import RunOptions
from smfix.values import Outcome, Status

ROOT_STATE = "/var/lib/smfix/follow"
_MOST_POLICY = 1 << 20  # bytes
_NO_READER = 1.0  # seconds that a reader who takes nothing is waited for once we are to stop
_PIPE = 4096  # bytes that a pipe takes at once when it takes any


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """The options of ``from-log --follow`` that are not in RunOptions."""

    logs: tuple[str, ...]
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False
    since: str | None = None
    until: str | None = None
    tz: str | None = None
    year: int | None = None
    policy: str | None = None
    state_dir: str | None = None
    metrics: str | None = None
    inotify: bool = True


def default_state() -> str:
    """Return the default folder of the states: root's, else the XDG state folder."""
    if os.geteuid() == 0:
        return ROOT_STATE
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "smfix", "follow")


def read_policy(path: str) -> Policy:
    """Return the policy in the file at `path`. Raises Unreadable; UsageError with every mistake, one a line.

    A file that another user can change is a mistake too.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise Unreadable(f"{path}: not a file")
            # It permits repairs and names commands, which run as the user of smfix.
            if about.st_mode & 0o022 or about.st_uid not in (0, os.geteuid()):
                raise UsageError(f"{path}: somebody else may write to it; `chown root` and `chmod go-w` it")
            text = file.read(_MOST_POLICY + 1).decode("utf-8", "replace")
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    read = policy.read(text, (problem.code for problem in rows()), incident_state.EVENTS)
    if isinstance(read, Policy):
        return read
    raise UsageError("\n".join(f"{path}: {mistake}" for mistake in read))


def metrics_folder(path: str) -> str:
    """Return the folder of the metrics file that a service is to write; it may be made later.

    Raises UsageError for a name that no metrics file can have.
    """
    with suppress(WriteFailed):
        atomic_file.check(path, METRICS)
    return os.path.dirname(kernel_path.named(path))


# --------------------------------------------------------------------------- following


def follow(options: FollowOptions, run_options: RunOptions, out: TextIO, say: Callable[[str], None]) -> int:
    """Follow until SIGTERM or SIGINT; 0. `out` is the stream whose descriptor events are written to.

    Raises UsageError for what cannot be meant, Unreadable, WriteFailed and Followed at the start.
    """
    log = _one_log(options)
    path = None if options.policy is None else kernel_path.named(options.policy)
    metrics = options.metrics
    if metrics is not None:
        atomic_file.check(metrics, METRICS)
        metrics = kernel_path.named(metrics)
    if options.year is not None and not 1970 <= options.year <= 9999:
        raise UsageError(f"--year {options.year}: not a year from 1970 to 9999")

    def rules() -> Policy:
        read = Policy() if path is None else read_policy(path)
        return replace(read, dry_run=True) if options.dry_run else read

    asked = FollowSetup(
        log=log,
        state_dir=kernel_path.named(options.state_dir or default_state()),
        localize=zone_of(options.tz),
        year=options.year,
        at_end=options.since == "now",
        may_write=(options.yes or path is not None) and not options.dry_run,
        metrics=metrics,
        policy=rules(),
        read_policy=None if path is None else rules,
        rescan=None if run_options.pool is None or not run_options.rescan else lambda sr: _rescan(sr, run_options),
    )
    wake = EventWait(os.path.dirname(log), use_inotify=options.inotify)
    with wake:
        to = _Out(out, options.as_json, wake)
        if sys.stderr.isatty():  # a person at a terminal sees nothing else
            there = "" if os.path.exists(log) else ", which is not there yet"
            say(f"smfix: following {log}{there}; Ctrl-C ends it, and the next run goes on from there")
        Follower(asked, run_options, wake, to.print_event, say, to.has_reader).run()
    return 0


def _rescan(sr: str, run_options: RunOptions) -> tuple[bool, str]:
    """Have the storage manager scan an SR; return whether it succeeded, and a message."""
    if run_options.pool is None:
        return False, "not rescanned: no XAPI"
    # By a connection of its own: a scan takes minutes, and meanwhile the next repair has questions.
    pool = run_options.pool.another()
    try:
        done = rescan([(sr, Outcome(Status.REPAIRED, ""))], run_options._replace(pool=pool))
    finally:
        pool.close()
    return any(one.done for one in done), "; ".join(one.message for one in done)


def _one_log(options: FollowOptions) -> str:
    if options.until is not None:
        raise UsageError("--until does not go with --follow, which has no end")
    if options.since not in (None, "now"):
        raise UsageError("--follow starts at its checkpoint, else at the file's beginning; or say --since now")
    if options.yes and options.dry_run:
        raise UsageError("--yes and --dry-run contradict each other")
    if len(options.logs) != 1 or options.logs[0] == "-":
        raise UsageError("--follow follows one file; run one smfix for each")
    log = options.logs[0]
    return kernel_path.named(os.path.join(log, "SMlog") if os.path.isdir(log) else log)


@dataclass(slots=True)
class _Out:
    """The stream of the events: a pipe, a file, a terminal. A pipe that is full delays the end by half a second."""

    stream: TextIO
    as_json: bool
    wake: EventWait

    def has_reader(self) -> bool:
        """Return False for a pipe whose reader has closed it."""
        poll = select.poll()
        poll.register(self.stream.fileno(), 0)
        return not any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))

    def print_event(self, document: dict[str, Any]) -> bool:
        """Write one event; return False if its reader is gone."""
        data = (follow_report.line(document) if self.as_json else follow_report.sentence(document)).encode()
        view, descriptor = memoryview(data), self.stream.fileno()
        ends: float | None = None
        while view:
            if select.select([], [descriptor], [], 0.2)[1]:
                try:
                    view = view[os.write(descriptor, view[:_PIPE]) :]
                except OSError:
                    return False
            elif self.wake.stopping:
                ends = ends or time.monotonic() + _NO_READER / 2
                if time.monotonic() > ends:
                    return False
        return True


# --------------------------------------------------------------------------- status


def status(state_dir: str | None) -> tuple[list[dict[str, Any]], int]:
    """Return every follower of this machine, as the documents of ``smfix status --json``, and the exit code.

    Raises Unreadable if the folder cannot be read.
    """
    folder = kernel_path.named(state_dir or default_state())
    followers = [_status_of(folder, path) for path in state_files(folder)]
    stages = [one["stage"] for follower in followers for one in follower["incidents"]]
    is_left = any(not Stage(stage).is_settled for stage in stages)
    broken = any(follower["note"] for follower in followers)
    return followers, (4 if is_left else 0) | (8 if broken else 0)


def reload(state_dir: str | None) -> list[int]:
    """Have every running follower of this machine read its policy again; return their process ids.

    Raises Unreadable if there is none, or if it may not be signalled.
    """
    folder = kernel_path.named(state_dir or default_state())
    pids = []
    for path in state_files(folder):
        pid = _status_of(folder, path)["pid"]
        if isinstance(pid, int):
            try:
                os.kill(pid, signal.SIGHUP)
            except OSError as error:
                raise Unreadable(f"process {pid}, which follows by {path}: {error.strerror}") from error
            pids.append(pid)
    if not pids:
        raise Unreadable(f"no follower is running here, by the states in {folder}")
    return pids


def _status_of(folder: str, path: str) -> dict[str, Any]:
    note = None
    try:
        state = read_state(path)
    except (StateDamaged, SmfixError) as error:
        state, note = None, f"{path}: {error}"
    if state is None:
        state, note = FollowerState(""), note or f"{path}: the file is gone"
    is_running = bool(state.log) and StateFile(folder, state.log).is_held()
    return {
        "log": state.log,
        "state": path,
        "running": is_running,
        "pid": state.run.pid if is_running else None,
        "started": None if state.run.started is None else state.run.started.isoformat(),
        "unread": _unread(state),
        "gaps": state.position.gaps,
        "lost": state.position.lost,
        "events": state.number,
        "untold": len(state.outbox),
        "repairs_today": sum(datetime.now(at.tzinfo) - at < timedelta(days=1) for _, at in state.repairs),
        "note": note,
        "incidents": [_document_of(tracked, state) for tracked in state.incidents.values()],
    }


def _unread(state: FollowerState) -> int | None:
    if not state.log:
        return None
    try:
        tail = Tail(state.log, state.position)
    except SmfixError:
        return None
    try:
        return tail.unread() if tail.file is not None else None
    finally:
        tail.close()


def _document_of(tracked: TrackedIncident, state: FollowerState) -> dict[str, Any]:
    progress = tracked.progress
    edits = tracked.disk.edits if tracked.disk is not None else ()
    incident = treated_as(tracked.id, incident_of(tracked, state.files), tracked.disk)
    return {
        "stage": progress.stage.value,
        "reason": progress.reason,
        "since": progress.since.isoformat(timespec="seconds"),
        "due": progress.due.isoformat(timespec="seconds") if progress.due else None,
        "looks": progress.tries,
        "incident": jsondoc.incident(incident, edits),
    }
