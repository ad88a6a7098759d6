"""The tools a test may need: found, or the test is skipped, or failed if this machine must have them."""

from __future__ import annotations

import os
import shutil

import pytest

SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
REQUIRED = os.environ.get("SMFIX_REQUIRE_TOOLS") == "1"


def find_tool(name: str) -> str | None:
    """The tool's path, or None. The sbin folders are searched too (losetup, mkfs.ext4)."""
    return shutil.which(name, path=SEARCH)


def need_tool(name: str) -> str:
    """The tool's path; skips the test without it, or fails it where tools are required."""
    path = find_tool(name)
    if path is not None:
        return path
    if REQUIRED and name != "vhd-util":
        pytest.fail(f"{name} is not installed, and SMFIX_REQUIRE_TOOLS=1", pytrace=False)
    pytest.skip(f"{name} is not installed")
