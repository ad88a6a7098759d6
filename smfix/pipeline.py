"""The use cases, as short compositions of what lies below: log and targets in, values out.

Here a log's incident meets an image: names become images (:mod:`smfix.targets`), parents come before
their children (:mod:`smfix.chains`), and each image is treated (:mod:`smfix.treatment`). Nothing is
printed here, and the trouble of one image never stops the others.

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
from smfix.host import lvm, slow, xapi_login
from smfix.host.naming import is_uuid
from smfix.host.paths import typed
from smfix.host.sr import Found, sr_mounts
from smfix.host.storage import open_image
from smfix.model import (
    Backing,
    CheckedImage,
    Incident,
    LogReading,
    Names,
    Outcome,
    Reason,
    Record,
    Refusal,
    State,
    Status,
    Target,
    TreatedImage,
    TreatedIncident,
    Verdict,
)
from smfix.reach import unanswered, unanswered_srs
from smfix.rescan import rescan
from smfix.setting import Decide, No, Setting, absolute
from smfix.targets import Missing, find_image, find_images, parents_first, resolved

if TYPE_CHECKING:
    from smfix.host import xapi
    from smfix.host.gc_lock import GcWait
    from smfix.vhd import libvhd
    from smfix.vhd.image import VhdImage

__all__ = ["SMLOG", "Decide", "LogQuestion", "No", "Setting", "absolute", "find_image", "find_images", "rescan"]

SMLOG = "/var/log/SMlog"


def consent(codes: Iterable[str]) -> frozenset[str]:
    """The codes of ``--confirm``, as the table writes them. Raises UsageError for an unknown one."""
    codes = tuple(codes)
    if not codes:
        return frozenset()
    from smfix.problems.table import row

    known = set()
    for code in codes:
        problem = row(code)
        if problem is None:
            raise UsageError(f"--confirm {code}: there is no such finding; `smfix explain` lists them")
        known.add(problem.code)
    return frozenset(known)


def pool_at(file: str | None) -> xapi.Pool | None:
    """The pool's XAPI: as `file` or the environment says, else this host's own, else None.

    One that the operator named must answer, else Unreadable; this host's own is asked when it is needed. Raises
    UsageError as :func:`smfix.host.xapi_login.login` does.
    """
    login = xapi_login.login(file, os.environ, socket=xapi_login.SOCKET)
    if login is None:
        return None
    from smfix.host import xapi

    pool = xapi.Pool(login, here=xapi.this_host())
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

    def words(self) -> tuple[str, ...]:
        """The same question as words of a command line."""
        options = {"--since": self.since, "--until": self.until, "--tz": self.tz, "--year": self.year}
        said = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        return (*map(absolute, self.names), *said)


Progress = Callable[[int, int], None]
"""Whoever is told how much of how much is done; a total of 0: nobody knows."""
After = Callable[[str, Outcome], None]
"""Whoever is told, as soon as it is known, what became of an image: its path, its outcome."""


def from_log(
    asked: LogQuestion,
    setting: Setting,
    progress: Progress | None = None,
    each: Progress | None = None,
    after: After | None = None,
) -> tuple[LogReading, tuple[TreatedIncident, ...]]:
    """Every incident of the logs, in their order, with what became of its disk.

    Parents are treated before their children. `progress` is told of bytes read, `each` of disks treated, `after`
    what became of each. Raises Unreadable for a log, UsageError for an option.
    """
    from smfix.smlog.source import read_logs  # only here: the other commands start without it

    mounts = sr_mounts(setting.sr_mounts)
    reading = read_logs(
        asked.names, tz=asked.tz, year=asked.year, since=asked.since, until=asked.until, progress=progress
    )
    reading = _with_beside(reading, asked, setting)
    ids = _ids(reading.incidents)
    silent = unanswered_srs((incident.sr for incident in reading.incidents), mounts, setting.say)
    places = find_images(
        reading.incidents,
        lambda one: Outcome(Status.FAILED, silent[one.sr]) if one.sr in silent else find_image(one, mounts),
    )
    treated: dict[int, TreatedIncident] = {}
    for index in parents_first(places):
        incident = reading.incidents[index]
        if each is not None:
            each(len(treated), len(places))
        done = treat_incident(ids[index], incident, places[index], setting)
        if after is not None and done.outcome is not None:
            after(done.path or done.vdi, done.outcome)
        treated[index] = done
    return reading, tuple(treated[index] for index in range(len(places)))


def _with_beside(reading: LogReading, asked: LogQuestion, setting: Setting) -> LogReading:
    """The reading, and which older logs beside a log that was named were not read."""
    from smfix.smlog.beside import siblings

    read = {os.path.realpath(file) for file in map(typed, reading.files) if os.path.isabs(file)}
    named = [typed(name) for name in asked.names if name != "-" and os.path.isfile(name)]
    beside = [one.path for name in named for one in siblings(name) if os.path.realpath(one.path) not in read]
    if not beside:
        return reading
    folders = tuple(dict.fromkeys(map(os.path.dirname, beside)))
    wider = setting.command("from-log", *asked._replace(names=folders).words())
    return reading._replace(beside=tuple(dict.fromkeys(beside)), wider=wider)


def _ids(incidents: Sequence[Incident]) -> list[str]:
    """Stable names: of host, SR and the VDI's first eight digits, for a log may say no more of it.

    Where two disks share those, their whole names are taken.
    """
    from smfix.smlog.incidents import incident_id

    keys = [(one.host or "", one.sr or "", one.vdi.text[:8]) for one in incidents]
    shared = Counter(keys)
    return [
        incident_id(*key, "" if shared[key] == 1 else one.vdi.text) for key, one in zip(keys, incidents, strict=True)
    ]


def treat_incident(name: str, incident: Incident, place: Found | Outcome, setting: Setting) -> TreatedIncident:
    """What becomes of one incident, called `name`; `place` is what :func:`find_image` said. Never raises."""
    told = TreatedIncident(name, incident, incident.vdi.text, incident.sr, incident.path, incident.state, None)
    if not isinstance(place, Found):
        uuid = incident.vdi.text if incident.vdi.is_full else None
        target = Target(incident.path or "", Backing.FILE, uuid, incident.sr)
        told = told._replace(names=_names(target, incident, setting))
    is_over = incident.state is State.RESOLVED
    sr = place.target.sr or incident.sr if isinstance(place, Found) else incident.sr
    if sr in setting.left_srs:
        return told._replace(sr=sr) if is_over else told._replace(sr=sr, outcome=_left_alone(sr))
    if isinstance(place, Outcome):
        return told if is_over else told._replace(outcome=place)
    target = place.target
    told = told._replace(vdi=target.vdi or told.vdi, sr=target.sr or told.sr, path=target.path)
    told = told._replace(names=_names(target, incident, setting))
    if is_over and not _is_damaged(place, setting):
        return told
    from smfix.treatment import treat

    return told._replace(state=State.OPEN, outcome=treat(place, setting))


def _left_alone(sr: str | None) -> Outcome:
    return Outcome(
        Status.REFUSED, f"--leave-sr {sr}: the host that is the master of this SR treats its disks", Reason.POLICY
    )


def _names(target: Target, incident: Incident, setting: Setting) -> Names:
    """What the pool calls the disk; where it is not asked, what the log's own archive says."""
    names = setting.names(target)
    return incident.names if names == Names() and incident.names is not None else names


