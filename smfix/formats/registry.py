"""The image formats that smfix knows, and the format of an image.

Add a format here and as a package beside this module. The functions look up the format of the image that they get.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smfix.formats.base import Change, Image, ImageFormat, ParentLink
from smfix.formats.problem import Context, Problem
from smfix.formats.vhd.format import VHD
from smfix.values import ByteView, Diagnosis, Edit, Placed

FORMATS: dict[str, ImageFormat[Any]] = {VHD.name: VHD}
"""By name. The first one reads an image that no format recognises, and its diagnosis says so."""


def format_of(image: Image) -> ImageFormat[Any]:
    """Return the format of `image`."""
    return FORMATS[image.format]


def inspect(view: ByteView) -> Image:
    """Read every structure of `view` by the first format that recognises it. Raises Unreadable."""
    images: list[Image] = []
    for each in FORMATS.values():
        images.append(each.inspect(view))
        if each.is_recognised(images[-1]):
            return images[-1]
    return images[0]


def diagnose(image: Image, context: Context) -> Diagnosis:
    """Return every finding of `image`, and the verdict that follows from them. Raises Unreadable."""
    return format_of(image).diagnose(image, context)


def prove(change: Change[Image]) -> list[str]:
    """Return the reasons why the edits must not be written (:meth:`smfix.formats.base.ImageFormat.prove`)."""
    if change.before.format != change.after.format:
        return [f"the image would be read as {change.after.format}, not as {change.before.format}"]
    return format_of(change.before).prove(change)


def reachable(before: Image, after: Image, edits: Sequence[Edit]) -> tuple[Placed, ...]:
    """Return the places that a guest can read after `edits` and could not before; none if the formats differ."""
    return format_of(before).reachable(before, after, edits) if before.format == after.format else ()


def parent_link(view: ByteView) -> ParentLink | None:
    """Read the parent that an image names, by the first format that finds one. Raises Unreadable."""
    return next(filter(None, (each.parent_link(view) for each in FORMATS.values())), None)


def suffixes() -> tuple[str, ...]:
    """Return the endings of the names of image files, of all formats."""
    return tuple(suffix for each in FORMATS.values() for suffix in each.suffixes)


def rows() -> tuple[Problem, ...]:
    """Return the rows of all formats."""
    return tuple(row for each in FORMATS.values() for row in each.rows)


def row(code: str) -> Problem | None:
    """Return the row of `code` (any case); None: there is no such finding."""
    code = code.upper()
    return next((problem for problem in rows() if problem.code == code), None)
