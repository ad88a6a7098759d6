"""Resolve names to images: of an incident, or of the TARGETs of a command line. Nothing is guessed.

The result is one image, or the outcome: several images fit, none does, or a copy is not repaired. The storage of all
names is probed once (:mod:`smfix.host.storage_probe`), before smfix touches any of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from smfix.errors import SmfixError, Unanswered, Unreadable
from smfix.host import storage_probe
from smfix.host.kernel_path import UnsafePath, typed
from smfix.host.wait_notice import Say
from smfix.sm.paths import Life, is_uuid, read_path
from smfix.sm.resolve import Ambiguous, Found, NotFound, locate, resolve, sr_mounts
from smfix.sm.sr_types.registry import listed_place, root_of, silent_targets, sr_folders
from smfix.usecases.run_options import RunOptions
from smfix.values import Incident, Log, NextStep, Outcome, Reason, Status, StepKind

Name = TypeVar("Name")

_NAMED = 8
"""Candidates and places that a message names."""
_CANDIDATES = 64
"""Candidates that are listed with a command; a log may hold any number."""

_log = Log(__name__)

COPY = (
    "this is a downloaded or uploaded copy of a disk: it cannot be repaired. Find the server that the "
    "image was made from, repair that server's disk, then take a new image"
)


def find_image(incident: Incident, mounts: Sequence[str]) -> Found | Outcome:
    """Return the place of the incident's image, or the outcome if it is not found."""
    if incident.copy or (incident.path is not None and read_path(incident.path).life is Life.COPY):
        return Outcome(Status.REFUSED, COPY, Reason.IMAGE_COPY)
    if incident.candidates:
        return _ambiguous(incident.candidates)
    try:
        place = locate(incident.vdi, incident.sr, incident.path, mounts)
    except SmfixError as error:
        return Outcome(Status.FAILED, str(error))
    by = "its path" if incident.path is not None else "its UUID"
    _log.info("disk %s of SR %s, located by %s in the log: %s", incident.vdi.text, incident.sr, by, _paths(place))
    if isinstance(place, Ambiguous):
        return _ambiguous([found.target.path for found in place.candidates])
    return _not_found(place, incident.vdi.text, incident.sr, mounts) if isinstance(place, NotFound) else place


def _paths(place: Found | Ambiguous | NotFound | tuple[Found, ...]) -> list[str] | str:
    """Return the paths of what was found, for the log."""
    if isinstance(place, NotFound):
        return f"not found; looked at {', '.join(place.looked)}"
    images = (place,) if isinstance(place, Found) else place.candidates if isinstance(place, Ambiguous) else place
    return [image.target.path for image in images]


def _ambiguous(paths: Sequence[str]) -> Outcome:
    named = ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")
    return Outcome(
        Status.AMBIGUOUS,
        f"{len(paths)} images fit, and nothing says which is meant: {named}; check each, then repair the damaged one",
        next=tuple(NextStep(StepKind.CHECK, (typed(path),)) for path in paths[:_CANDIDATES]),
    )


def _not_found(place: NotFound, vdi: str, sr: str | None = None, mounts: Sequence[str] = ()) -> Outcome:
    looked = ", ".join(place.looked[:_NAMED])
    if sr is not None and is_uuid(sr) and not _is_attached(sr, mounts):
        return Outcome(
            Status.NOT_FOUND,
            f"its SR is not attached to this host; looked at: {looked}. Run smfix on a host where it is attached, or "
            "name the mount point with --sr-mount",
            next=(NextStep(StepKind.FIND_SR, (sr,)),),
        )
    return Outcome(
        Status.NOT_FOUND,
        f"no such image on this host; looked at: {looked}. Run smfix where its SR is attached, or name the "
        "mount point with --sr-mount",
        next=(_look_up(vdi, sr),),
    )


def _look_up(vdi: str, sr: str | None) -> NextStep:
    """Return the step that finds a disk in the pool's database, by its UUID or by the first digits of it."""
    if is_uuid(vdi):
        return NextStep(StepKind.FIND_VDI, (vdi,))
    return NextStep(StepKind.FIND_VDI_BY_DIGITS, (vdi, sr) if sr is not None and is_uuid(sr) else (vdi,))


def _is_attached(sr: str, mounts: Sequence[str]) -> bool:
    return root_of(sr, mounts) is not None


class Missing(NamedTuple):
    """A TARGET that names no image, and its outcome."""

    text: str
    outcome: Outcome
    is_missing: bool = True


