"""Find the parents and children of an image among the images of this host. Reads only.

Theory. A differencing image names its parent by UUID, by file name, and by locators that hold a path
relative to itself. A locator is a hint, not a proof: the diagnosis compares
UUIDs. The other direction has no pointer at all: an image's children are found by asking the headers
of all images in its folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from smfix.errors import Unreadable
from smfix.formats.base import Image, ImageFormat, ParentLink
from smfix.formats.problem import Context, Parent, Sibling
from smfix.formats.registry import format_of, inspect, parent_link
from smfix.host.image_file import OpenImage, open_image
from smfix.sm.paths import read_path
from smfix.sm.resolve import Found
from smfix.sm.sr_types.registry import is_silent, node_at, place_of, sr_type_of, target_at, target_named
from smfix.values import Refusal

LONGEST = 64
"""Images of one chain that are walked at most; the storage manager stops at 30."""
MOST_CHILDREN = 64
Family = tuple[tuple[str, Image], ...]
"""The children of an image: path and structures of each."""


class Relatives(NamedTuple):
    """The images beside one: its children, and those that have one of its UUIDs."""

    children: Family = ()
    siblings: tuple[Sibling, ...] = ()


def parent_places(image: Image, path: str) -> tuple[str, ...]:
    """Return the absolute paths to which the locators of the image at `path` lead, each once."""
    return tuple(dict.fromkeys(place for text in image.parent_paths for place in _own_places(text, path)))


def _own_places(text: str, path: str) -> tuple[str, ...]:
    """Return those places of :func:`_led_to` that are in the SR or the folder of the image at `path`.

    Others are not opened: a guest may have written the locator, which could name any file or device of the host.
    For an image outside of every SR a relative path is followed in any case.
    """
    led, sr_type = _led_to(text, path), sr_type_of(target_named(path))
    is_in_sr = read_path(path).sr is not None or sr_type.place_at(path) is not None
    if not is_in_sr and not text.startswith("/"):
        return led
    return tuple(place for place in led if sr_type.may_have_relative(path, place))


def _outside(image: Image, path: str) -> tuple[str, ...]:
    """Return the locators' paths that lead to no place of the image's SR."""
    return tuple(dict.fromkeys(text for text in image.parent_paths if text and not _own_places(text, path)))


def _led_to(text: str, path: str) -> tuple[str, ...]:
    """Follow a locator as ``vhd_find_parent`` does: an absolute path as it is, then relative to the image's folder.

    A volume of an SR has several names; it is returned once, by the name of a node that is there.
    """
    if not text or "\0" in text:
        return ()
    beside = [os.path.normpath(f"{folder}/{text}") for folder in _folders(path)]
    places = dict.fromkeys([os.path.normpath(text), *beside] if text.startswith("/") else beside)
    return tuple(dict.fromkeys(filter(None, map(node_at, places)))) or tuple(places)


def _folders(path: str) -> tuple[str, ...]:
    return sr_type_of(target_named(path)).folders_beside(path)


def parent_of(image: Image, path: str) -> tuple[Parent | None, Found | None]:
    """Return the image that the locators name as parent, and how to open it; (None, None) if there is no parent.

    Never raises: a parent that cannot be opened counts as missing. A volume that is not active, or whose
    storage does not answer, is not opened; then the result is as if the image had no parent.
    """
    if not image.has_parent:
        return None, None
    places = parent_places(image, path)
    for place in places:
        found = Found(target_at(place))
        if is_silent(found.target):
            return None, None  # it is there, but cannot be read now
        with suppress(Unreadable):
            opened = open_image(found.target)
            if isinstance(opened, Refusal):
                continue
            with opened:
                uuid = inspect(opened).uuid
            return Parent(place, uuid, _astray(image, path)), found
    if any(_may_be_inactive(place) for place in places):
        return None, None
    return Parent(", ".join(places) or None, outside=_outside(image, path)), None


def _astray(image: Image, path: str) -> tuple[str, ...]:
    """Return the locators' paths that lead to nothing, not even to a volume that is not active."""
    named = {text: _own_places(text, path) for text in image.parent_paths if text}
    return tuple(
        text for text, places in named.items() if not any(os.path.exists(p) or _may_be_inactive(p) for p in places)
    )


def _may_be_inactive(place: str) -> bool:
    """True for a volume that is not active or may be so: that is no missing parent."""
    target = target_named(place)
    try:
        return sr_type_of(target).inactive_refusal(target) is not None
    except Unreadable:
        return True


def ancestors(image: Image, found: Found) -> Iterator[Found]:
    """Give the parents of `image`, nearest first, as far as they can be followed; a loop ends them."""
    seen = {place_of(found.target.path)}
    for _ in range(LONGEST):
        _, above = parent_of(image, found.target.path)
        if above is None or place_of(above.target.path) in seen:
            return
        seen.add(place_of(above.target.path))
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
    """Return the images beside `image` that name it as their parent; see :func:`relatives_of`."""
    return relatives_of(image, found, stack).children


def relatives_of(image: Image, found: Found, stack: ExitStack) -> Relatives:
    """Return the images beside `image` that name it as their parent, and those that have one of its UUIDs.

    Of each neighbour three sectors are read. The children stay open as long as `stack`. Of a volume's neighbours those
    that are active: the others cannot be read. At most :data:`MOST_CHILDREN`, and as many siblings; unreadable ones are
    neither.
    """
    uuids, image_format = image.known_uuids, format_of(image)
    own = place_of(found.target.path)
    neighbours = [
        other for other in sr_type_of(found.target).neighbours(found.target, image_format.suffixes) if other.path != own
    ]
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
    """Return the context of the image's diagnosis, with its relatives."""
    return replace(
        context,
        children=tuple(child for _, child in relatives.children),
        child_names=tuple(os.path.basename(path) for path, _ in relatives.children),
        siblings=relatives.siblings,
    )


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
        named = next((at for at in map(place_of, led) if at == place or at in others), "")
    return named == place or (link.uuid in uuids and named not in others)


def _named_place(link: ParentLink | None, path: str) -> str:
    """The place of the parent that the `link` of the image at `path` names; empty: it names none."""
    name = None if link is None else link.name
    return place_of(_led_to(os.path.basename(name), path)[0]) if name and os.path.basename(name) else ""


def parents_first(founds: Sequence[Found | None]) -> list[int]:
    """The indexes of `founds` in an order that has each parent before its children.

    Otherwise the order stays. A parent is known by the name that the child's header has, in the child's folder;
    an image that cannot be read has none. An image that was not found is None.
    """
    place = {place_of(found.target.path): index for index, found in enumerate(founds) if found is not None}
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
