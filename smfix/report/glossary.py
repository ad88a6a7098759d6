"""The field's words, each explained in one sentence. Pure.

`smfix explain` and the documentation print those that a row uses, so no text explains a word itself.
"""

from __future__ import annotations

import re

TERMS = {
    "BAT": "the block allocation table, which gives the place of each block in the file",
    "backup footer": "the copy of the footer in the file's first 512 bytes; some call it the header copy",
    "batmap": "one bit for each block, set where every sector of the block is written: it only saves reading",
    "block": "2 MiB of the guest's disk, kept in one piece; its sector bitmap precedes its data",
    "coalesce": "merging a disk into its parent, so that a chain gets shorter; the garbage collector does it",
    "differencing": "holding only what differs from a parent",
    "footer": "the last 512 bytes of a VHD: what it is, how large the guest's disk is, its UUID, a checksum",
    "geometry": "cylinders, heads and sectors, as disks were described before they had plain sizes",
    "header": "1,024 bytes after the backup footer: where the BAT is, how large blocks are, which disk is the parent",
    "hidden": "marked as a base copy: no VM uses it itself, its children read through it",
    "locator": "a place in the header that says where the parent's file is, in one system's way of writing paths",
    "NUL": "a byte of value zero",
    "parent": "the disk below in a chain: whatever this one has not written itself is read from there",
    "sector": "512 bytes",
    "sector bitmap": "one bit for each sector of a block, set where the guest has written",
    "SR": "storage repository: a place that holds disks, a folder or a volume group for instance",
    "tapdisk": "the process that serves a running VM's disk from its VHD",
    "vhd-util": "the tool with which the storage manager checks, coalesces and repairs VHDs",
    "XAPI": "the pool's own record of its VMs, disks and hosts; `xe` asks it",
}
_WORDS = re.compile(
    r"(?<![\w-])(" + "|".join(re.escape(term) for term in sorted(TERMS, key=len, reverse=True)) + r")s?(?![\w-])"
)


def terms(text: str) -> tuple[tuple[str, str], ...]:
    """Return (term, meaning) for every term in `text`, in alphabetical order."""
    used = {found.group(1) for found in _WORDS.finditer(text)}
    return tuple((term, TERMS[term]) for term in sorted(used, key=str.lower))