def resolved(targets: Sequence[str], run_options: RunOptions) -> list[Found | Missing]:
    """Return every image that the targets name, each once. Raises UsageError for text that cannot be a name."""
    mounts = sr_mounts(run_options.sr_mounts)
    silent = unanswered(targets, mounts, run_options.say)
    images: dict[str, Found | Missing] = {}
    for text in targets:
        if text in silent:
            images[text] = Missing(text, Outcome(Status.FAILED, silent[text]))
            continue
        try:
            found = resolve(text, mounts)
            _log.info("TARGET %s: %s", text, _paths(found))
        except UnsafePath as error:
            images[text] = Missing(text, Outcome(Status.REFUSED, str(error), Reason.UNSAFE_PATH), is_missing=False)
            continue
        except Unreadable as error:
            status = Status.FAILED if isinstance(error, Unanswered) else Status.NOT_FOUND
            images[text] = Missing(text, Outcome(status, str(error)))
            continue
        if isinstance(found, Ambiguous):
            paths = [image.target.path for image in found.candidates]
            images[text] = Missing(text, _ambiguous(paths), is_missing=False)
        elif isinstance(found, NotFound):
            sr, _, vdi = text.lower().rpartition("/")
            images[text] = Missing(text, _not_found(found, vdi, sr, mounts))
        else:
            for image in found:
                # A volume has several names; reports use the first one that was asked for.
                path = image.target.path
                images.setdefault(listed_place(path), image)
    return _answering(list(images.values()))


def _answering(images: list[Found | Missing]) -> list[Found | Missing]:
    """Replace volumes on storage that does not answer by their outcome, so that no run hangs on them."""
    silent = silent_targets(image.target for image in images if isinstance(image, Found))
    return [
        Missing(image.target.path, _silent(image), is_missing=True)
        if isinstance(image, Found) and image.target.path in silent
        else image
        for image in images
    ]


def find_images(incidents: Iterable[Incident], find: Callable[[Incident], Found | Outcome]) -> list[Found | Outcome]:
    """Return the place of each incident's image by `find`, or the outcome if its storage does not answer."""
    places = [find(one) for one in incidents]
    silent = silent_targets(place.target for place in places if isinstance(place, Found))
    return [_silent(place) if isinstance(place, Found) and place.target.path in silent else place for place in places]


def _silent(image: Found) -> Outcome:
    return Outcome(Status.FAILED, storage_probe.words(image.target.path))


def parents_first(places: Sequence[object]) -> list[int]:
    """Return the indexes of `places`, parents first; a place that is not Found has no parent."""
    founds = [place if isinstance(place, Found) else None for place in places]
    if not any(founds):
        return list(range(len(founds)))
    from smfix.usecases import image_relatives

    return image_relatives.parents_first(founds)


# --------------------------------------------------------------------------- storage that does not answer


def unanswered(targets: Iterable[str], mounts: Sequence[str], say: Say | None = None) -> dict[str, str]:
    """Return the TARGETs on storage that does not answer, with a message. Raises UsageError.

    `say` takes a line while smfix waits for storage.
    """
    every = cache(lambda: list(sr_folders(None, mounts)))  # listed once, and only if a name needs it
    return _unanswered({text: _places(text, mounts, every) for text in targets}, say)


def unanswered_srs(srs: Iterable[str | None], mounts: Sequence[str], say: Say | None = None) -> dict[str | None, str]:
    """Return the SRs that do not answer; None, an unknown SR, is one of them if any SR is. Raises UsageError."""
    there = _listed(mounts)
    places = {sr: list(sr_folders(sr and sr.lower(), mounts)) for sr in dict.fromkeys(srs)}
    known = {sr: [one for one in some if there is None or one in there] for sr, some in places.items()}
    return _unanswered(known, say)


def _listed(mounts: Sequence[str]) -> frozenset[str] | None:
    """Return the paths in the folders in which SRs are mounted, without touching an SR; None if they cannot be listed.

    An SR that is not mounted needs no probe, so that a log of another machine starts no process.
    """
    try:
        return frozenset(os.path.join(mount, name) for mount in mounts for name in os.listdir(mount))
    except OSError:
        return None


def _unanswered(places: Mapping[Name, list[str]], say: Say | None) -> dict[Name, str]:
    silent = storage_probe.silent((place for some in places.values() for place in some), say)
    first = {name: next((place for place in some if place in silent), None) for name, some in places.items()}
    return {name: storage_probe.words(place) for name, place in first.items() if place is not None}


def _places(text: str, mounts: Sequence[str], every: Callable[[], list[str]]) -> list[str]:
    """Return the paths that a search for a TARGET touches: a folder, a device, `every` SR for a name alone."""
    if not text or "\0" in text:
        return []
    sr, slash, _ = text.lower().rpartition("/")
    found = [os.path.dirname(text) or os.curdir if text.endswith(".vhd") else text]
    if slash:
        return found + (list(sr_folders(sr, mounts)) if is_uuid(sr) else [])
    return found + ([place for place in every() if os.path.basename(place) == text.lower()] or every())
