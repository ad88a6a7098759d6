"""The errors that cross a module's border, each with the exit bit that names it.

Damage is a value (:class:`smfix.values.Damaged`), a decision not to act is a value
(:class:`smfix.values.Refusal`). An exception is for what is neither: the command line is wrong,
or the machine did not do what it was asked.
"""

from __future__ import annotations

from smfix.values import Exit


class SmfixError(Exception):
    """Anything smfix reports in one line: what, where, why, what to do."""

    exit_bit: Exit = Exit.FAILED


class UsageError(SmfixError):
    """The command line asks for something that cannot be meant."""

    exit_bit = Exit.USAGE


class Unreadable(SmfixError):
    """A log, an image, a folder or a journal could not be read (missing, no permission, EIO)."""


class Unanswered(Unreadable):
    """Storage, or a program of the host that asks it, gives no answer, or none within its time limit."""


class LeftBehind(Unanswered):
    """A program of the host cannot even be ended: it waits in the kernel. It may still do what it was asked for."""


class WriteFailed(SmfixError):
    """A write, fsync, rename or truncate failed (EIO, ENOSPC, EROFS, EDQUOT ...)."""


class JournalDamaged(SmfixError):
    """An undo journal does not verify: nothing may be replayed from it."""


class JournalNewer(JournalDamaged):
    """An undo journal has a format that a later smfix made: only that one, or a later one, replays it."""