def _is_damaged(found: Found, setting: Setting) -> bool:
    """A resolved incident's image is within reach, and damaged all the same, or its repair was interrupted."""
    from smfix.checking import checked
    from smfix.repair import recovery

    if checked(found, None, setting).verdict in (Verdict.INVALID, Verdict.NOT_A_VHD):
        return True
    with suppress(SmfixError):
        opened = open_image(found.target, sr_root=found.root)
        if not isinstance(opened, Refusal):
            with opened:
                return bool(recovery.interrupted(setting.journals, opened))
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
    from smfix.host.gc_lock import GC_WAIT, GcWait

    if text is None:
        return GcWait(GC_WAIT, draw=draw)
    from smfix.policy import seconds

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
    targets: Sequence[str], setting: Setting, each: Progress | None = None, after: After | None = None
) -> tuple[TreatedImage, ...]:
    """What became of every image that the targets name, parents first; `after` is told of each. Raises UsageError."""
    from smfix.treatment import treat

    images = resolved(targets, setting)
    if len(images) > 1 and (setting.given_size is not None or setting.given_uuid is not None):
        raise UsageError(f"--size and --uuid speak of one disk, the targets name {len(images)}")
    treated: dict[int, TreatedImage] = {}
    for index in parents_first(images):
        image = images[index]
        if each is not None:
            each(len(treated), len(images))
        if isinstance(image, Found):
            target = image.target
            treated[index] = TreatedImage(target.path, treat(image, setting), names=setting.names(target), sr=target.sr)
        else:
            treated[index] = TreatedImage(image.text, image.outcome, image.is_missing)
        if after is not None:
            after(treated[index].path, treated[index].outcome)
    return tuple(treated[index] for index in range(len(images)))


