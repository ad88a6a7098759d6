"""Read the metadata of one image: `smfix show`."""

from __future__ import annotations

from smfix.errors import Unreadable, UsageError
from smfix.formats.base import Image, Shown
from smfix.formats.cached_view import CachedView
from smfix.formats.registry import format_of, inspect
from smfix.host.image_file import open_image
from smfix.usecases.resolve import Missing, resolved
from smfix.usecases.run_options import RunOptions
from smfix.values import Refusal


def show(target: str, run_options: RunOptions) -> tuple[str, Image, Shown]:
    """Return the path of one image, its structures, and its metadata for a reader. Raises UsageError, Unreadable.

    The image is closed afterwards: its view still has a size, but reads nothing.
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
        inspected = inspect(CachedView(opened))
        return image.target.path, inspected, format_of(inspected).show(inspected, opened, image.target.path)
