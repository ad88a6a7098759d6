"""The truth corpus, mutated line by line: no traceback, and no UUID that does not stand in the text.

    python tests/support/smlog_mutation.py [LINES [SEED]]

LINES (a million unless told) is how many mutated lines are read.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator

from smfix.smlog.correlate.incidents import IncidentBuilder, Register
from smfix.smlog.inputs.unwrap_paste import mend
from smfix.smlog.parse.literal_search import fastest_engine
from smfix.smlog.parse.window import Block
from smfix.smlog.scanner import Scanner
from smlog_corpus import TRUTHS, log_of

JUNK = [
    b"\0",
    b"\x1b[2J",
    b"\xff\xfe",
    b"\r",
    b"\\n",
    b"'",
    b"', stderr: ''",
    b"EXCEPTION ",
    b"FAILED",
    b"[1]",
    b"\xe2\x80\xae",
]
HEX = b"0123456789abcdef"


def mutated(line: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`line` with one change."""
    at = chance.randrange(len(line) + 1)
    other = chance.choice(others)
    kind = chance.randrange(11)
    if kind == 0:
        return line[:at] + bytes([chance.randrange(256)]) + line[at + 1 :]
    if kind == 1:
        return line[:at]
    if kind == 2:
        return line[at:]
    if kind == 3:
        return line[:at] + chance.choice(JUNK) + line[at:]
    if kind == 4:
        return line[:at] + other[chance.randrange(len(other) + 1) :]
    if kind == 5:
        return line + line
    if kind == 6:
        return b""
    if kind == 7:
        return line.replace(b"-", b"", 1)
    if kind == 8:
        return line[:at] + bytes([chance.choice(HEX)]) + line[at + 1 :]
    if kind == 9:
        return line.replace(b" ", b"  ").replace(b"[", b"(", 1)
    return other


def read(text: bytes, chance: random.Random) -> Register:
    """What a scan of `text`, in blocks of any size, finds."""
    if paste := mend(text):
        text = paste.data
    register = Register()
    scanner = Scanner(fastest_engine(), wanted=register.in_question)
    lines = text.split(b"\n")
    step = chance.choice((3, 50, 100_000))
    first = 1
    for start in range(0, len(lines), step):
        data = b"\n".join(lines[start : start + step]) + b"\n"
        scanner.push(Block(data, len(data), 0, first, data.count(b"\n")))
        for event in scanner.tell(flush=start + step >= len(lines)):
            register.take(event)
        first += data.count(b"\n")
    return register


def names(gathered: IncidentBuilder) -> Iterator[str]:
    """Everything by which an incident names a disk; of a volume's path the volume: its group is named after the SR."""
    path = gathered.path or ""
    path = path.removeprefix(f"/dev/VG_XenStorage-{gathered.sr}/")
    # A file's folder may stand in a `cd` before its name.
    folder, _, file = path.rpartition("/")
    yield from (name for name in (gathered.vdi, gathered.sr, folder, file, *gathered.candidates) if name)


def run(lines: int, seed: int) -> tuple[int, int]:
    """Read at least `lines` mutated lines; how many, and how many incidents were found in them."""
    chance = random.Random(seed)
    corpus = [log_of(truth).read_bytes().split(b"\n") for truth in TRUTHS]
    everything = [line for log in corpus for line in log]
    done = incidents = 0
    while done < lines:
        log = list(chance.choice(corpus))
        share = chance.choice((0.01, 0.1, 0.5, 1.0))
        for index, line in enumerate(log):
            if chance.random() < share:
                log[index] = mutated(line, everything, chance)
                done += 1
        text = b"\n".join(log)
        told = text.decode("utf-8", "replace").lower()
        plain = "".join(told.replace("\\", "").replace(">", "").split())
        told.replace("--", "-")
        for gathered in read(text, chance).found:
            incidents += 1
            for name in names(gathered):
                if (
                    name.lower() not in told
                    and name.lower() not in plain
                    and name.lower() not in told.replace("--", "-")
                ):
                    raise AssertionError(f"seed {seed}: {name!r} does not stand in the text")
    return done, incidents


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    begun = time.perf_counter()
    read_lines, found = run(count, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    seconds = time.perf_counter() - begun
    print(f"{read_lines} mutated lines, {found} incidents, {seconds:.0f} s: no traceback, no invented name")