def check(targets: Sequence[str], setting: Setting, *, parents: bool = False) -> tuple[CheckedImage, ...]:
    """The verdict on every image that the targets name; `parents`: on their chains too, nearest first.

    Writes nothing, takes no lock. Raises UsageError.
    """
    from smfix.checking import chain_of, checked, uses_of

    images = resolved(targets, setting)
    uses = uses_of([image for image in images if isinstance(image, Found)])
    told: dict[str, CheckedImage] = {}
    above: dict[str, str] = {}
    for image in images:
        if isinstance(image, Missing):
            told[image.text] = _no_image(image)
            continue
        child = None
        for found in (image, *(chain_of(image) if parents else ())):
            path = lvm.place_of(found.target.path)
            if path not in told:
                with slow.watched(found.target.path, setting.say):
                    told[path] = checked(found, uses.get(found.target.path), setting)
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


def show(target: str, setting: Setting) -> tuple[str, VhdImage, libvhd.Opened]:
    """The path and the structures of one image, as smfix and as libvhd reads them. Raises UsageError, Unreadable.

    The image's view is closed: only what was read by inspecting it is there.
    """
    from smfix.checking import Closed
    from smfix.vhd import libvhd
    from smfix.vhd.image import inspect

    found = resolved([target], setting)
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


def journals(setting: Setting, prefix: str | None = None) -> tuple[Record, ...]:
    """All journals, oldest first, or the one whose id begins with `prefix`.

    Raises UsageError, Unreadable, JournalDamaged as :mod:`smfix.repair.journal_folder` does.
    """
    from smfix.repair import journal_folder
    from smfix.undoing import record_of

    if prefix is None:
        return tuple(record_of(entry, setting) for entry in journal_folder.list_journals(setting.journals))
    return (record_of(journal_folder.load(setting.journals, prefix), setting),)


def undo(
    prefix: str, setting: Setting, agree: Callable[[Record], bool] | None, consent: Iterable[str] = ()
) -> TreatedImage:
    """Put the image of a journal back; `agree` says yes to it (None: a dry run), `consent` is that of ``--confirm``.

    Raises UsageError, Unreadable, WriteFailed, JournalDamaged before anything is written.
    """
    from smfix.repair import journal_folder
    from smfix.repair.undo import NEWER
    from smfix.treatment import awake, refused, told_of
    from smfix.undoing import undone

    consent = [code.upper() for code in consent]
    if unknown := [code for code in consent if code != NEWER]:
        raise UsageError(f"--confirm {unknown[0]}: an undo asks for consent to {NEWER} alone")
    entry = journal_folder.load(setting.journals, prefix)
    path = entry.journal.target.path
    found = Found(entry.journal.target, entry.journal.sr_root)
    if path in (silent := unanswered([path], (), setting.say)):
        again = (setting.undo_command(entry.id),)
        return TreatedImage(path, Outcome(Status.FAILED, silent[path], journal=entry.id, next=again))
    volumes = setting.volumes()
    try:
        with slow.watched(path, setting.say), awake(found.target, volumes, change=agree is not None) as asleep:
            outcome = (
                refused(asleep)
                if asleep is not None
                else undone(entry, found, setting, agree, volumes, newer=bool(consent))
            )
    except Unanswered as error:
        outcome = Outcome(Status.FAILED, str(error), next=(setting.undo_command(entry.id),))
    outcome = told_of(outcome._replace(journal=entry.id), found.target, volumes, setting)
    return TreatedImage(path, outcome, names=setting.names(found.target), sr=found.target.sr)
