"""Commands that are told of events: one at a time, a document on stdin, no longer than they may."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from subprocess import Popen, TimeoutExpired

from smfix.host.programs import begun

_LEFT = 0.5
"""Seconds that a hook has left when smfix is stopped."""


class HookRun:
    """One run of a hook's `command`, begun now; killed with its children after `limit` seconds.

    Its output goes where smfix's own messages go: stderr.
    """

    def __init__(self, command: tuple[str, ...], document: str, limit: float) -> None:
        self.command = command
        self._until = time.monotonic() + limit
        self._limit = limit
        self._process: Popen[bytes] | None = None
        self._error = ""
        try:
            given = os.memfd_create("smfix-event", os.MFD_CLOEXEC)
            try:
                os.write(given, document.encode())
                os.lseek(given, 0, os.SEEK_SET)
                self._process = begun(command, given)
            finally:
                os.close(given)
        except OSError as error:
            self._error = error.strerror or str(error)

    def poll(self) -> str | None:
        """None while it runs; empty when it succeeded; else why it did not, in one line."""
        if self._process is None:
            return f"hook {self.command[0]}: {self._error}"
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self._until:
                return None
            self._kill()
            return f"hook {self.command[0]}: killed after {self._limit:g} s"
        return "" if code == 0 else f"hook {self.command[0]}: ended with {code}"

    def stop(self) -> bool:
        """Smfix ends: wait a moment, then kill it. True where it ended by itself, with success."""
        if self._process is None:
            return False
        try:
            return self._process.wait(_LEFT) == 0
        except TimeoutExpired:
            self._kill()
            return False

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
