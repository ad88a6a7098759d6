"""Escape text from a log, an image or an archive, so that it cannot act on a terminal.

A line of SMlog, a file name or a parent name can hold ESC sequences, carriage returns and
bidirectional overrides. Pure: only text to text.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""Return `text` with every character that a terminal could act on written as an escape.

    What `str.isprintable` refuses is escaped: C0 and C1 controls, DEL, bidirectional overrides,
    zero-width and other format characters, line and paragraph separators, blanks other than the
    ordinary one, and undecodable bytes (which Python carries as lone surrogates; shown as
    ``\xNN``). The result is one line, whatever came in.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: the byte that could not be decoded
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shell_quote(word: str) -> str:
    r"""Quote `word` as one word of a shell command: safe to print, and to paste into bash.

    Ordinary text is quoted as `shlex.quote` does. Text with control characters becomes
    ``$'...'``, which bash (the shell of dom0) reads back byte for byte.
    """
    if word.isprintable():
        return shlex.quote(word)
    raw = word.encode("utf-8", "surrogateescape")
    body = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}" for byte in raw)
    # Needs no separator before a hex digit: bash reads at most two digits after \x.
    return f"$'{body}'"


def command(words: Iterable[str]) -> str:
    """Join the words to one command line that can be pasted."""
    return " ".join(shell_quote(word) for word in words)


def operand(name: str) -> str:
    """Return the file name `name` as a word that no command takes for an option; ``-`` (stdin) stays."""
    return f"./{name}" if name.startswith("-") and name != "-" else name
