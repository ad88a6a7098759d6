"""Lay out plain text: labelled rows, wrapped prose, whole commands. Pure, but for the width.

Prose is wrapped; paths and commands never are, because they are copied. A quote uses the whole width, prose at most
:data:`READABLE` columns. Everything is made printable here, so no caller can forget to.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from smfix.report.escape import printable

WIDTH = 80
"""Columns of a report that is not printed to a terminal."""
READABLE = 100
"""Columns of prose on the widest terminal."""
INDENT = "   "
LABEL = 9


class _Paper:
    """The width for which text is laid out now."""

    width = WIDTH


@contextmanager
def columns(width: int) -> Iterator[None]:
    """Lay out text for a terminal of `width` columns while the block runs."""
    before, _Paper.width = _Paper.width, width
    try:
        yield
    finally:
        _Paper.width = before


def terminal() -> int:
    """Return all columns of the terminal: for tables and quotes."""
    return _Paper.width


def prose() -> int:
    """Return the columns of prose."""
    return min(_Paper.width, READABLE)


def wrapped(text: str, indent: str = "") -> str:
    """Wrap `text` as prose; words longer than a line stay whole."""
    return _filled(printable(text), prose(), indent, indent)


def row(label: str, text: str) -> str:
    """Return ``   label    text``, the further lines indented below the text."""
    return _filled(printable(text), prose(), f"{INDENT}{label:<{LABEL}}", INDENT + " " * LABEL)


def folded(head: str, text: str, width: int | None = None) -> str:
    """Return `head` followed by `text`, whose further lines are indented below it; `head` is not changed."""
    return _filled(printable(text), max(width or prose(), len(head) + 20), head, " " * len(head))


def verbatim(label: str, text: str) -> str:
    """Return ``   label    text`` on one line whatever its length: a path or a command to copy."""
    return f"{INDENT}{label:<{LABEL}}{printable(text)}"


def clipped(label: str, text: str, rows: int) -> str:
    """Return ``   label    text`` in at most `rows` lines (3 or more): a quote, which JSON has in full.

    It is folded at blanks; a word longer than a line is folded after a slash. The middle of a longer quote is left out,
    because a log line begins with the name of its program and ends with the error.
    """
    pieces = _pieces(printable(text), _Paper.width - len(INDENT) - LABEL)
    if len(pieces) > rows:
        last = rows // 2
        pieces = [*pieces[: rows - last - 1], "...", *pieces[-last:]]
    return "\n".join(f"{INDENT}{label if number == 0 else '':<{LABEL}}{piece}" for number, piece in enumerate(pieces))


def _pieces(text: str, room: int) -> list[str]:
    """Split `text` into lines of at most `room` columns, at blanks."""
    lines = [""]
    for word in _WORD.findall(text):
        if len(lines[-1]) + len(word) <= room:
            lines[-1] += word
            continue
        rest = word.lstrip()
        while len(rest) > room:
            end = rest.rfind("/", 1, room) + 1 or room
            lines.append(rest[:end])
            rest = rest[end:]
        lines.append(rest)
    return lines if lines[0] or len(lines) == 1 else lines[1:]


_WORD = re.compile(r" *[^ ]+")


def moment(time: datetime | None) -> str:
    """Return a time as text with its offset, and with microseconds if the log has them."""
    return "unknown" if time is None else time.isoformat(sep=" ")


def span(first: datetime | None, last: datetime | None) -> str:
    """Return ``first to last``: one time if they are equal, the day once if it is the same."""
    if first is None or last is None or first == last:
        return moment(first if last is None else last)
    if first.date() == last.date() and first.utcoffset() == last.utcoffset():
        return f"{first.replace(tzinfo=None).isoformat(sep=' ')} to {last.timetz().isoformat()}"
    return f"{moment(first)} to {moment(last)}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 disk``, ``2 disks``, ``1,024 bytes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _filled(text: str, width: int, first: str, others: str) -> str:
    """Wrap `text` to `width` columns; the first line begins with `first`, the further ones with `others`."""
    if text and text == text.strip() and len(first) + len(text) <= width:
        return first + text  # most texts are one line; textwrap would take fifty times as long
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
