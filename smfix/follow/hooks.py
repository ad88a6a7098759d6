"""Run the commands of hooks: one at a time, with a document on stdin and a time limit."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from subprocess import Popen, TimeoutExpired

from smfix.host.subprocesses import begun, end

_LEFT = 0.5
"""Seconds that a hook has left when smfix is stopped."""
_STEP = 0.02
_AT_ONCE = 256  # pieces of output that are passed on in one step


class HookRun:
    """One run of a hook's `command`, begun now; killed with its children after `limit` seconds.

    Its output goes to stderr, like the messages of smfix: through a pipe, so that a hook that cannot be killed does not
    keep stderr open.
    """

    def __init__(self, command: tuple[str, ...], document: str, limit: float) -> None:
        self.command = command
        self._until = time.monotonic() + limit
        self._limit = limit
        self._process: Popen[bytes] | None = None
        self._error = ""
        self._output, into = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._output, False)
        try:
            given = os.memfd_create("smfix-event", os.MFD_CLOEXEC)
            try:
                os.write(given, document.encode())
                os.lseek(given, 0, os.SEEK_SET)
                self._process = begun(command, given, into)
            finally:
                os.close(given)
        except OSError as error:
            self._error = error.strerror or str(error)
            self._close()
        finally:
            os.close(into)

    def poll(self) -> str | None:
        """Return None while it runs, "" after success, else the error in one line."""
        if self._process is None:
            return f"hook {self.command[0]}: {self._error}"
        self._pass_on()
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self._until:
                return None
            is_gone = self._kill()
            left = "" if is_gone else f"; it waits in the kernel (pid {self._process.pid}), and no signal ends it"
            return f"hook {self.command[0]}: killed after {self._limit:g} s{left}"
        self._close()
        return "" if code == 0 else f"hook {self.command[0]}: ended with {code}"

    def stop(self) -> bool:
        """Wait half a second, then kill it, because smfix ends. Return True if it ended with success."""
        if self._process is None:
            return False
        until = time.monotonic() + _LEFT
        while time.monotonic() < until:
            self._pass_on()
            with suppress(TimeoutExpired):
                code = self._process.wait(_STEP)
                self._close()
                return code == 0
        self._kill()
        return False

    def _kill(self) -> bool:
        """Return True if it is gone; do not wait long."""
        is_gone = self._process is None or end(self._process, gently=False)
        self._close()
        return is_gone

    def _pass_on(self) -> None:
        """Pass its output on to stderr, as far as stderr takes it."""
        with suppress(OSError, ValueError):  # nothing more for now; no stderr
            for _ in range(_AT_ONCE):
                if self._output < 0 or not select.select([], [2], [], 0)[1]:
                    return
                said = os.read(self._output, select.PIPE_BUF)
                if not said:
                    return
                os.write(2, said)

    def _close(self) -> None:
        self._pass_on()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
