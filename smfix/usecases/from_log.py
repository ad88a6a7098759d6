"""The use cases, as short compositions of what lies below: log and targets in, values out.

Here a log's incident meets an image: names become images (:mod:`smfix.usecases.resolve`), parents come before
their children (:mod:`smfix.usecases.image_relatives`), and each image is repaired (:mod:`smfix.usecases.repair`).
Nothing is printed here, and an error of one image never stops the others.

What reads an image is imported where one is read: most runs over a log find none (docs/adr/0005).
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from smfix.errors import SmfixError, Unanswered, Unreadable, UsageError
from smfix.host import wait_notice
from smfix.host.image_file import open_image
from smfix.host.kernel_path import typed
from smfix.sm.paths import is_uuid
from smfix.sm.resolve import Found, sr_mounts
from smfix.sm.sr_types import lvm_volumes
from smfix.usecases.reach import unanswered, unanswered_srs
from smfix.usecases.rescan import rescan
from smfix.usecases.resolve import Missing, find_image, find_images, parents_first, resolved
from smfix.usecases.run_options import Decide, Declined, RunOptions, absolute
from smfix.values import (
    Backing,
    CheckedImage,
    Incident,
    JournalRecord,
    LogReading,
    Names,
    Outcome,
    Reason,
    Refusal,
    State,
    Status,
    StepKind,
    Target,
    TreatedImage,
    TreatedIncident,
    Verdict,
)
from smfix.xapi import login as login_module

if TYPE_CHECKING:
    from smfix.formats.vhd import libvhd
    from smfix.formats.vhd.image import VhdImage
    from smfix.sm.gc_lock import GcWait
    from smfix.xapi import client

__all__ = [
    "SMLOG",
    "Decide",
    "Declined",
    "LogQuestion",
    "RunOptions",
    "absolute",
    "find_image",
    "find_images",
    "rescan",
]

SMLOG = "/var/log/SMlog"


def consent(codes: Iterable[str]) -> frozenset[str]:
    """The codes of ``--confirm``, as the table writes them. Raises UsageError for an unknown one."""
    codes = tuple(codes)
    if not codes:
        return frozenset()
    from smfix.formats.vhd.problems.registry import row

    known = set()
    for code in codes:
        problem = row(code)
        if problem is None:
            raise UsageError(f"--confirm {code}: there is no such finding; `smfix explain` lists them")
        known.add(problem.code)
    return frozenset(known)


def pool_at(file: str | None) -> client.Pool | None:
    """The pool's XAPI: as `file` or the environment says, else this host's own, else None.

    One that the operator named must answer, else Unreadable; this host's own is asked when it is needed. Raises
    UsageError as :func:`smfix.xapi.login.login` does.
    """
    login = login_module.login(file, os.environ, socket=login_module.SOCKET)
    if login is None:
        return None
    from smfix.xapi import client

    pool = client.Pool(login, here=client.this_host())
    if login.socket is None:
        pool.hosts()
    return pool


def left_srs(srs: Iterable[str]) -> frozenset[str]:
    """The UUIDs of ``--leave-sr``. Raises UsageError for what is none."""
    for sr in srs:
        if not is_uuid(sr.lower()):
            raise UsageError(f"--leave-sr {sr}: an SR's UUID is 32 hex digits with four dashes")
    return frozenset(sr.lower() for sr in srs)


def planned(outcomes: Iterable[Outcome]) -> int:
    """How many images a run without dry run would write to."""
    return sum(outcome.status is Status.WOULD_REPAIR for outcome in outcomes)


# --------------------------------------------------------------------------- from-log


class LogQuestion(NamedTuple):
    """What is asked of the logs (contract, Options): names, and how their times are read."""

    names: tuple[str, ...]
    tz: str | None = None
    year: int | None = None
    since: str | None = None
    until: str | None = None

    def options(self) -> list[str]:
        """Return the options of the question as words of a command line."""
        options = {"--since": self.since, "--until": self.until, "--tz": self.tz, "--year": self.year}
        return [word for name, value in options.items() if value is not None for word in (name, str(value))]


Progress = Callable[[int, int], None]
"""Whoever is told how much of how much is done; a total of 0: nobody knows."""
After = Callable[[str, Outcome], None]
"""Whoever is told, as soon as it is known, what became of an image: its path, its outcome."""


def from_log(
    asked: LogQuestion,
    run_options: RunOptions,
    progress: Progress | None = None,
    each: Progress | None = None,
    after: After | None = None,
) -> tuple[LogReading, tuple[TreatedIncident, ...]]:
    """Every incident of the logs, in their order, with what became of its disk.

    Parents are treated before their children. `progress` is told of bytes read, `each` of disks treated, `after`
    what became of each. Raises Unreadable for a log, UsageError for an option.
    """
    from smfix.smlog.reader import read_logs  # only here: the other commands start without it

    mounts = sr_mounts(run_options.sr_mounts)
    reading = read_logs(
        asked.names, tz=asked.tz, year=asked.year, since=asked.since, until=asked.until, progress=progress
    )
    reading = _with_beside(reading, asked, run_options)
    ids = _ids(reading.incidents)
    silent = unanswered_srs((incident.sr for incident in reading.incidents), mounts, run_options.say)
    places = find_images(
        reading.incidents,
        lambda one: Outcome(Status.FAILED, silent[one.sr]) if one.sr in silent else find_image(one, mounts),
    )
    treated: dict[int, TreatedIncident] = {}
    for index in parents_first(places):
        incident = reading.incidents[index]
        if each is not None:
            each(len(treated), len(places))
        done = treat_incident(ids[index], incident, places[index], run_options)
        if after is not None and done.outcome is not None:
            after(done.path or done.vdi, done.outcome)
        treated[index] = done
    return reading, tuple(treated[index] for index in range(len(places)))


def _with_beside(reading: LogReading, asked: LogQuestion, run_options: RunOptions) -> LogReading:
    """The reading, and which older logs beside a log that was named were not read."""
    from smfix.smlog.inputs.rotation import siblings

    read = {os.path.realpath(file) for file in map(typed, reading.files) if os.path.isabs(file)}
    named = [typed(name) for name in asked.names if name != "-" and os.path.isfile(name)]
    beside = [one.path for name in named for one in siblings(name) if os.path.realpath(one.path) not in read]
    if not beside:
        return reading
    folders = tuple(dict.fromkeys(map(os.path.dirname, beside)))
    wider = run_options.step(StepKind.READ_LOGS, *map(absolute, folders), options=asked.options())
    return reading._replace(beside=tuple(dict.fromkeys(beside)), wider=wider)


def _ids(incidents: Sequence[Incident]) -> list[str]:
    """Stable names: of host, SR and the VDI's first eight digits, for a log may say no more of it.

    Where two disks share those, their whole names are taken.
    """
    from smfix.smlog.correlate.incidents import incident_id

    keys = [(one.host or "", one.sr or "", one.vdi.text[:8]) for one in incidents]
    shared = Counter(keys)
    return [
        incident_id(*key, "" if shared[key] == 1 else one.vdi.text) for key, one in zip(keys, incidents, strict=True)
    ]


def treat_incident(name: str, incident: Incident, place: Found | Outcome, run_options: RunOptions) -> TreatedIncident:
    """What becomes of one incident, called `name`; `place` is what :func:`find_image` said. Never raises."""
    told = TreatedIncident(name, incident, incident.vdi.text, incident.sr, incident.path, incident.state, None)
    if not isinstance(place, Found):
        uuid = incident.vdi.text if incident.vdi.is_full else None
        target = Target(incident.path or "", Backing.FILE, uuid, incident.sr)
        told = told._replace(names=_names(target, incident, run_options))
    is_over = incident.state is State.RESOLVED
    sr = place.target.sr or incident.sr if isinstance(place, Found) else incident.sr
    if sr in run_options.left_srs:
        return told._replace(sr=sr) if is_over else told._replace(sr=sr, outcome=_left_alone(sr))
    if isinstance(place, Outcome):
        return told if is_over else told._replace(outcome=place)
    target = place.target
    told = told._replace(vdi=target.vdi or told.vdi, sr=target.sr or told.sr, path=target.path)
    told = told._replace(names=_names(target, incident, run_options))
    if is_over and not _is_damaged(place, run_options):
        return told
    from smfix.usecases.repair import repair_image

    return told._replace(state=State.OPEN, outcome=repair_image(place, run_options))


def _left_alone(sr: str | None) -> Outcome:
    return Outcome(
        Status.REFUSED, f"--leave-sr {sr}: the host that is the master of this SR treats its disks", Reason.POLICY
    )


def _names(target: Target, incident: Incident, run_options: RunOptions) -> Names:
    """What the pool calls the disk; where it is not asked, what the log's own archive says."""
    names = run_options.names(target)
    return incident.names if names == Names() and incident.names is not None else names


