"""Read the metadata of one image: `smfix show`."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from smfix.errors import Unreadable, UsageError
from smfix.formats.vhd import libvhd
from smfix.formats.vhd.image import VhdImage, inspect
from smfix.host.image_file import open_image
from smfix.usecases.resolve import Missing, resolved
from smfix.usecases.run_options import RunOptions
from smfix.values import Refusal


def show(target: str, run_options: RunOptions) -> tuple[str, VhdImage, libvhd.Opened]:
    """Return the path and the structures of one image, as smfix and as libvhd read them. Raises UsageError, Unreadable.

    The image's view is closed: it has only the bytes that the inspection read.
    """
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


class Closed(NamedTuple):
    """The view of a closed image: a size, no bytes."""

    size: int
    growable: bool

    def read(self, extent: object) -> bytes:
        """Raises Unreadable."""
        raise Unreadable(f"the image is closed: {extent} cannot be read")
