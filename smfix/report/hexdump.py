"""Print bytes as ``hexdump -C`` does (util-linux). Pure."""

from __future__ import annotations

from smfix.report.redact import Run, dump


def hexdump(data: bytes, start: int = 0) -> str:
    """Return `data` as ``hexdump -C`` prints it, each line ended by a newline.

    Rows equal to the one before are folded into one ``*``; the last line is the end offset.
    `start` (bytes) is added to the offsets. No data, no output.
    """
    if not data:
        return ""
    rows = dump(data, start, None, is_metadata=True).rows
    return "".join(
        f"{row.offset}  {_text(row.pairs)}  |{_text(row.letters)}|\n" if row.pairs else f"{row.offset}\n"
        for row in rows
    )


def _text(runs: tuple[Run, ...]) -> str:
    return "".join(run.text for run in runs)
