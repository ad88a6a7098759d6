"""A second opinion on a repaired image: the format's own checker, if it is installed on this host."""

from __future__ import annotations

import shutil

from smfix.errors import LeftBehind, Unanswered
from smfix.formats.base import ExternalCheck
from smfix.host.subprocesses import finished


def complaint(check: ExternalCheck) -> str | None:
    """Return the complaint of the checker about the image, or None.

    None also if it is not installed, cannot be started, or does not end within its time limit. Raises LeftBehind if it
    waits in the kernel and cannot be ended.
    """
    program, *words = check.argv
    found = shutil.which(program)
    if found is None:
        return None
    try:
        done = finished([found, *words], check.limit)
    except LeftBehind:
        raise
    except (OSError, Unanswered):
        return None
    return check.complaint(done.returncode, done.stdout + done.stderr)
