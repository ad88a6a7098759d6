"""Durations as people type them: ``90s``, ``15m``, ``2h``, ``1d``. Pure."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?P<number>[0-9]{1,5}) ?(?P<unit>s|m|min|h|d)\Z", re.ASCII)
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int | None:
    """Return the seconds of a duration; None for other text."""
    found = _DURATION.match(text)
    return None if found is None else int(found["number"]) * _UNITS[found["unit"]]
