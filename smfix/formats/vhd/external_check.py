"""How ``vhd-util check`` is asked about a repaired image, and which of its answers count. Pure.

It only reads. Its silence proves little (it accepts many a damaged image), so only a complaint counts.
"""

from __future__ import annotations

import re

from smfix.formats.base import ExternalCheck

TIME_LIMIT = 10.0
"""Seconds. A damaged header costs it ten retries of a second each; smfix waits no longer than that."""

_MAX_WORDS = 200
_NOT_STARTED = 127  # the loader's exit code, and a shell's; vhd-util ends with small errno's

# It ends at the first thing it meets, and looks at the parent last: then this image has passed. A failure to open the
# image is no complaint about it either.
_ABOUT_SOMETHING_ELSE = re.compile(
    r"invalid parent |error resolving |parent locator \d+ points to missing file|error opening |cannot stat "
)


def check(path: str) -> ExternalCheck:
    """Return the call for the image at `path`, absolute.

    ``-B`` leaves out its overlap test, which takes time in the square of the blocks; smfix has tested that itself.
    """
    return ExternalCheck(("vhd-util", "check", "-B", "-n", path), TIME_LIMIT, complaint)


def complaint(returncode: int, output: bytes) -> str | None:
    """Return the first line that it printed against the image.

    None if it found nothing, could not be started (a library of it is missing), was ended by a signal, or complains
    about another file: the parent.
    """
    if returncode <= 0 or returncode == _NOT_STARTED:
        return None
    lines = output.decode("utf-8", "replace").strip().splitlines()
    words = lines[0] if lines else f"exit code {returncode}"
    if _ABOUT_SOMETHING_ELSE.match(words):
        return None
    return f"vhd-util check: {words[:_MAX_WORDS]}"
