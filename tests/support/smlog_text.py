"""Logs made of lines, for the tests of smfix.smlog."""

from __future__ import annotations

from smfix.smlog.correlate.incidents import IncidentBuilder, Register
from smfix.smlog.parse.literal_search import Engine
from smfix.smlog.parse.window import Block, Line, Position, Window
from smfix.smlog.scanner import Scanner

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
SR2 = "1c2b3a49-0000-4111-8222-933344445555"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
VDI2 = "2e994938-1111-2222-3333-444455556666"
PATH = f"/run/sr-mount/{SR}/{VDI}.vhd"
LV = f"/dev/VG_XenStorage-{SR}/VHD-{VDI}"
X = "<class 'util.SMException'>"


def said(text: str, pid: int = 26919, *, ident: str = "SM", host: str = "xen1", at: str = "Aug  9 12:00:00") -> str:
    """One line in today's syslog form."""
    return f"{at} {host} {ident}: [{pid}] {text}"


def gc(text: str, pid: int = 26919, **more: str) -> str:
    """A line of the garbage collector."""
    return said(text, pid, ident="SMGC", **more)


def check(path: str = PATH, *more: str, pid: int = 26919, at: str = "Aug  9 12:00:00") -> str:
    """The command line of a check."""
    return said(str(["/usr/bin/vhd-util", "check", "--debug", "-n", path, *more]), pid, at=at)


def failed(stdout: str, pid: int = 26919, code: int = 22, at: str = "Aug  9 12:00:00") -> list[str]:
    """A FAILED record, one prefix per line."""
    text = f"FAILED in util.pread: (rc {code}) stdout: '{stdout}', stderr: ''"
    return [said(part, pid, at=at) for part in text.split("\n")]


def corrupted(name: str = f"*{VDI[:8]}(40.000G/14.27G)", pid: int = 26919, tag: str = "coalesce", **more: str) -> str:
    """The EXCEPTION that calls a VDI corrupted."""
    return gc(f"{tag}: EXCEPTION {X}, VHD {name} corrupted", pid, **more)


def blocks_of(lines: list[str], per_block: int = 10_000, file: int = 0) -> list[Block]:
    """`lines` in blocks of so many."""
    found = []
    for start in range(0, len(lines), per_block):
        data = "".join(f"{line}\n" for line in lines[start : start + per_block]).encode("utf-8", "surrogateescape")
        found.append(Block(data, len(data), file, start + 1, data.count(b"\n")))
    return found


def window_of(lines: list[str], per_block: int = 10_000, engine: Engine | None = None) -> Window:
    """A window that holds `lines`."""
    window = Window(engine=engine)
    for block in blocks_of(lines, per_block):
        window.push(block)
    return window


def line_at(window: Window, number: int) -> Line:
    """The line with that number (from 1)."""
    serial, count = window.first, number
    while count > window.block(serial).lines:
        count -= window.block(serial).lines
        serial += 1
    offset = 0
    for _ in range(count - 1):
        offset = window.line_end(Position(serial, offset))
    return window.line(Position(serial, offset))


def events_of(lines: list[str], per_block: int = 10_000) -> list[object]:
    """What a scanner tells of `lines`."""
    return scanned(lines, per_block)[0]


def noise_of(lines: list[str]) -> dict[str, int]:
    """What a scanner set aside."""
    return dict(scanned(lines)[1].noise)


def incidents_of(lines: list[str], per_block: int = 10_000) -> list[IncidentBuilder]:
    """The incidents in `lines`."""
    return scanned(lines, per_block)[2].found


def scanned(lines: list[str], per_block: int = 10_000) -> tuple[list[object], Scanner, Register]:
    """What a scanner tells of `lines`, itself, and the register that took it."""
    register = Register()
    scanner = Scanner(wanted=register.in_question)
    found: list[object] = []
    for block in [*blocks_of(lines, per_block), None]:
        if block is not None:
            scanner.push(block)
        for event in scanner.tell(flush=block is None):
            register.take(event)
            found.append(event)
    return found, scanner, register
