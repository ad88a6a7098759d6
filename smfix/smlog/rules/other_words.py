"""Recognize text that is no storage log but speaks of storage: its kind, and the command to run instead. One table.

Pure. A row's pattern is searched in the beginning of a text that names no damaged disk and has no line in the form
of a log.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smfix.smlog.patterns import pattern


class OtherWords(NamedTuple):
    """One row: the kind of text, as the rest of "This is ...", and the advice."""

    name: str
    pattern: re.Pattern[bytes]
    what: str
    samples: tuple[bytes, ...]
    near_misses: tuple[bytes, ...]


_SMLOG = "The storage manager's reason stands in its own log: smfix from-log /var/log/SMlog, on the SR's master."

OTHER_WORDS: tuple[OtherWords, ...] = (
    OtherWords(
        "xo-footers",
        pattern(rb"footer1 !== footer2|footers? (?:are|is) (?:different|not equal)"),
        "an error of Xen Orchestra: the two footers of a VHD in a backup differ, so a transfer or a merge ended early."
        " Run smfix check on the file that its job names.",
        (b"Error: footer1 !== footer2", b"AssertionError: footer1 !== footer2"),
        (b"footer1 = footer2",),
    ),
    OtherWords(
        "xapi-error",
        pattern(rb'SR_BACKEND_FAILURE_[0-9]+|XENAPI_PLUGIN_FAILURE|"code": ?"[A-Z]+_[A-Z_0-9]+"|Error code: [A-Z]+_'),
        f"an error of XAPI, as xe and Xen Orchestra show it. It names no damaged VHD. {_SMLOG}",
        (
            b'{"code": "SR_BACKEND_FAILURE_82", "params": ["", "Failed to snapshot VDI", ""]}',
            b"Error code: SR_BACKEND_FAILURE_46",
            b'"code": "VDI_IN_USE"',
        ),
        (b"SR_BACKEND", b'"code": "x"'),
    ),
    OtherWords(
        "qemu-img",
        pattern(rb"qemu-img(?:: | check| info)|No errors were found on the image|image end offset: [0-9]"),
        "output of qemu-img, without a complaint that smfix knows. Run smfix check on the image.",
        (b"qemu-img: Could not open 'x'", b"No errors were found on the image."),
        (b"qemu-img-extra",),
    ),
    OtherWords(
        "vhd-util",
        pattern(
            rb"vhd-util |VHD (?:Footer|Header|Batmap) Summary|\.vhd (?:is valid|appears invalid)"
            rb"|vhd=\S{1,500} capacity="
        ),
        "output of vhd-util that does not say which disk is damaged, and how. Run smfix check on the image.",
        (b"# vhd-util check -n x", b"VHD Footer Summary:", b"/x/y.vhd is valid", b"vhd=/x.vhd capacity=1 size=2"),
        (b"my vhd utility", b"vhd-utility"),
    ),
    OtherWords(
        "storage",
        pattern(
            rb"/sr-mount/|/var/lock/sm/|VG_XenStorage|\b(?:SMlog|SMGC|tapdisk|tap-ctl|xapi|coalesc\w+|vdi|VDI)\b|\.vhd\b|\.qcow2\b"
            rb"|EXCEPTION|\bxe [a-z]+-[a-z]+\b"
        ),
        f"text that speaks of storage, but no line of it has the form of a storage log. {_SMLOG}",
        (b"ls /run/sr-mount/x", b"the VDI does not coalesce", b"xe vdi-list"),
        (b"total 0", b"exec"),
    ),
)


def other_words(text: bytes) -> OtherWords | None:
    """Identify the kind of `text`; return None for text that does not speak of storage."""
    return next((row for row in OTHER_WORDS if row.pattern.search(text)), None)
