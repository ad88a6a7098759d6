"""What the self-contained file holds besides smfix: names, versions, licences, as their packages state them."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

HEAD = (
    "The self-contained smfix holds these besides smfix itself, which is under the MIT licence (copyright).\n"
    "Python packages with their licences, as their metadata state them (of PyInstaller and staticx it is the\n"
    "bootloaders); then Debian's packages, whose licences stand in /usr/share/doc/PACKAGE/copyright there.\n\n"
)
LEFT_OUT = {"rich"}
"""Needed by typer's metadata, not by smfix: smfix.pyinstaller.spec leaves it out, and what it needs."""
_EXTRA = re.compile(r"extra\s*==")


def text(libraries: list[Path]) -> str:
    """The list. `libraries` are files of this machine's Debian that were put in."""
    found = _python_packages("smfix", with_extra="xapi") | {_line("pyinstaller"), _line("staticx")}
    lines = sorted(found, key=str.lower)
    return HEAD + "".join(f"{line}\n" for line in [*lines, "", *_debian_packages(libraries)])


def _python_packages(name: str, *, with_extra: str = "") -> set[str]:
    """A line for each package that `name` needs here, and for what that needs."""
    found: set[str] = set()
    for wanted in metadata.requires(name) or ():
        needs, _, marker = wanted.partition(";")
        if _EXTRA.search(marker) and not (with_extra and f'"{with_extra}"' in marker.replace("'", '"')):
            continue
        other = re.match(r"[\w.-]+", needs)
        if other is None or other.group() in LEFT_OUT:
            continue
        try:
            found.add(_line(other.group()))
        except metadata.PackageNotFoundError:
            continue  # not for this Python or system
        found |= _python_packages(other.group())
    return found


def _line(name: str) -> str:
    about = metadata.metadata(name)
    licence = about.json.get("license_expression") or _stated(about) or "see its sources"
    return f"{about['Name']} {about['Version']}: {licence}"


def _stated(about: metadata.PackageMetadata) -> str:
    """The licence by its classifiers, else the first line of the field that often holds the whole text."""
    classified = [each.split(" :: ")[-1] for each in about.get_all("Classifier") or () if each.startswith("License ::")]
    return ", ".join(classified) or str(about.json.get("license", "")).strip().partition("\n")[0]


def _debian_packages(libraries: list[Path]) -> list[str]:
    names = sorted({_owner(path) for path in libraries} - {""})
    asked = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *names]
    return sorted(set(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()))


def _owner(path: Path) -> str:
    """The package of Debian that a file is of; empty where none owns it."""
    for name in (path, path.resolve()):
        # Debian moved /lib into /usr; its list of files has the old names.
        done = subprocess.run(
            ["dpkg-query", "-S", f"*{str(name).removeprefix('/usr')}"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return done.stdout.partition(": ")[0].split(",")[0]
    return ""
