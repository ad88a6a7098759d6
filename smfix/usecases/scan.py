"""Check every VHD of one or many SRs, and order them in their chains: `smfix scan`.

Theory. An image costs a fraction of a millisecond, an SR may have a hundred thousand. So the open files of the host are
read once, the images are inspected in as many processes as there are processors, and the chains are built at the end.
A worker returns values, never open images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from smfix.errors import SmfixError, Unanswered, Unreadable, UsageError
from smfix.formats.base import Image
from smfix.formats.cached_view import CachedView
from smfix.formats.chain_links import Link, forest
from smfix.formats.problem import Context
from smfix.formats.registry import diagnose, inspect
from smfix.host import forked, storage_probe
from smfix.host.image_file import Folders, Identity, open_image
from smfix.host.open_files import OpenState, usage_of
from smfix.host.wait_notice import Say
from smfix.sm.paths import is_uuid
from smfix.sm.resolve import Ambiguous, Found, NotFound, resolve, sr_mounts
from smfix.sm.sr_types.registry import SR_TYPES, listed_place, place_of, root_of, silent_targets, sr_folders, sr_type_of
from smfix.usecases import image_relatives
from smfix.usecases.guard import with_attachments
from smfix.usecases.resolve import unanswered
from smfix.values import (
    SECTOR,
    CheckedImage,
    Finding,
    InUse,
    Names,
    Reason,
    Refusal,
    ScannedImage,
    Verdict,
    uuid_text,
)
from smfix.xapi import client
from smfix.xapi.records import Attachment

BATCH = 128
"""Images that a worker takes at a time; fewer than two of these batches are inspected in this process."""

_Job = tuple[Found, OpenState]


def scan(
    targets: Sequence[str],
    mounts: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    pool: client.Pool | None = None,
    say: Say | None = None,
) -> tuple[ScannedImage, ...]:
    """Return every image of `targets` (SRs, folders, images; none: every SR below `mounts`), folder by folder.

    Within a folder parents come before their children. `progress` takes the number done and the total. `pool` is asked
    once for each SR: for the names of its disks, and for those that other hosts have open. `say` takes a line while
    smfix waits for storage. Raises UsageError for text that cannot be a name, Unreadable for an SR or image that is
    missing or has no VHD.
    """
    folders = sr_mounts(mounts)
    silent = unanswered(targets or list(sr_folders(None, folders)), folders, say)
    found = list(_images(targets, folders, silent))
    dumb = silent_targets(each.target for each in found)
    silent |= {path: storage_probe.words(path) for path in sorted(dumb)}
    found = [each for each in found if each.target.path not in dumb]
    from_xapi = [_ask_pool(each, pool) for each in found]
    uses = [with_attachments(here, others) for here, (_, others) in zip(_uses(found), from_xapi, strict=True)]
    scanned: list[ScannedImage] = []
    for batch in _looked_at([(each, use) for each, use in zip(found, uses, strict=True)]):
        scanned += batch
        if progress is not None:
            progress(len(scanned), len(found))
    named = [
        image._replace(names=names) if names else image for image, (names, _) in zip(scanned, from_xapi, strict=True)
    ]
    unseen = [ScannedImage(CheckedImage(each, Verdict.UNREADABLE, note=message)) for each, message in silent.items()]
    return (*unseen, *_in_chains(named))


def _ask_pool(found: Found, pool: client.Pool | None) -> tuple[Names | None, tuple[Attachment, ...]]:
    """Return the names of an image and its attachments on other hosts, from XAPI's records in memory."""
    target = found.target
    if pool is None or target.sr is None or target.vdi is None:
        return None, ()
    with suppress(Unreadable):
        sr = pool.sr(target.sr)
        disk = sr.disks.get(target.vdi)
        if disk is not None:
            return Names(disk.name or None, sr.name or None), pool.attached(disk)
        return Names(sr=sr.name or None), ()
    return None, ()


def _images(targets: Sequence[str], mounts: Sequence[str], silent: dict[str, str]) -> Iterator[Found]:
    """Yield the images of `targets`; storage that does not answer is added to `silent`."""
    seen: set[str] = set()
    for target in targets or list(_attached(mounts, silent)):
        if target in silent:
            continue
        name = _sr_folder(target, mounts) or target
        try:
            place = resolve(name, mounts)
        except Unanswered as error:
            silent[target] = str(error)
            continue
        if isinstance(place, NotFound):
            raise Unreadable(f"{target}: no such SR or image; looked at {', '.join(place.looked[:4])}")
        if isinstance(place, Ambiguous):
            raise UsageError(f"{target} names {len(place.candidates)} images; give a path or more digits")
        for each in place:
            path = each.target.path
            spelled = listed_place(path)
            if spelled not in seen:
                seen.add(spelled)
                yield each


def _attached(mounts: Sequence[str], silent: dict[str, str]) -> Iterator[str]:
    """Yield the folders of attached SRs that have a VHD. Raises Unreadable if there is none."""
    count = len(silent)
    for each in SR_TYPES:
        for root in each.roots(mounts):
            if root in silent:
                continue
            try:
                if not each.holds_image(root):
                    continue
                yield root
            except Unanswered as error:
                silent[root] = str(error)
            count += 1
    if not count:
        raise Unreadable(f"no SR with a VHD below {', '.join(mounts)}; name an SR, a folder, or --sr-mount")


