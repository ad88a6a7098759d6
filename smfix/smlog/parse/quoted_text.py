"""Text that a message only quotes, taken out of it before anything is read in it.

Pure. Theory. Messages contain names and descriptions of disks, VMs and SRs: among the arguments of
an SM command, in the head of a tree print, in XAPI's lines. Such a name may quote a whole line of a log.
A dump quotes a disk's fields about its parent. None of it is a report, a proof, or a place of a disk: only
the storage manager's own words are read.
Source: SRCommand.run (the parameters as Python prints them), SR.__str__ in cleanup.py, vhd-util-read.c.
"""

from __future__ import annotations

import re

from smfix.smlog.patterns import pattern

_COMMAND = pattern(r"\b(?:sr|vdi)_[a-z_]{1,40} \{")
# As Python prints it; without its second quote if the message was cut off in it.
_STRING = pattern(r"'(?:[^'\\]|\\.)*(?P<one>'?)|\"(?:[^\"\\]|\\.)*(?P<two>\"?)", re.DOTALL)
_KEPT = pattern(r"'(?:sr|vdi)_uuid'\Z")
_UUID = pattern(r"'[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}'\Z")
_TREES = pattern(r"(?P<head>\s*SR [0-9a-fA-F]{4} \(')(?:.*(?P<tail>'\) \([0-9?]{1,9} VDIs in ))?", re.DOTALL)
_PARENT = pattern(r"(?P<head>\s*(?:decoded name|Parent name)\s*:) ")
_NAME = pattern(r"name[_-]?(?:label|description)")
# rsyslog's and XAPI's own names of messages that are no error; their text quotes what clients asked for.
_MERELY_TELLS = pattern(r"[\[|] ?(?:info|debug) ?\|")


def without_quoted_text(message: str) -> str:
    """Return `message` without text that a user can have written in it, and without a dump's parent.

    An SM command keeps its name, the SR and the VDI; a message with a name keeps the text before it.
    """
    if " {" in message and (command := _COMMAND.search(message)):
        return message[: command.end()] + ", ".join(_uuids(message, command.end()))
    if " ('" in message and (trees := _TREES.match(message)):
        return f"{trees['head']}{trees['tail']}{message[trees.end() :]}" if trees["tail"] else trees["head"]
    if "name" in message:
        if parent := _PARENT.match(message):
            return parent["head"]
        if name := _NAME.search(message):
            return message[: name.start()]
    return message


def _uuids(message: str, start: int) -> list[str]:
    """Return the SR and the VDI of a command whose parameters begin at `start`."""
    found: list[str] = []
    key = ""
    for part in _STRING.finditer(message, start):
        text = part.group()
        if key and _UUID.match(text):
            found.append(f"{key}: {text}")
        key = text if _KEPT.match(text) and message.startswith(": ", part.end()) else ""
    return found


def is_open(text: str) -> bool:
    """Return True if `text`, the beginning of a line, ends within text that a user can have written."""
    if command := _COMMAND.search(text):
        rest = _STRING.sub(lambda part: "" if part["one"] or part["two"] else "{", text[command.end() :])
        return 1 + rest.count("{") > rest.count("}")
    return _NAME.search(text) is not None or _MERELY_TELLS.search(text) is not None


def merely_tells(message: str) -> bool:
    """Return True if `message` holds the head of a line of XAPI's that is no error: it quotes clients' requests."""
    return _MERELY_TELLS.search(message) is not None
