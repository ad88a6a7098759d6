"""Ways to find the few lines that matter, and to count the rest: why smfix/smlog/engine.py is what it is.

    python tools/benchmarks/engines.py LOG

LOG is read in blocks of 1 MiB from the page cache, on one core. What is not installed is left out; nothing
but StringZilla is a dependency. Prints Markdown.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

from smfix.smlog.rules.messages import ANCHORS

BLOCK = 1 << 20
Search = Callable[[bytearray, int], int]


def blocks(path: str, search: Search | None) -> tuple[float, int]:
    """Seconds of CPU for all of `path`, and the sum of what `search` returned."""
    descriptor = os.open(path, os.O_RDONLY)
    buffer, offset, found = bytearray(BLOCK), 0, 0
    begun = time.process_time()
    while count := os.preadv(descriptor, [buffer], offset):
        offset += count
        if search:
            found += search(buffer, count)
    took = time.process_time() - begun
    os.close(descriptor)
    return took, found


def searches() -> dict[str, Search]:
    """The ways to find the anchors."""
    alternatives = re.compile(b"|".join(map(re.escape, ANCHORS)))
    found: dict[str, Search] = {
        "`bytes.find`, one pass for each": lambda data, size: sum(data.find(one, 0, size) >= 0 for one in ANCHORS),
        "`re`, one pass": lambda data, _size: sum(1 for _ in alternatives.finditer(data)),
    }
    if module := optional("stringzilla"):
        found["StringZilla, one pass for each"] = lambda data, size: sum(
            module.find(data, one, 0, size) >= 0 for one in ANCHORS
        )
    if hyperscan := optional("hyperscan"):
        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        database.compile(
            expressions=list(ANCHORS), ids=list(range(len(ANCHORS))), elements=len(ANCHORS), flags=0, literal=True
        )

        def scan(data: bytearray, _size: int) -> int:
            hits: list[int] = []
            database.scan(data, match_event_handler=lambda *_: hits.append(1))
            return len(hits)

        found["hyperscan, one pass"] = scan
    if aho := optional("ahocorasick_rs"):
        automaton = aho.BytesAhoCorasick(list(ANCHORS))
        found["ahocorasick_rs, one pass"] = lambda data, _size: len(automaton.find_matches_as_indexes(bytes(data)))
    return found


def counters() -> dict[str, Search]:
    """The ways to count lines."""
    found: dict[str, Search] = {"`bytes.count`": lambda data, size: data.count(b"\n", 0, size)}
    if module := optional("stringzilla"):
        found["StringZilla"] = lambda data, size: int(module.count(data, b"\n", 0, size))
    if numpy := optional("numpy"):
        found["numpy"] = lambda data, _size: int(numpy.count_nonzero(numpy.frombuffer(data, numpy.uint8) == 10))
    return found


def unpackers(path: str) -> dict[str, tuple[float, int]]:
    """The ways to read gzip: seconds of CPU and bytes, for the first 64 MiB of the log."""
    with open(path, "rb") as file:
        text = file.read(64 << 20)
    packed = zlib.compress(text, 6, 31)
    found: dict[str, tuple[float, int]] = {}
    for name, module in (
        ("zlib", zlib),
        ("isal", optional("isal.isal_zlib")),
        ("zlib-ng", optional("zlib_ng.zlib_ng")),
    ):
        if module is None:
            continue
        begun, size = time.process_time(), 0
        decompressor = module.decompressobj(31)
        rest = packed
        while rest:
            size += len(decompressor.decompress(rest, BLOCK))
            rest = decompressor.unconsumed_tail
        found[name] = time.process_time() - begun, size
    return found


def optional(name: str) -> Any:
    """The module, None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def row(name: str, seconds: float, size: int) -> str:
    """A line of the table."""
    return f"| {name} | {size / (1 << 20) / seconds:,.0f} |"


def main(path: str) -> None:
    """Measure and print."""
    size = os.path.getsize(path)
    base, _ = blocks(path, None)
    print(f"Reading alone: {size / (1 << 20) / base:,.0f} MiB/s; it is contained in what follows.\n")
    print(f"| {len(ANCHORS)} anchors | MiB/s |\n|---|---|")
    for name, search in searches().items():
        print(row(name, min(blocks(path, search)[0] for _ in range(2)), size))
    print("\n| lines | MiB/s |\n|---|---|")
    for name, search in counters().items():
        print(row(name, min(blocks(path, search)[0] for _ in range(2)), size))
    print("\n| gzip | MiB/s of text |\n|---|---|")
    for name, (seconds, unpacked) in unpackers(path).items():
        print(row(name, seconds, unpacked))


if __name__ == "__main__":
    main(sys.argv[1])
