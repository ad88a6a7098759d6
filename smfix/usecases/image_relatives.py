"""Who is whose parent, among the images of this host. Reads only.

Theory. A differencing image names its parent by UUID, by file name, and by locators that hold a path
relative to itself. What the locators lead to is looked at, never believed: the diagnosis compares
UUIDs. The other direction has no pointer at all: an image's children are found by asking the headers
of all images in its folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from smfix.errors import Unreadable
from smfix.formats.base import Image, ImageFormat, ParentLink
from smfix.formats.problem import Context, Parent, Sibling
from smfix.formats.registry import format_of, inspect, parent_link
from smfix.host import storage_probe
from smfix.host.image_file import OpenImage, open_image
from smfix.sm.paths import MAPPER, read_path
from smfix.sm.resolve import Found
from smfix.sm.sr_types import lvm_volumes
from smfix.values import Backing, Refusal, Target

LONGEST = 64
"""Images of one chain that are walked at most; the storage manager stops at 30."""
MOST_CHILDREN = 64
Family = tuple[tuple[str, Image], ...]
"""The children of an image: path and structures of each."""


class Relatives(NamedTuple):
    """What is beside an image: its children, and the files that have one of its UUIDs."""

    children: Family = ()
    siblings: tuple[Sibling, ...] = ()


def parent_places(image: Image, path: str) -> tuple[str, ...]:
    """Where the locators of the image at `path` say that its parent is: absolute, each once."""
    return tuple(dict.fromkeys(place for text in image.parent_paths for place in _own_places(text, path)))


def _own_places(text: str, path: str) -> tuple[str, ...]:
    """Those of :func:`_led_to` at which the SR of the image at `path` keeps its disks: the same SR, the same folder.

    Others are not looked at: a guest may have written the locator, and any file or device of the host could be named.
    Outside of every SR a relative path is followed wherever it leads.
    """
    led = _led_to(text, path)
    volume, sr = lvm_volumes.volume_named(path), read_path(path).sr
    if volume is not None:  # beside it, in /dev and /dev/mapper, is every device of the host
        return tuple(p for p in led if (named := lvm_volumes.volume_named(p)) is not None and named.sr == volume.sr)
    if sr is None and not text.startswith("/"):
        return led
    folders = {*_folders(path), os.path.dirname(os.path.abspath(path))}
    return tuple(p for p in led if os.path.dirname(p) in folders or (sr is not None and read_path(p).sr == sr))


def _outside(image: Image, path: str) -> tuple[str, ...]:
    """The locators' paths that lead to no place of the image's SR."""
    return tuple(dict.fromkeys(text for text in image.parent_paths if text and not _own_places(text, path)))


def _led_to(text: str, path: str) -> tuple[str, ...]:
    """As ``vhd_find_parent``: an absolute path as it is, then every path relative to the image's folder.

    A volume of an SR has several names; what leads to one is given once, by the name of a node that is there.
    """
    if not text or "\0" in text:
        return ()
    beside = [os.path.normpath(f"{folder}/{text}") for folder in _folders(path)]
    places = dict.fromkeys([os.path.normpath(text), *beside] if text.startswith("/") else beside)
    named = dict.fromkeys(filter(None, map(lvm_volumes.volume_named, places)))
    return tuple(map(lvm_volumes.node_of, named)) or tuple(places)


def _folders(path: str) -> tuple[str, ...]:
    """The folders beside which relative paths are: of a volume's names, not only of the one that was given.

    libvhd takes a volume's name in ``/dev/mapper``, else its real path. Source: blktap vhd/lib/canonpath.c.
    """
    path = os.path.abspath(path)
    real = os.path.dirname(os.path.realpath(path))
    if read_path(path).backing is not Backing.BLOCK:
        return (real,)
    volume = lvm_volumes.volume_named(path)
    own = os.path.dirname(path) if volume is None else lvm_volumes.folder_of(volume.sr)
    return tuple(dict.fromkeys((own, MAPPER, real)))


def parent_of(image: Image, path: str) -> tuple[Parent | None, Found | None]:
    """What stands where the parent should, and how to open it; (None, None): it has no parent.

    Never raises: a parent that cannot be opened is one that is not there. A volume that is not active, or whose
    storage does not answer, is not looked at; then it is as if the image had none.
    """
    if not image.has_parent:
        return None, None
    places = parent_places(image, path)
    for place in places:
        found = Found(Target(place, backing_of(place), read_path(place).vdi, read_path(place).sr))
        if found.target.backing is Backing.BLOCK and storage_probe.is_silent(place):
            return None, None  # it is there; what it holds cannot be read now
        with suppress(Unreadable):
            opened = open_image(found.target)
            if isinstance(opened, Refusal):
                continue
            with opened:
                uuid = inspect(opened).uuid
            return Parent(place, uuid, _astray(image, path)), found
    if any(_may_be_asleep(place) for place in places):
        return None, None
    return Parent(", ".join(places) or None, outside=_outside(image, path)), None


def _astray(image: Image, path: str) -> tuple[str, ...]:
    """The locators' paths at which nothing is, not even a volume that is not active."""
    named = {text: _own_places(text, path) for text in image.parent_paths if text}
    return tuple(
        text for text, places in named.items() if not any(os.path.exists(p) or _may_be_asleep(p) for p in places)
    )


