"""Bytes as ``hexdump -C`` prints them (util-linux). Pure."""

from __future__ import annotations

_ROW = 16


def hexdump(data: bytes, start: int = 0) -> str:
    """`data` as ``hexdump -C`` would print it, each line ended by a newline.

    A row equal to the one before is folded into one ``*``; the last line is the end offset.
    `start` (bytes) is added to the offsets. No data, no output.
    """
    lines = []
    previous, folded = b"", False
    for at in range(0, len(data), _ROW):
        row = data[at : at + _ROW]
        if row == previous:
            if not folded:
                lines.append("*")
            folded = True
            continue
        previous, folded = row, False
        lines.append(_line(start + at, row))
    if data:
        lines.append(f"{start + len(data):08x}")
    return "".join(f"{line}\n" for line in lines)


def _line(offset: int, row: bytes) -> str:
    pairs = [f"{byte:02x}" for byte in row]
    left, right = " ".join(pairs[:8]), " ".join(pairs[8:])
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
    return f"{offset:08x}  {left:<23}  {right:<23}  |{text}|"