def _is_damaged(found: Found, run_options: RunOptions) -> bool:
    """A resolved incident's image is within reach, and damaged all the same, or its repair was interrupted."""
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


# --------------------------------------------------------------------------- targets


def given_uuid(text: str | None) -> bytes | None:
    """The UUID of ``--uuid`` as 16 bytes. Raises UsageError for what is none."""
    if text is None:
        return None
    if not is_uuid(text.lower()):
        raise UsageError(f"--uuid {text}: a footer's UUID is 32 hex digits with four dashes")
    return bytes.fromhex(text.replace("-", ""))


def gc_wait(text: str | None, draw: Callable[[str], None]) -> GcWait:
    """How long a run waits for the end of GC, by ``--gc-wait``. Raises UsageError for what is no duration."""
    from smfix.sm.gc_lock import GC_WAIT, GcWait

    if text is None:
        return GcWait(GC_WAIT, draw=draw)
    from smfix.usecases.durations import seconds

    found = seconds(text)
    if found is None:
        raise UsageError(f"--gc-wait {text}: not a duration such as 0s, 90s, 15m, 2h or 1d")
    return GcWait(float(found), draw=draw)


def given_size(text: str | None) -> int | None:
    """The size of ``--size`` in bytes. Raises UsageError for what is none."""
    if text is None:
        return None
    import re

    size = re.fullmatch(r"([0-9]{1,18})(?:([KMGT])(?:iB)?)?", text.strip(), re.ASCII | re.IGNORECASE)
    if size is None:
        raise UsageError(f"--size {text}: a whole number of bytes, or of K, M, G or T (1024 each: 64M is 67108864)")
    return int(size[1]) << (0 if size[2] is None else 10 * ("KMGT".index(size[2].upper()) + 1))


