"""A document whose parts are written by different runs, each between its own marks."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def put(document: Path, name: str, text: str) -> None:
    """Replace the part `name` of the document by `text`; where there is none yet it goes to the end."""
    begin, end = f"<!-- {name}: written by a run -->", f"<!-- {name}: end -->"
    part = f"{begin}\n{text.strip()}\n{end}"
    old = document.read_text(encoding="utf-8") if document.exists() else ""
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new = found.sub(lambda _match: part, old) if found.search(old) else f"{old.rstrip()}\n\n{part}\n"
    document.write_text(new.lstrip(), encoding="utf-8")


def stamp() -> str:
    """Day and commit of this run, as the end of a sentence."""
    done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return f"{datetime.now(UTC):%Y-%m-%d}, commit {done.stdout.strip() or 'unknown'}"
