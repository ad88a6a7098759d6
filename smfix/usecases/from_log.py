"""Read logs, and repair the disks of their incidents: `smfix from-log`.

Names become images (:mod:`smfix.usecases.resolve`), parents come before their children
(:mod:`smfix.usecases.image_relatives`), each image is repaired (:mod:`smfix.usecases.repair_image`). An error of one
image never stops the others.

Modules that read an image are imported when one is read: most runs over a log find none (docs/adr/0005).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from smfix.errors import SmfixError
from smfix.host.image_file import open_image
from smfix.host.kernel_path import typed
from smfix.sm.resolve import Found, sr_mounts
from smfix.usecases.repair_context import names_of
from smfix.usecases.resolve import find_image, find_images, parents_first, unanswered_srs
from smfix.usecases.run_options import After, Progress, RunOptions, absolute
from smfix.values import (
    Backing,
    Incident,
    LogReading,
    Names,
    Outcome,
    Reason,
    Refusal,
    State,
    Status,
    StepKind,
    Target,
    TreatedIncident,
    Verdict,
)

SMLOG = "/var/log/SMlog"


class LogQuestion(NamedTuple):
    """The logs to read (contract, Options): their names, and how their times are read."""

    names: tuple[str, ...]
    tz: str | None = None
    year: int | None = None
    since: str | None = None
    until: str | None = None

    def options(self) -> list[str]:
        """Return the options of the question as words of a command line."""
        options = {"--since": self.since, "--until": self.until, "--tz": self.tz, "--year": self.year}
        return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def from_log(
    asked: LogQuestion,
    run_options: RunOptions,
    progress: Progress | None = None,
    each: Progress | None = None,
    after: After | None = None,
) -> tuple[LogReading, tuple[TreatedIncident, ...]]:
    """Return every incident of the logs, in their order, with the outcome for its disk.

    Parents are treated before their children. `progress` takes the bytes read, `each` the disks treated, `after` the
    outcome of each. Raises Unreadable for a log, UsageError for an option.
    """
    from smfix.smlog.reader import read_logs  # only here: the other commands start without it

    mounts = sr_mounts(run_options.sr_mounts)
    reading = read_logs(
        asked.names, tz=asked.tz, year=asked.year, since=asked.since, until=asked.until, progress=progress
    )
    reading = _with_older_logs(reading, asked, run_options)
    ids = _ids(reading.incidents)
    silent = unanswered_srs((incident.sr for incident in reading.incidents), mounts, run_options.say)
    places = find_images(
        reading.incidents,
        lambda one: Outcome(Status.FAILED, silent[one.sr]) if one.sr in silent else find_image(one, mounts),
    )
    done: dict[int, TreatedIncident] = {}
    for index in parents_first(places):
        if each is not None:
            each(len(done), len(places))
        treated = treat_incident(ids[index], reading.incidents[index], places[index], run_options)
        if after is not None and treated.outcome is not None:
            after(treated.path or treated.vdi, treated.outcome)
        done[index] = treated
    return reading, tuple(done[index] for index in range(len(places)))


def _with_older_logs(reading: LogReading, asked: LogQuestion, run_options: RunOptions) -> LogReading:
    """Add the older logs beside a named log that were not read, and the step that reads them too."""
    from smfix.smlog.inputs.rotation import siblings

    read = {os.path.realpath(file) for file in map(typed, reading.files) if os.path.isabs(file)}
    named = [typed(name) for name in asked.names if name != "-" and os.path.isfile(name)]
    beside = [one.path for name in named for one in siblings(name) if os.path.realpath(one.path) not in read]
    if not beside:
        return reading
    folders = dict.fromkeys(map(os.path.dirname, beside))
    wider = run_options.step(StepKind.READ_LOGS, *map(absolute, folders), options=asked.options())
    return reading._replace(beside=tuple(dict.fromkeys(beside)), wider=wider)


def _ids(incidents: Sequence[Incident]) -> list[str]:
    """Return stable ids: of host, SR and the VDI's first eight digits, because a log may have no more digits.

    If two disks share those, of their whole names.
    """
    from smfix.smlog.correlate.incidents import incident_id

    keys = [(one.host or "", one.sr or "", one.vdi.text[:8]) for one in incidents]
    shared = Counter(keys)
    return [
        incident_id(*key, "" if shared[key] == 1 else one.vdi.text) for key, one in zip(keys, incidents, strict=True)
    ]


def treat_incident(name: str, incident: Incident, place: Found | Outcome, run_options: RunOptions) -> TreatedIncident:
    """Return incident `name` with the outcome for its disk; `place` is the result of find_image. Never raises."""
    treated = TreatedIncident(name, incident, incident.vdi.text, incident.sr, incident.path, incident.state, None)
    if not isinstance(place, Found):
        uuid = incident.vdi.text if incident.vdi.is_full else None
        target = Target(incident.path or "", Backing.FILE, uuid, incident.sr)
        treated = treated._replace(names=_names(target, incident, run_options))
    is_over = incident.state is State.RESOLVED
    sr = place.target.sr or incident.sr if isinstance(place, Found) else incident.sr
    if sr in run_options.left_srs:
        return treated._replace(sr=sr) if is_over else treated._replace(sr=sr, outcome=_left_alone(sr))
    if isinstance(place, Outcome):
        return treated if is_over else treated._replace(outcome=place)
    target = place.target
    treated = treated._replace(vdi=target.vdi or treated.vdi, sr=target.sr or treated.sr, path=target.path)
    treated = treated._replace(names=_names(target, incident, run_options))
    if is_over and not _is_damaged(place, run_options):
        return treated
    from smfix.usecases.repair_image import repair_image

    return treated._replace(state=State.OPEN, outcome=repair_image(place, run_options))


def _left_alone(sr: str | None) -> Outcome:
    return Outcome(
        Status.REFUSED, f"--leave-sr {sr}: the host that is the master of this SR treats its disks", Reason.POLICY
    )


def _names(target: Target, incident: Incident, run_options: RunOptions) -> Names:
    """Return the names that the pool has for the disk, else those in the archive of the log."""
    names = names_of(run_options, target)
    return incident.names if names == Names() and incident.names is not None else names


def _is_damaged(found: Found, run_options: RunOptions) -> bool:
    """Return True if the image of a resolved incident is damaged, or its repair was interrupted."""
    from smfix.repair import recovery
    from smfix.usecases.check import checked

    if checked(found, None, run_options).verdict in (Verdict.INVALID, Verdict.NOT_A_VHD):
        return True
    with suppress(SmfixError):
        opened = open_image(found.target, sr_root=found.root)
        if not isinstance(opened, Refusal):
            with opened:
                return bool(recovery.interrupted(run_options.journals, opened))
    return False
