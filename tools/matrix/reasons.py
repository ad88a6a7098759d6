"""Why what is left is left: for each kind that smfix does not mend everywhere, what is missing."""

from __future__ import annotations

import re

REASONS: tuple[tuple[str, str], ...] = (
    (
        r"both-uuid-.*",
        "Two good footers, two UUIDs, and no child that names one of them. Where a child is known, it decides.",
    ),
    (
        r"both-poison.*",
        "The storage manager's own resize is under way; it has a journal and puts the disk back itself.",
    ),
    (
        r"both-(zeroed|garbage|missing-and-zeroed)",
        (
            "No footer is left, at either end or between two blocks, and no child names the UUID: the size may be "
            "known, the UUID is not. With `--uuid` (and `--size`) it is rebuilt."
        ),
    ),
    (
        r"both-(one-bit-each|cookie-and-checksum|same-bit|missing-and-bit)|crash-footer-and-hidden",
        "More than one footer fits what is left of the two, or the only one that fits contradicts the image.",
    ),
    (
        r"both-(null-uuid|features|hidden-7|saved|version)",
        "Both footers agree and their checksums are right: some writer meant it; what else, is not known.",
    ),
    (
        r"header-(zeroed|garbage|first-sector|second-sector|and-backup|parent-.*)",
        (
            "The header of a differencing disk names its parent; what is lost of it cannot be proved from the parent "
            "alone: a wrong parent UUID would be a mixture of two disks."
        ),
    ),
    (
        r"header-sealed-.*",
        (
            "The header's checksum is right, so some writer meant it; only if batmap and blocks have other "
            "places is that proved wrong."
        ),
    ),
    (
        r"header-footers-too",
        "Neither a footer nor a header is left: nothing says how large the disk was or which parent it had.",
    ),
    (
        r"bat-(duplicate.*|free-duplicate|half-overlap)",
        "Two entries share a place. Only a batmap bit or a bitmap's shape can tell whose it is; here neither does.",
    ),
    (
        r"bat-two-lost",
        "Two entries and two places, and both assignments fit; the places are named in a warning (VHD304).",
    ),
    (r"bat-all-.*|bat-garbage", "The BAT is wholly gone: the blocks do not show which block is which."),
    (
        r"bat-last-lost-no-footer",
        (
            "A block without an entry, and no footer: a crash before the BAT was written leaves the same bytes. It is "
            "kept and named in a warning (VHD304), the footer is restored."
        ),
    ),
    (
        r"fixed-(footer-(zeroed|garbage|mark)|missing|cut|cut-odd)",
        "A fixed disk without its footer is what a raw disk is: `not-a-vhd`, and nothing is written.",
    ),
    (
        r"fixed-footer-.*|fixed-cut-odd-footer",
        "A fixed disk has one footer; what is left of it and its place leave none, or more than one, that sums right.",
    ),
    (r"cut-in-bat", "The file ends inside the BAT: the blocks are not there any more."),
    (r"cut-all-blocks", "No block is left in the file, and the entries alone do not tell which were real."),
)


def why(kind: str) -> str:
    """The reason for a kind; what is not in the list says so."""
    return next((text for pattern, text in REASONS if re.fullmatch(pattern, kind)), "No reason is written down yet.")
