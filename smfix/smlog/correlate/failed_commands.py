"""A command that failed: its FAILED record put together from its lines, and the command itself.

Pure. `util.pread` logs the command as a Python list, runs it, and logs ``FAILED in util.pread: (rc
N) stdout: '...', stderr: '...'`` in one message of many lines; since 2013 each of them carries its
own prefix, before that only the first did. Nothing marks the last line but the end of ``stderr``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from smfix.smlog.parse.disk_names import ImagePath, image_path
from smfix.smlog.parse.window import Line, Window
from smfix.smlog.patterns import pattern

RECORD_LINES = 200  # of one FAILED record; vhd-util's longest dump has some 60
_COMMAND_WITHIN = 12  # lines of the process between a command and its failure
_LONGEST_COMMAND = 4000  # characters

_COMMAND = pattern(r"\s*(?:Command was: )?\[(?=['\"])")
_ARGUMENT = pattern(r"'([^'\n]*)'|\"([^\"\n]*)\"")
_STDERR = pattern(r"', stderr: '")
_SUCCESS = pattern(r"\s*(?:pread[23]? )?SUCCESS\s*$")
# Texts that only start another message: the record before them lost its end.
_ANOTHER_MESSAGE = pattern(
    r"\s*\[['\"]|\s+pread[23]? SUCCESS|FAILED(?: in|:)|\*{3,}|\*~\*|[A-Za-z_ -]{1,60}: EXCEPTION "
)


class Record(NamedTuple):
    """One failed command. `command` is empty if the log does not show it.

    `texts` holds stdout and stderr, line by line, with the `lines` that contain them; `code`
    is the exit status, negative for a signal.
    """

    lines: tuple[Line, ...]
    texts: tuple[str, ...]
    code: int
    command: tuple[str, ...]

    @property
    def program(self) -> str:
        """Return the program's name without its folder, or an empty text."""
        return self.command[0].rpartition("/")[2] if self.command else ""

    @property
    def action(self) -> str:
        """Return vhd-util's subcommand: ``check``, ``coalesce`` ..."""
        return self.command[1] if len(self.command) > 1 else ""

    @property
    def image(self) -> ImagePath | None:
        """Return the image the command was about."""
        return subject(self.command)


def read_record(window: Window, line: Line, found: re.Match[str]) -> Record:
    """Return the record that starts with `line`; `found` is the match of the rule ``failed``."""
    rest = tuple(_rest(window, line))
    return Record(
        lines=(line, *rest),
        texts=(found["stdout"], *(part.text for part in rest)),
        code=int(found["code"]),
        command=_command_of(window, line),
    )


def arguments(text: str) -> tuple[str, ...]:
    """Parse the arguments of a command as `util.pread` logs it; nothing if `text` is no command."""
    if not _COMMAND.match(text):
        return ()
    return tuple(one or other for one, other in _ARGUMENT.findall(text[:_LONGEST_COMMAND]))


def subject(command: tuple[str, ...]) -> ImagePath | None:
    """Return the image of a command: the argument of ``-n``, or qemu-img's last argument."""
    if "-n" in command[:-1]:
        return image_path(command[command.index("-n") + 1])
    if command and command[0].endswith("qemu-img"):
        return image_path(command[-1])
    return None


def succeeded(window: Window, line: Line) -> Line | None:
    """Return the line that reports success of the command in `line`: the next of the same thread."""
    follower = next(filter(line.is_of_thread, window.of_process_after(line)), None)
    return follower if follower is not None and _SUCCESS.match(follower.text) else None


def _rest(window: Window, line: Line) -> Iterator[Line]:
    """Yield the lines after a FAILED line that belong to its record."""
    closing = _STDERR.search(line.text)
    if closing and line.text.endswith("'") and closing.end() < len(line.text):
        return
    in_stderr = closing is not None
    for other in window.voice_after(line, RECORD_LINES):
        if _ANOTHER_MESSAGE.match(other.text):
            return
        yield other
        in_stderr = in_stderr or _STDERR.search(other.text) is not None
        if in_stderr and other.text.endswith("'"):
            return


def _command_of(window: Window, line: Line) -> tuple[str, ...]:
    """Return the command whose failure `line` reports: the last one its process logged.

    A quiet call logs it after the failure instead.
    """
    for other in islice(filter(line.is_of_thread, window.of_process_before(line)), _COMMAND_WITHIN):
        if command := arguments(other.text):
            return command
        if _SUCCESS.match(other.text):
            break
    for other in islice(filter(line.is_of_thread, window.of_process_after(line)), 3):
        if other.text.lstrip().startswith("Command was: "):
            return arguments(other.text)
    return ()