def _sr_folder(target: str, mounts: Sequence[str]) -> str | None:
    """Return the folder of an SR that is named by its UUID."""
    if not is_uuid(target.lower()) or os.path.lexists(target):
        return None
    return root_of(target.lower(), mounts)


def _uses(founds: Sequence[Found]) -> tuple[OpenState, ...]:
    """Return how each image is held open, in one pass over the host; a missing image is held by no process."""
    identities: list[Identity] = []
    for found in founds:
        try:
            about = os.stat(found.target.path)
            device = about.st_rdev or None
            identities.append(Identity(about.st_dev, about.st_ino, device, about.st_size, found.target.path))
        except OSError:
            identities.append(Identity(0, 0, None, 0, found.target.path))
    return usage_of(identities)


# --------------------------------------------------------------------------- one image


def _looked_at(jobs: Sequence[_Job]) -> Iterator[list[ScannedImage]]:
    """Yield the images of `jobs` in batches, in order."""
    count = -(-len(jobs) // BATCH)

    def look(batch: int) -> list[ScannedImage]:
        now = datetime.now(UTC)
        with Folders() as folders:
            some = jobs[batch * BATCH : (batch + 1) * BATCH]
            return [_look_at(found, use, now, folders) for found, use in some]

    yield from forked.in_order(look, count, len(os.sched_getaffinity(0)))


def _look_at(found: Found, use: OpenState, now: datetime, folders: Folders) -> ScannedImage:
    path, target = found.target.path, found.target
    if sr_type_of(target).is_without_node(target):
        checked = CheckedImage(path, Verdict.UNREADABLE, note="the volume is not active, so it was not looked at")
        return ScannedImage(checked, target.vdi, target.sr)
    try:
        opened = open_image(target, sr_root=found.root, folders=folders)
        if isinstance(opened, Refusal):
            verdict = Verdict.NOT_A_VHD if opened.reason is Reason.NOT_A_VHD else Verdict.UNREADABLE
            return ScannedImage(CheckedImage(path, verdict, note=opened.message), target.vdi, target.sr)
        with opened:
            image = inspect(CachedView(opened))
            parent, _ = image_relatives.parent_of(image, path)
            diagnosis = diagnose(image, Context(now, use.state, parent))
            return _placed(found, use, image, diagnosis.verdict, diagnosis.findings)
    except SmfixError as error:
        checked = CheckedImage(path, Verdict.UNREADABLE, note=str(error))
        return ScannedImage(checked, target.vdi, target.sr)


def _placed(
    found: Found, use: OpenState, image: Image, verdict: Verdict, findings: tuple[Finding, ...]
) -> ScannedImage:
    target, uuid, parent = found.target, image.uuid, image.parent_uuid
    is_vhd = verdict is not Verdict.NOT_A_VHD
    notes = [f"held by {', '.join(use.holders)}"] if use.holders else []
    checked = CheckedImage(
        target.path, verdict, image.size, image.end_of_data if is_vhd else None, findings, "; ".join(notes) or None
    )
    place = (
        next(map(place_of, image_relatives.parent_places(image, target.path)), None)
        if sr_type_of(target).can_be_inactive
        else None
    )
    return ScannedImage(
        checked,
        target.vdi,
        target.sr,
        virtual_size=image.virtual_size,
        allocated=image.allocated,
        aligned=image.size % SECTOR == 0,
        hidden=image.is_hidden,
        in_use=InUse.UNKNOWN if use.blind and use.state is InUse.NONE else use.state,
        uuid=None if uuid is None else uuid_text(uuid),
        parent_uuid=None if parent is None else uuid_text(parent),
        parent_place=place,
    )


# --------------------------------------------------------------------------- chains


def _in_chains(scanned: Sequence[ScannedImage]) -> Iterator[ScannedImage]:
    """Yield the images folder by folder, each in its chain's order; all names of a volume are of one folder."""
    folders: dict[str, list[tuple[str, ScannedImage]]] = {}
    for image in scanned:
        path = image.checked.path
        place = listed_place(path)
        folders.setdefault(os.path.dirname(place), []).append((place, image))
    for some in folders.values():
        for at in forest(_links(some)):
            image, standing = some[at.index][1], at.standing.value
            if at.parent is not None or standing != image.standing:  # most have no relatives
                above = None if at.parent is None else some[at.parent][1].checked.path
                image = image._replace(depth=at.depth, parent=above, standing=standing)
            yield image


def _links(images: Sequence[tuple[str, ScannedImage]]) -> list[Link]:
    """Return the links of the images; an inactive volume, which was not read, is known by its path."""
    unseen = {place for place, image in images if image.uuid is None}
    return [
        Link(image.uuid or place, image.parent_place if image.parent_place in unseen else image.parent_uuid)
        for place, image in images
    ]
