"""Regular expressions that are compiled when they are first used. Pure.

The tables of log messages hold some hundred, and one log speaks one dialect: compiling those that it never needs
was a tenth of the start of `from-log` (decision 5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pattern = re.compile
else:

    class pattern:  # noqa: N801 - called as re.compile is
        """A substitute for the result of :func:`re.compile`. Raises re.error at its first use."""

        def __init__(self, text: str | bytes, flags: int = 0) -> None:
            self._asked = text, flags

        def __getattr__(self, name: str) -> Any:
            """Return the method of the compiled expression; from then on it is found without this call."""
            value = getattr(re.compile(*self._asked), name)
            setattr(self, name, value)
            return value