def _may_be_asleep(place: str) -> bool:
    """True for a volume that is not active, and for one of which LVM does not say: that is no missing parent."""
    name = read_path(place)
    try:
        return lvm_volumes.inactive(Target(place, name.backing, name.vdi, name.sr)) is not None
    except Unreadable:
        return True


def backing_of(path: str) -> Backing:
    """By what is there, not by its name: /dev/shm holds files. What is missing counts as a file."""
    try:
        return Backing.BLOCK if stat.S_ISBLK(os.stat(path).st_mode) else Backing.FILE
    except OSError:
        return Backing.FILE


def ancestors(image: Image, found: Found) -> Iterator[Found]:
    """The parents of `image`, nearest first, as far as they can be followed; no loop, no end."""
    seen = {lvm_volumes.place_of(found.target.path)}
    for _ in range(LONGEST):
        _, above = parent_of(image, found.target.path)
        if above is None or lvm_volumes.place_of(above.target.path) in seen:
            return
        seen.add(lvm_volumes.place_of(above.target.path))
        yield above
        with suppress(Unreadable):
            opened = open_image(above.target)
            if isinstance(opened, Refusal):
                return
            with opened:
                image, found = inspect(opened), above
            continue
        return


def children_of(image: Image, found: Found, stack: ExitStack) -> Family:
    """The images beside `image` that name it as their parent; see :func:`relatives_of`."""
    return relatives_of(image, found, stack).children


def relatives_of(image: Image, found: Found, stack: ExitStack) -> Relatives:
    """The images beside `image` that name it as their parent, and those that have one of its UUIDs.

    Of each neighbour three sectors are read. The children stay open as long as `stack`. Of a volume's neighbours those
    that are active: the others cannot be read. At most :data:`MOST_CHILDREN`, and as many siblings; unreadable ones are
    neither.
    """
    uuids, image_format = image.known_uuids, format_of(image)
    own = lvm_volumes.place_of(found.target.path)
    neighbours = [other for other in _neighbours(found.target, image_format.suffixes) if other.path != own]
    places = frozenset(other.path for other in neighbours)
    children: list[tuple[str, Image]] = []
    siblings: list[Sibling] = []
    for other in neighbours:
        with suppress(Unreadable):
            opened = open_image(other)
            if isinstance(opened, Refusal):
                continue
            with ExitStack() as closing:
                closing.enter_context(opened)
                if len(siblings) < MOST_CHILDREN and (uuid := image_format.identity(opened)) in uuids:
                    # By any name that the storage manager gives a disk: OLD_<vdi>, <vdi>.vhd.new.
                    is_another = read_path(other.path).vdi is not None and _is_rival(
                        image_format, image, inspect(opened)
                    )
                    siblings.append(Sibling(os.path.basename(other.path), uuid, is_another))
                if len(children) < MOST_CHILDREN and _names_as_parent(opened, uuids, own, places):
                    children.append((other.path, inspect(opened)))
                    stack.push(closing.pop_all())
    return Relatives(tuple(children), tuple(siblings))


