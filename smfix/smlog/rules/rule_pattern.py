"""Patterns of rules: compiled by `regex` when the first candidate line appears, with a time limit. Pure.

Rules are written so that no text makes them slow: quantifiers are bounded, possessive (``{1,80}+``) or within atomic
groups (``(?>...)``) if they could be tried again. The limit is the last resort, and a line that meets it is
counted and shown, never dropped silently. Without `regex` the standard library's `re` reads the same patterns,
without a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

LIMIT = 1.0
"""Seconds for one search; then TimeoutError is raised."""


class RulePattern:
    """A pattern of one row. Raises TimeoutError if a search takes longer than LIMIT."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._find: Callable[..., re.Match[str] | None] | None = None

    def search(self, text: str, start: int = 0, stop: int = 1 << 62) -> re.Match[str] | None:
        """Return the first match in ``text[start:stop]``."""
        if self._find is None:
            self._find = _compiled(self.text)
        return self._find(text, start, stop)


def _compiled(text: str) -> Callable[..., re.Match[str] | None]:
    try:
        import regex
    except ImportError:
        return re.compile(text).search
    search: Any = regex.compile(text).search
    return lambda *given: search(*given, timeout=LIMIT)
