"""Describe the progress of a long work in one line: share, rate, and time left. Pure."""

from __future__ import annotations

from smfix.report.layout import counted

_MIB = 1 << 20
_SETTLED = 1.0
"""Seconds before a rate means anything."""


def of_bytes(what: str, done: int, total: int, seconds: float) -> str:
    """Return ``reading the log: 41 %, 312 MiB/s, 5 s to go``; `total` 0: not known. In bytes, and seconds so far."""
    share = f"{100 * done // total} %" if total else f"{done // _MIB:,} MiB"
    if seconds < _SETTLED:
        return f"{what}: {share}"
    rate = done / seconds
    return f"{what}: {share}, {rate / _MIB:,.0f} MiB/s{_to_go(total - done, rate)}"


def of_items(what: str, done: int, total: int, seconds: float, noun: str) -> str:
    """Return ``scanning: 1,200 of 10,000 images, 3,100/s, 3 s to go``."""
    words = f"{what}: {done:,} of {counted(total, noun)}"
    if seconds < _SETTLED or not done:
        return words
    rate = done / seconds
    return (
        f"{words}, {rate:,.0f}/s{_to_go(total - done, rate)}" if rate >= 1 else f"{words}{_to_go(total - done, rate)}"
    )


def _to_go(left: int, rate: float) -> str:
    if left <= 0 or rate <= 0:
        return ""
    seconds = int(left / rate) + 1
    if seconds < 100:
        return f", {seconds} s to go"
    minutes = -(-seconds // 60)
    return f", {minutes} min to go" if minutes < 100 else f", {-(-minutes // 60)} h to go"