def with_relatives(context: Context, relatives: Relatives) -> Context:
    """What the image's diagnosis asks of its relatives."""
    return replace(
        context,
        children=tuple(child for _, child in relatives.children),
        child_names=tuple(os.path.basename(path) for path, _ in relatives.children),
        siblings=relatives.siblings,
    )


def _neighbours(target: Target, suffixes: tuple[str, ...]) -> list[Target]:
    """The images beside `target`, by name: files of its folder, active volumes of its SR."""
    if target.backing is Backing.BLOCK:
        volume = lvm_volumes.volume_named(target.path)
        with suppress(Unreadable):
            every = () if volume is None else lvm_volumes.volumes(volume.sr)
            active = [lvm_volumes.as_target(one) for one in every if one.vdi is not None and one.is_active]
            silent = storage_probe.silent_volumes(active)
            return [one for one in active if one.path not in silent]
        return []
    folder, name = os.path.split(os.path.realpath(target.path))
    return [Target(os.path.join(folder, other), Backing.FILE) for other in sorted(_images_in(folder, name, suffixes))]


def _images_in(folder: str, name: str, suffixes: tuple[str, ...]) -> frozenset[str]:
    """The images in the folder but `name`, and the files whose names begin with it: its copies."""
    try:
        endings = (*suffixes, *(f"{suffix}.new" for suffix in suffixes))  # a snapshot before it takes its name
        found = {other for other in os.listdir(folder) if other.endswith(endings) or other.startswith(name)}
    except OSError:
        return frozenset()
    return frozenset(found - {name})


def _is_rival(image_format: ImageFormat[Any], image: Image, other: Image) -> bool:
    """`other` is another disk of the same format, not a copy."""
    return other.format == image.format and image_format.is_rival(image, other)


def _names_as_parent(view: OpenImage, uuids: frozenset[bytes], place: str, others: frozenset[str]) -> bool:
    """True if it names `place`, or one of `uuids` and none of the `others`: libvhd goes by the name.

    The name counts even if the UUID of its parent is null: then it denies every UUID that this image may have.
    """
    link = parent_link(view)
    if link is None:
        return False
    named = _named_place(link, view.target.path)
    if not named and link.has_paths:
        led = parent_places(inspect(view), view.target.path)  # it has no name, but paths that lead to the parent
        named = next((at for at in map(lvm_volumes.place_of, led) if at == place or at in others), "")
    return named == place or (link.uuid in uuids and named not in others)


def _named_place(link: ParentLink | None, path: str) -> str:
    """The place of the parent that the `link` of the image at `path` names; empty: it names none."""
    name = None if link is None else link.name
    return lvm_volumes.place_of(_led_to(os.path.basename(name), path)[0]) if name and os.path.basename(name) else ""


def parents_first(founds: Sequence[Found | None]) -> list[int]:
    """The indexes of `founds` in an order that has each parent before its children.

    Otherwise the order stays. A parent is known by the name that the child's header has, in the child's folder;
    what cannot be read has none. None stands for what was not found.
    """
    place = {lvm_volumes.place_of(found.target.path): index for index, found in enumerate(founds) if found is not None}
    above = {index: place.get(_parent_place(found)) for index, found in enumerate(founds) if found is not None}
    order: dict[int, None] = {}
    for index in range(len(founds)):
        line: list[int] = []
        at: int | None = index
        while at is not None and at not in order and at not in line:
            line.append(at)
            at = above.get(at)
        order.update(dict.fromkeys(reversed(line)))
    return list(order)


def _parent_place(found: Found) -> str:
    with suppress(Unreadable):
        opened = open_image(found.target, sr_root=found.root)
        if isinstance(opened, Refusal):
            return ""
        with opened:
            return _named_place(parent_link(opened), found.target.path)
    return ""
