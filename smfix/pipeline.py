"""The use cases, as short compositions of what lies below: log and targets in, values out.

Here a log's incident meets an image: names become images (:mod:`smfix.host.sr`), parents come before
their children (:mod:`smfix.chains`), and each image is treated (:mod:`smfix.treatment`). Nothing is
printed here, and the trouble of one image never stops the others.

What reads an image is imported where one is read: most runs over a log find none (docs/adr/0005).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from smfix.errors import SmfixError, Unreadable, UsageError
from smfix.host import xapi_login
from smfix.host.naming import Life, is_uuid, read_path
from smfix.host.sr import Ambiguous, Found, NotFound, locate, resolve, sr_mounts
from smfix.host.storage import Identity, open_image
from smfix.model import (
    Backing,
    CheckedImage,
    Edit,
    Incident,
    LogReading,
    Names,
    Outcome,
    Reason,
    Record,
    Refusal,
    Resize,
    State,
    Status,
    Target,
    TreatedImage,
    TreatedIncident,
    Verdict,
    Write,
)
from smfix.reach import unanswered, unanswered_srs
from smfix.report.escape import command, operand
from smfix.rescan import rescan
from smfix.setting import Decide, Setting

if TYPE_CHECKING:
    from smfix.host import xapi
    from smfix.host.lvm import Volumes
    from smfix.host.usage import Usage
    from smfix.repair.journal_folder import DamagedEntry, JournalEntry
    from smfix.vhd import libvhd
    from smfix.vhd.image import VhdImage

__all__ = ["SMLOG", "Decide", "LogQuestion", "Setting", "rescan"]

SMLOG = "/var/log/SMlog"
_NAMED = 8
"""Candidates and places that a message names."""

COPY = (
    "this is a downloaded or uploaded copy of a disk: there is no repairing it. Find the server that the "
    "image was made from, repair that server's disk, then take a new image"
)


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
        return (*map(operand, self.names), *said)


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
    ids = _ids(reading.incidents)
    silent = unanswered_srs((incident.sr for incident in reading.incidents), mounts)
    places = [
        Outcome(Status.FAILED, silent[one.sr]) if one.sr in silent else find_image(one, mounts)
        for one in reading.incidents
    ]
    treated: dict[int, TreatedIncident] = {}
    for index in _parents_first(places):
        incident = reading.incidents[index]
        if each is not None:
            each(len(treated), len(places))
        done = treat_incident(ids[index], incident, places[index], setting)
        if after is not None and done.outcome is not None:
            after(done.path or done.vdi, done.outcome)
        treated[index] = done
    return reading, tuple(treated[index] for index in range(len(places)))


def _parents_first(places: Sequence[object]) -> list[int]:
    """The indexes of `places` in the order of their treatment; what is not Found has no parent."""
    founds = [place if isinstance(place, Found) else None for place in places]
    if not any(founds):
        return list(range(len(founds)))
    from smfix import chains

    return chains.parents_first(founds)


def _ids(incidents: Sequence[Incident]) -> list[str]:
    """Stable names: of host, SR and the VDI's first eight digits, for a log may say no more of it.

    Where two disks share those, their whole names are taken.
    """
    import hashlib

    keys = [(one.host or "", one.sr or "", one.vdi.text[:8]) for one in incidents]
    shared = Counter(keys)
    whole = [(*key, "" if shared[key] == 1 else one.vdi.text) for key, one in zip(keys, incidents, strict=True)]
    return [hashlib.sha256("\0".join(key).encode()).hexdigest()[:12] for key in whole]


def find_image(incident: Incident, mounts: Sequence[str]) -> Found | Outcome:
    """Where the incident's image is, or the outcome of not knowing."""
    if incident.copy or (incident.path is not None and read_path(incident.path).life is Life.COPY):
        return Outcome(Status.REFUSED, COPY, Reason.IMAGE_COPY)
    if incident.candidates:
        return _ambiguous(incident.candidates)
    try:
        place = locate(incident.vdi, incident.sr, incident.path, mounts)
    except SmfixError as error:
        return Outcome(Status.FAILED, str(error))
    if isinstance(place, Ambiguous):
        return _ambiguous([found.target.path for found in place.candidates])
    return _not_found(place, incident.vdi.text) if isinstance(place, NotFound) else place


