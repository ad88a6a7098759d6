"""A second opinion on a repaired image: the host's own ``vhd-util check``, where it is installed.

It only reads. Its silence proves little (it passes many a damaged image), so only a complaint counts,
and no complaint comes from a tool that is missing, hangs, or dies.
"""

from __future__ import annotations

import re
import shutil

from smfix.errors import LeftBehind, Unanswered
from smfix.host.subprocesses import finished

TIME_LIMIT = 10.0
"""Seconds. A damaged header costs it ten retries of a second each; nobody waits longer than that."""

_MAX_WORDS = 200
_NOT_STARTED = 127  # the loader's exit code, and a shell's; vhd-util ends with small errno's

# It ends at the first thing it meets, and looks at the parent last: then this image has passed. Nor
# does it say anything against the image when it cannot get at it.
_ABOUT_SOMETHING_ELSE = re.compile(
    r"invalid parent |error resolving |parent locator \d+ points to missing file|error opening |cannot stat "
)


def complaint(path: str, *, program: str = "vhd-util", limit: float = TIME_LIMIT) -> str | None:
    """The first line ``vhd-util check -B -n PATH`` says against the image, or None.

    None also where there is no `program`, it cannot be started (a library of it is missing), it does not end
    within `limit` seconds, a signal ended it, or what it says is of another file: the parent. ``-B`` leaves out
    its overlap test, which takes time in the square of the blocks; ours is done. `path` is absolute. Raises LeftBehind
    if it waits in the kernel and cannot be ended.
    """
    found = shutil.which(program)
    if found is None:
        return None
    try:
        done = finished([found, "check", "-B", "-n", path], limit)
    except LeftBehind:
        raise
    except (OSError, Unanswered):
        return None
    if done.returncode <= 0 or done.returncode == _NOT_STARTED:
        return None
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
    words = said[0] if said else f"exit code {done.returncode}"
    if _ABOUT_SOMETHING_ELSE.match(words):
        return None
    return f"vhd-util check: {words[:_MAX_WORDS]}"
