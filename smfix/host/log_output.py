"""Send the lines of :class:`smfix.values.Log` to `logging`: to a command's stderr, or to journald.

Imported only if the lines are wanted: `logging` adds 8 ms to the start-up.
Source: sd-daemon(3) (the prefixes ``<6>``, ``<7>``), systemd.exec(5) (JOURNAL_STREAM).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from smfix.values import Log


class _Lines(logging.Handler):
    """Passes each record to `write` as one line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write, self._is_journal = write, is_journal()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record: with syslog's priority for journald, with the program's name for people."""
        prefix = f"<{7 if record.levelno <= logging.DEBUG else 6}>" if self._is_journal else "smfix: "
        self._write(f"{prefix}{record.name.removeprefix('smfix.')}: {record.getMessage()}")


def start(write: Callable[[str], None], *, is_debug: bool) -> None:
    """Log to `write`, which takes one line, until ``Log.write`` is None again; `is_debug`: every step."""
    root = logging.getLogger("smfix")
    root.handlers, root.propagate = [_Lines(write)], False
    root.setLevel(logging.DEBUG if is_debug else logging.INFO)
    Log.write = lambda module, level, text: logging.getLogger(module).log(level, text)


def is_journal() -> bool:
    """Return True if stderr is the connection to journald that systemd has made for this service."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        about = os.fstat(2)
        return (int(device), int(inode)) == (about.st_dev, about.st_ino)
    except (OSError, ValueError):
        return False