def _ambiguous(paths: Sequence[str]) -> Outcome:
    named = ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")
    return Outcome(
        Status.AMBIGUOUS,
        f"{len(paths)} images fit, and nothing says which is meant: {named}; check each, then repair the damaged one",
        next=tuple(command(["smfix", "check", path]) for path in paths[:_NAMED]),
    )


def _not_found(place: NotFound, vdi: str) -> Outcome:
    looked = ", ".join(place.looked[:_NAMED])
    asked = f"uuid={vdi}" if is_uuid(vdi) else "params=uuid,sr-uuid,name-label"
    return Outcome(
        Status.NOT_FOUND,
        f"no such image on this host; looked at: {looked}. Run smfix where its SR is attached, or name the "
        "mount point with --sr-mount",
        next=(command(["xe", "vdi-list", asked]),),
    )


def treat_incident(name: str, incident: Incident, place: Found | Outcome, setting: Setting) -> TreatedIncident:
    """What becomes of one incident, called `name`; `place` is what :func:`find_image` said. Never raises."""
    told = TreatedIncident(name, incident, incident.vdi.text, incident.sr, incident.path, incident.state, None)
    if not isinstance(place, Found):
        uuid = incident.vdi.text if incident.vdi.is_full else None
        target = Target(incident.path or "", Backing.FILE, uuid, incident.sr)
        told = replace(told, names=_names(target, incident, setting))
    is_over = incident.state is State.RESOLVED
    sr = place.target.sr or incident.sr if isinstance(place, Found) else incident.sr
    if sr in setting.left_srs:
        return replace(told, sr=sr) if is_over else replace(told, sr=sr, outcome=_left_alone(sr))
    if isinstance(place, Outcome):
        return told if is_over else replace(told, outcome=place)
    target = place.target
    told = replace(told, vdi=target.vdi or told.vdi, sr=target.sr or told.sr, path=target.path)
    told = replace(told, names=_names(target, incident, setting))
    if is_over and not _is_damaged(place, setting):
        return told
    from smfix.treatment import treat

    return replace(told, state=State.OPEN, outcome=treat(place, setting))


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
    from smfix.repair import undo as way_back

    if _checked(found, None, setting).verdict in (Verdict.INVALID, Verdict.NOT_A_VHD):
        return True
    with suppress(SmfixError):
        opened = open_image(found.target, sr_root=found.root)
        if not isinstance(opened, Refusal):
            with opened:
                return bool(way_back.interrupted(setting.journals, opened))
    return False


# --------------------------------------------------------------------------- targets


class _Missing(NamedTuple):
    """A TARGET that leads to no image, and what to say of it."""

    text: str
    outcome: Outcome
    is_missing: bool = True


def _resolved(targets: Sequence[str], setting: Setting) -> list[Found | _Missing]:
    """Every image that the targets name, each once. Raises UsageError for what cannot be a name."""
    mounts = sr_mounts(setting.sr_mounts)
    silent = unanswered(targets, mounts)
    images: dict[str, Found | _Missing] = {}
    for text in targets:
        if text in silent:
            images[text] = _Missing(text, Outcome(Status.FAILED, silent[text]))
            continue
        try:
            found = resolve(text, mounts)
        except Unreadable as error:
            images[text] = _Missing(text, Outcome(Status.NOT_FOUND, str(error)))
            continue
        if isinstance(found, Ambiguous):
            paths = [image.target.path for image in found.candidates]
            images[text] = _Missing(text, _ambiguous(paths), is_missing=False)
        elif isinstance(found, NotFound):
            images[text] = _Missing(text, _not_found(found, text.rpartition("/")[2].lower()))
        else:
            images.update((image.target.path, image) for image in found)
    return list(images.values())


def given_uuid(text: str | None) -> bytes | None:
    """The UUID of ``--uuid`` as 16 bytes. Raises UsageError for what is none."""
    if text is None:
        return None
    if not is_uuid(text.lower()):
        raise UsageError(f"--uuid {text}: a footer's UUID is 32 hex digits with four dashes")
    return bytes.fromhex(text.replace("-", ""))