def repair(
    targets: Sequence[str], run_options: RunOptions, each: Progress | None = None, after: After | None = None
) -> tuple[TreatedImage, ...]:
    """What became of every image that the targets name, parents first; `after` is told of each. Raises UsageError."""
    from smfix.usecases.repair import repair_image

    images = resolved(targets, run_options)
    if len(images) > 1 and (run_options.given_size is not None or run_options.given_uuid is not None):
        raise UsageError(f"--size and --uuid speak of one disk, the targets name {len(images)}")
    treated: dict[int, TreatedImage] = {}
    for index in parents_first(images):
        image = images[index]
        if each is not None:
            each(len(treated), len(images))
        if isinstance(image, Found):
            target = image.target
            treated[index] = TreatedImage(
                target.path, repair_image(image, run_options), names=run_options.names(target), sr=target.sr
            )
        else:
            treated[index] = TreatedImage(image.text, image.outcome, image.is_missing)
        if after is not None:
            after(treated[index].path, treated[index].outcome)
    return tuple(treated[index] for index in range(len(images)))


def check(targets: Sequence[str], run_options: RunOptions, *, parents: bool = False) -> tuple[CheckedImage, ...]:
    """The verdict on every image that the targets name; `parents`: on their chains too, nearest first.

    Writes nothing, takes no lock. Raises UsageError.
    """
    from smfix.usecases.check import chain_of, checked, uses_of

    images = resolved(targets, run_options)
    uses = uses_of([image for image in images if isinstance(image, Found)])
    told: dict[str, CheckedImage] = {}
    above: dict[str, str] = {}
    for image in images:
        if isinstance(image, Missing):
            told[image.text] = _no_image(image)
            continue
        child = None
        for found in (image, *(chain_of(image) if parents else ())):
            path = lvm_volumes.place_of(found.target.path)
            if path not in told:
                with wait_notice.watched(found.target.path, run_options.say):
                    told[path] = checked(found, uses.get(found.target.path), run_options)
            if child is not None:
                above[child] = path
            child = path
    return tuple(
        image._replace(parent=told[above[path]].path) if path in above else image for path, image in told.items()
    )


