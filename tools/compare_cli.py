"""Compare the command lines of two versions of smfix: options, exit codes and the keys of JSON documents.

``python tools/compare_cli.py OLD/bin/smfix NEW/bin/smfix`` runs both on equal copies of the same inputs. The wording of
help and messages may differ. Commands, options, arguments, exit codes, and the keys and types of JSON documents must be
equal; each new document is also checked against docs/schema. Options that only the new version has are listed, and are
no error. Exit code 1: something is missing or different.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

LIMIT = 120
COMMANDS = (
    "from-log", "check", "repair", "scan", "show", "journal", "undo", "explain", "status", "demo",
    "service install", "service uninstall", "service reload", "service status", "fleet report",
)  # fmt: skip
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
_SECTION = re.compile(r"^(Arguments|Options|Commands):$", re.MULTILINE)


def run(program: str, words: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run one command; return its exit code and what it prints to stdout."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "200", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    return done.returncode, done.stdout


def options(help_text: str) -> set[str]:
    """Return the names in the left column of the help: options, arguments and subcommands."""
    names = set()
    section = _SECTION.search(help_text)
    for line in help_text[section.start() if section else 0 :].splitlines():
        if re.match(r"  \S", line) and not line.startswith("  Exit codes"):
            column = line.strip().split("   ")[0]
            names |= set(_OPTION.findall(column)) or {column.split()[0]}
    return names


def shape(value: Any) -> Any:
    """Return the keys and types of a document; of a list the shapes of its items, each once."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(item)) for item in value})
    return type(value).__name__


def steps(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield the commands to compare, in the order in which they change `folder`, which the demo has made."""
    places = ("--sr-mount", "sr-mount"), ("--journal-dir", "journal")
    mount, journal = places
    images = sorted(str(path.relative_to(folder)) for path in folder.glob("sr-mount/*/*.vhd"))
    log = "SMlog"
    sr = str(Path(images[0]).parent)
    for words in (("check", *images, *mount), ("scan", sr, *mount), ("show", images[0], *mount)):
        yield words
        yield (*words, "--json")
    for extra in (("--dry-run",), ("--yes",)):
        yield ("from-log", log, *mount, *journal, *extra, "--json")
    yield ("from-log", log, *mount, *journal, "--verbose")
    yield ("from-log", log, *mount, *journal, "--since", "now", "--json")
    yield ("repair", *images, *mount, *journal, "--yes", "--json")
    yield ("repair", *images, *mount, *journal, "--yes", "--dry-run")
    yield ("journal", *journal, "--json")
    yield ("journal", "prune", "--older-than", "90d", *journal, "--json")
    yield ("journal", "prune", *journal, "--json")
    for path in sorted(folder.glob("journal/*"))[:1]:
        yield ("undo", re.split(r"[.]", path.name)[0], *journal, "--yes", "--json")
    yield ("undo", "00000000", *journal, "--json")
    yield ("explain", "--json")
    yield ("show", images[0], "--hex", "--layout")
    yield ("explain", "VHD101")
    yield ("explain", "VHD101", "VHD999")
    yield ("status", "--state-dir", "state", "--json")
    yield ("from-log", "missing", "--json")
    yield ("from-log", log, "--since", "1", "--json")
    yield ("check", "missing.vhd", "--json")
    yield ("check", "--no-such-option")
    yield ("no-such-command",)
    yield ("fleet", "report", "outputs", "--json")
    yield ("--version",)


def compare(old: str, new: str, folder: Path) -> Iterator[str]:
    """Yield one line for each difference."""
    for command in COMMANDS:
        texts = [run(program, [*command.split(), "--help"], folder) for program in (old, new)]
        if texts[0][0] != texts[1][0]:
            yield f"{command} --help: exit code {texts[0][0]}, now {texts[1][0]}"
        before, after = (options(text) for _, text in texts)
        if before - after:
            yield f"{command}: gone: {', '.join(sorted(before - after))}"
        if after - before:
            print(f"{command}: new: {', '.join(sorted(after - before))}")
    yield from _compare_runs(old, new, folder)


def _compare_runs(old: str, new: str, folder: Path) -> Iterator[str]:
    from schemas import valid  # type: ignore[import-not-found]

    worlds = [folder / "old", folder / "new"]
    code, _ = run(old, ["demo", "--keep", str(worlds[0])], folder)
    if code:
        yield f"demo: exit code {code}"
        return
    outputs = worlds[0] / "outputs"
    outputs.mkdir()
    shutil.rmtree(worlds[0] / "journal", ignore_errors=True)
    (outputs / "a.json").write_text(run(old, ["scan", "sr-mount", "--json"], worlds[0])[1], encoding="utf-8")
    (outputs / "b.json").write_text(
        '{"schema": "smfix.error/1", "message": "unreachable", "exit": 8}', encoding="utf-8"
    )
    (outputs / "c.json").write_text("no JSON", encoding="utf-8")
    shutil.copytree(worlds[0], worlds[1])
    for each in zip(steps(worlds[0]), steps(worlds[1]), strict=True):
        (old_code, old_out), (new_code, new_out) = (
            run(program, words, world) for program, words, world in zip((old, new), each, worlds, strict=True)
        )
        name = " ".join(each[1])
        print(f"{new_code:3}  {name[:110]}")
        if old_code != new_code:
            yield f"{name}: exit code {old_code}, now {new_code}"
        if "--json" in each[1]:
            documents = [json.loads(text or "null") for text in (old_out, new_out)]
            if shape(documents[0]) != shape(documents[1]):
                yield f"{name}: other keys, types or items"
            if documents[1] is not None:
                valid(documents[1])
        elif bool(old_out) != bool(new_out):
            yield f"{name}: {len(old_out)} characters, now {len(new_out)}"


def main() -> int:
    """Compare the two programs that the command line names."""
    if len(sys.argv) != 3:
        print("usage: compare_cli.py OLD-SMFIX NEW-SMFIX", file=sys.stderr)
        return 16
    with tempfile.TemporaryDirectory() as folder:
        differences = list(compare(str(Path(sys.argv[1]).absolute()), str(Path(sys.argv[2]).absolute()), Path(folder)))
    for line in differences:
        print(f"DIFFERENT  {line}")
    print(f"{len(differences)} differences")
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