def repair(
    targets: Sequence[str], setting: Setting, each: Progress | None = None, after: After | None = None
) -> tuple[TreatedImage, ...]:
    """What became of every image that the targets name, parents first; `after` is told of each. Raises UsageError."""
    from smfix.treatment import treat

    images = _resolved(targets, setting)
    if len(images) > 1 and (setting.given_size is not None or setting.given_uuid is not None):
        raise UsageError(f"--size and --uuid speak of one disk, the targets name {len(images)}")
    treated: dict[int, TreatedImage] = {}
    for index in _parents_first(images):
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
    images = _resolved(targets, setting)
    uses = _uses([image for image in images if isinstance(image, Found)])
    checked: list[CheckedImage] = []
    done: set[str] = set()
    for image in images:
        if isinstance(image, _Missing):
            checked.append(CheckedImage(image.text, Verdict.UNREADABLE, note=image.outcome.message))
            continue
        for found in (image, *(_chain(image) if parents else ())):
            path = os.path.realpath(found.target.path)
            if path not in done:
                done.add(path)
                checked.append(_checked(found, uses.get(found.target.path), setting))
    return tuple(checked)


def _uses(founds: Sequence[Found]) -> dict[str, Usage]:
    """How each image is held, in one pass over the host; without those that cannot be opened."""
    from smfix.host.usage import usage_of

    seen: dict[str, Identity] = {}
    for found in founds:
        try:
            opened = open_image(found.target, sr_root=found.root)
        except SmfixError:
            continue
        if not isinstance(opened, Refusal):
            with opened:
                seen[found.target.path] = opened.identity
    return dict(zip(seen, usage_of(tuple(seen.values())), strict=True))


def _chain(found: Found) -> tuple[Found, ...]:
    from smfix import chains
    from smfix.vhd.image import inspect

    try:
        opened = open_image(found.target, sr_root=found.root)
        if isinstance(opened, Refusal):
            return ()
        with opened:
            return tuple(chains.ancestors(inspect(opened), found))
    except SmfixError:
        return ()  # said by the check of the image itself


def _checked(found: Found, uses: Usage | None, setting: Setting) -> CheckedImage:
    from smfix.host import lvm
    from smfix.host.usage import usage
    from smfix.problems.table import diagnose
    from smfix.treatment import context_of, held_by, seen_by
    from smfix.vhd.image import inspect

    path = found.target.path
    names = setting.names(found.target)
    try:
        asleep = lvm.inactive(found.target)
        if asleep is not None:
            return CheckedImage(path, Verdict.UNREADABLE, note=asleep.message, names=names)
        opened = open_image(found.target, sr_root=found.root)
        if isinstance(opened, Refusal):
            verdict = Verdict.NOT_A_VHD if opened.reason is Reason.NOT_A_VHD else Verdict.UNREADABLE
            return CheckedImage(path, verdict, note=opened.message, names=names)
        with opened:
            uses = uses or usage(opened.identity)
            image = inspect(opened)
            context = context_of(image, found, uses.state)
            diagnosis = diagnose(image, context)
            if diagnosis.verdict is Verdict.NOT_A_VHD:
                return CheckedImage(
                    path, Verdict.NOT_A_VHD, image.size, note="no structure of a VHD is in it", names=names
                )
            if diagnosis.verdict is Verdict.INVALID:
                # What looks like damage may be a disk that another host of the pool has open.
                uses = held_by(uses, found.target, setting)
                context = replace(context, in_use=uses.state)
                diagnosis = diagnose(image, context)
            notes = [f"held by {', '.join(uses.holders)}"] if uses.holders else []
            notes += filter(None, [seen_by(context, uses).removeprefix("; ")])
            return CheckedImage(
                path,
                diagnosis.verdict,
                image.size,
                image.end_of_data,
                diagnosis.findings,
                "; ".join(notes) or None,
                names,
            )
    except SmfixError as error:
        return CheckedImage(path, Verdict.UNREADABLE, note=str(error), names=names)


def show(target: str, setting: Setting) -> tuple[str, VhdImage, libvhd.Opened]:
    """The path and the structures of one image, as smfix and as libvhd reads them. Raises UsageError, Unreadable.

    The image's view is closed: only what was read by inspecting it is there.
    """
    from smfix.vhd import libvhd
    from smfix.vhd.image import inspect

    found = _resolved([target], setting)
    if len(found) != 1:
        raise UsageError(f"{target} names {len(found)} images; `smfix show` takes one")
    (image,) = found
    if isinstance(image, _Missing):
        raise Unreadable(image.outcome.message)
    opened = open_image(image.target, sr_root=image.root)
    if isinstance(opened, Refusal):
        raise Unreadable(opened.message)
    with opened:
        inspected = inspect(opened)
        seen = libvhd.opened(opened)
        return image.target.path, replace(inspected, view=_Closed(inspected.size, opened.growable)), seen