def _no_image(missing: Missing) -> CheckedImage:
    outcome, said = missing.outcome, None
    if outcome.status is Status.AMBIGUOUS:
        said = "ambiguous"
    elif outcome.status is Status.NOT_FOUND and (outcome.next or os.strerror(errno.ENOENT) in outcome.message):
        said = "not found"
    return CheckedImage(missing.text, Verdict.UNREADABLE, note=outcome.message, said=said, next=outcome.next)


def show(target: str, run_options: RunOptions) -> tuple[str, VhdImage, libvhd.Opened]:
    """The path and the structures of one image, as smfix and as libvhd reads them. Raises UsageError, Unreadable.

    The image's view is closed: only what was read by inspecting it is there.
    """
    from smfix.formats.vhd import libvhd
    from smfix.formats.vhd.image import inspect
    from smfix.usecases.check import Closed

    found = resolved([target], run_options)
    if len(found) != 1:
        raise UsageError(f"{target} names {len(found)} images; `smfix show` takes one")
    (image,) = found
    if isinstance(image, Missing):
        raise Unreadable(image.outcome.message)
    opened = open_image(image.target, sr_root=image.root)
    if isinstance(opened, Refusal):
        raise Unreadable(opened.message)
    with opened:
        inspected = inspect(opened)
        seen = libvhd.opened(opened)
        return image.target.path, replace(inspected, view=Closed(inspected.size, opened.growable)), seen


# --------------------------------------------------------------------------- journal, undo


def journals(run_options: RunOptions, prefix: str | None = None) -> tuple[JournalRecord, ...]:
    """All journals, oldest first, or the one whose id begins with `prefix`.

    Raises UsageError, Unreadable, JournalDamaged as :mod:`smfix.repair.journal_store` does.
    """
    from smfix.repair import journal_store
    from smfix.usecases.journal import record_of

    if prefix is None:
        return tuple(record_of(entry, run_options) for entry in journal_store.list_journals(run_options.journals))
    return (record_of(journal_store.load(run_options.journals, prefix), run_options),)


def undo(
    prefix: str, run_options: RunOptions, agree: Callable[[JournalRecord], bool] | None, consent: Iterable[str] = ()
) -> TreatedImage:
    """Put the image of a journal back; `agree` says yes to it (None: a dry run), `consent` is that of ``--confirm``.

    Raises UsageError, Unreadable, WriteFailed, JournalDamaged before anything is written.
    """
    from smfix.repair import journal_store
    from smfix.repair.undo import NEWER
    from smfix.usecases.journal import undone
    from smfix.usecases.repair import refused, volume_active, with_leftovers

    consent = [code.upper() for code in consent]
    if unknown := [code for code in consent if code != NEWER]:
        raise UsageError(f"--confirm {unknown[0]}: an undo asks for consent to {NEWER} alone")
    entry = journal_store.load(run_options.journals, prefix)
    path = entry.journal.target.path
    found = Found(entry.journal.target, entry.journal.sr_root)
    if path in (silent := unanswered([path], (), run_options.say)):
        again = (run_options.undo_step(entry.id),)
        return TreatedImage(path, Outcome(Status.FAILED, silent[path], journal=entry.id, next=again))
    volumes = run_options.volumes()
    try:
        with (
            wait_notice.watched(path, run_options.say),
            volume_active(found.target, volumes, change=agree is not None) as asleep,
        ):
            outcome = (
                refused(asleep)
                if asleep is not None
                else undone(entry, found, run_options, agree, volumes, newer=bool(consent))
            )
    except Unanswered as error:
        outcome = Outcome(Status.FAILED, str(error), next=(run_options.undo_step(entry.id),))
    outcome = with_leftovers(outcome._replace(journal=entry.id), found.target, volumes, run_options)
    return TreatedImage(path, outcome, names=run_options.names(found.target), sr=found.target.sr)