class _Closed(NamedTuple):
    """What is left of a view when its image is closed: a size, no bytes."""

    size: int
    growable: bool

    def read(self, extent: object) -> bytes:
        raise Unreadable(f"the image is closed: {extent} cannot be read")


# --------------------------------------------------------------------------- journal, undo


def journals(setting: Setting, prefix: str | None = None) -> tuple[Record, ...]:
    """All journals, oldest first, or the one whose id begins with `prefix`.

    Raises UsageError, Unreadable, JournalDamaged as :mod:`smfix.repair.journal_folder` does.
    """
    from smfix.repair import journal_folder

    if prefix is None:
        return tuple(record_of(entry, setting) for entry in journal_folder.list_journals(setting.journals))
    return (record_of(journal_folder.load(setting.journals, prefix), setting),)


def record_of(entry: JournalEntry | DamagedEntry, setting: Setting) -> Record:
    """The journal of `entry` as commands tell it."""
    from smfix.repair import journal_folder
    from smfix.repair.journal import Mark
    from smfix.repair.journal_folder import DamagedEntry

    size = journal_folder.size_of(entry)
    if isinstance(entry, DamagedEntry):
        return Record(entry.id, entry.mark.value, entry.path, damage=entry.damage, bytes=size)
    journal = entry.journal
    is_over = entry.mark in (Mark.UNDONE, Mark.ROLLED_BACK)
    edits: list[Edit] = [step if isinstance(step, Resize) else Write(step.offset, step.after) for step in journal.steps]
    return Record(
        entry.id,
        entry.mark.value,
        entry.path,
        created=journal.created,
        path=journal.target.path,
        vdi=journal.target.vdi,
        sr=journal.target.sr,
        old_size=journal.old_size,
        new_size=journal.new_size,
        edits=tuple(edits),
        fixes=journal.fixes,
        lost_sectors=sum(extent.length for extent in journal.lost) // 512,
        command=journal.command,
        undo=None if is_over else setting.undo_command(entry.id),
        bytes=size,
    )


def undo(prefix: str, setting: Setting, agree: Callable[[Record], bool] | None) -> TreatedImage:
    """Put the image of a journal back; `agree` says yes to it (None: a dry run).

    Raises UsageError, Unreadable, WriteFailed, JournalDamaged before anything is written.
    """
    from smfix.repair import journal_folder
    from smfix.treatment import awake, refused, told_of

    entry = journal_folder.load(setting.journals, prefix)
    path = entry.journal.target.path
    found = Found(entry.journal.target, entry.journal.sr_root)
    if path in (silent := unanswered([path], ())):
        again = (setting.undo_command(entry.id),)
        return TreatedImage(path, Outcome(Status.FAILED, silent[path], journal=entry.id, next=again))
    volumes = setting.volumes()
    with awake(found.target, volumes, change=agree is not None) as asleep:
        outcome = refused(asleep) if asleep is not None else _undone(entry, found, setting, agree, volumes)
    outcome = told_of(replace(outcome, journal=entry.id), found.target, volumes, setting)
    return TreatedImage(path, outcome, names=setting.names(found.target), sr=found.target.sr)


def _undone(
    entry: JournalEntry, found: Found, setting: Setting, agree: Callable[[Record], bool] | None, volumes: Volumes
) -> Outcome:
    from smfix import chains
    from smfix.repair import undo as way_back
    from smfix.treatment import refused, writing
    from smfix.vhd.image import inspect

    opened = open_image(found.target, sr_root=found.root)
    if isinstance(opened, Refusal):
        return refused(opened)
    with opened, ExitStack() as stack:
        means = setting.means(chains.children_of(inspect(opened), found, stack))
        objection = way_back.stale(entry, opened) or means.guard.objection(opened)
        if objection is not None:
            return refused(objection)
        if agree is None or not agree(record_of(entry, setting)):
            return Outcome(
                Status.WOULD_REPAIR,
                "nothing was written; the image can be put back as it was before the repair",
                undo=setting.undo_command(entry.id),
                next=(setting.command("undo", entry.id, "--yes"),),
            )
        with writing(opened, volumes) as writable:
            return refused(writable) if isinstance(writable, Refusal) else way_back.undo(entry, writable, means)
