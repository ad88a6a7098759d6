"""Prove the packages: ``make packages-check`` runs it, as root.

The wheel goes into an empty virtual environment. The .deb and the RPM are installed, upgraded and removed in bare
roots (Debian's minimal system, made by debootstrap; for the RPM it is only a shell and a file system, its packages
are unknown to rpm), with disks repaired in between: what belongs to nobody but the operator stays. Prints a table;
the exit code is the number of rows that do not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import email
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from make_dist import ROOT
from make_packages import deb, rpm
from verify import Failed, expect

import smfix
from smfix.demo.run import Stage, build

NEXT = f"{smfix.__version__}.1"
STUB = '#!/bin/sh\necho "$@" >> /told\n'
# What rpm 4.11, dom0's, can read.
KNOWN = {"CompressedFileNames", "FileDigests", "PayloadFilesHavePrefix", "PayloadIsXz"}
UNIT = "/usr/lib/systemd/system/smfix.service"
POLICY = "/etc/smfix/policy.toml"


def said(*words: str, code: int = 0) -> str:
    """What a program prints, which must end with `code`."""
    line = ["env", "LC_ALL=C", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    expect(done.returncode == code, words, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


class Bare:
    """A bare root that a package is put into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "usr/bin/systemctl").unlink(missing_ok=True)

    def inside(self, *words: str, code: int = 0) -> str:
        """What a program of the root prints."""
        return said("chroot", str(self.folder), "env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", *words, code=code)

    def files(self) -> set[str]:
        """Every file and folder, but those of the package tools, of the kernel, and what /run forgets at a boot."""
        done = said("find", str(self.folder), "-xdev", "-printf", "%P\n")
        own = (
            "proc",
            "var/lib/dpkg",
            "var/log",
            "var/lib/rpm",
            "var/cache",
            "srv",
            "tmp",
            "told",
            "bin/sh",
            "run/smfix",
        )
        return {name for name in done.splitlines() if not name.startswith(own)}

    def damaged(self) -> list[str]:
        """Disks repaired by the smfix in the root, with its journals where they lie by default: their ids."""
        shutil.rmtree(self.folder / "srv", ignore_errors=True)
        (self.folder / "srv").mkdir()
        build(Stage(str(self.folder / "srv"), lambda _: None))
        self.inside("smfix", "from-log", "/srv/SMlog", "--sr-mount", "/srv/sr-mount", "--yes", code=5)
        return self.journals()

    def journals(self) -> list[str]:
        """The journals' files."""
        folder = self.folder / "var/lib/smfix/journal"
        return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


@contextlib.contextmanager
def bare() -> Iterator[Bare]:
    """A copy of the minimal system, with /proc."""
    origin = ROOT / "build" / "bare-root"
    if not (origin / "etc/debian_version").exists():
        shutil.rmtree(origin, ignore_errors=True)
        said("debootstrap", "--variant=minbase", "stable", str(origin))
    folder = Path(tempfile.mkdtemp(prefix="smfix-bare-"))
    try:
        said("cp", "-a", f"{origin}/.", str(folder))
        said("mount", "-t", "proc", "proc", str(folder / "proc"))
        yield Bare(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder / "proc")], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def works(root: Bare) -> None:
    """The installed smfix does its work, and its pages and words are there."""
    expect(root.inside("smfix", "demo").rstrip().endswith("claims proved."), "demo")
    complete = ". /usr/share/bash-completion/completions/smfix && complete -p smfix"
    expect("_smfix_completion" in root.inside("bash", "-c", complete), "completion")
    asked = "COMP_WORDS='smfix ch' COMP_CWORD=1 _SMFIX_COMPLETE=complete_bash smfix"
    expect(root.inside("sh", "-c", asked).split() == ["check"], "completion of `ch`")
    expect((root.folder / "usr/share/man/man1/smfix-from-log.1.gz").exists(), "manual page")


# --------------------------------------------------------------------------- the rows


def wheel(dist: Path) -> str:
    """Sdist and wheel: metadata whole, typed; the wheel works in an empty environment."""
    made = next(dist.glob("*.whl"))
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith("dist-info/METADATA"))
        about = email.message_from_bytes(archive.read(info))
    wanted = {f"smfix/{path.relative_to(ROOT / 'smfix')}" for path in (ROOT / "smfix").rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    expect({name for name in names if name.startswith("smfix/")} == wanted, "other files than in smfix/")
    expect("smfix/py.typed" in names, "no py.typed")
    for key in ("Summary", "Author", "License-Expression", "Keywords", "Requires-Python", "Description-Content-Type"):
        expect(about[key], key)
    expect(about["Version"] == smfix.__version__ and about.get_payload(), about["Version"])
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        said(f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(made))
        expect(said(f"{folder}/bin/smfix", "demo").rstrip().endswith("claims proved."), "demo")
    return f"{len(names)} files; `smfix demo` in a new environment"


def debian(dist: Path) -> str:
    """.deb: installed, used, upgraded, removed, purged; the journals stay, nothing else does."""
    with bare() as root, tempfile.TemporaryDirectory() as work:
        later = deb(dist / "smfix", Path(work), Path(work), NEXT)
        before = root.files()
        for package in (next(dist.glob("smfix_*.deb")), later):
            shutil.copy(package, root.folder / "tmp")
            root.inside("dpkg", "-i", f"/tmp/{package.name}")
            expect(root.inside("dpkg", "--verify", "smfix") == "", "dpkg --verify")
            if package is not later:
                works(root)
                journals = root.damaged()
        expect(NEXT in root.inside("dpkg-query", "-W", "-f", "${Version}", "smfix"), "not upgraded")
        expect(root.journals() == journals, "journals went with the upgrade")
        _undo(root)
        journals = root.journals()
        root.inside("dpkg", "--purge", "smfix")
        expect(root.journals() == journals, "journals went with the package")
        left = {name for name in root.files() - before if not name.startswith("var/lib/smfix")}
        expect(not left, sorted(left))
    return f"{len(journals)} files of journals stayed; nothing else"


def _undo(root: Bare) -> None:
    name = root.inside("smfix", "journal", "--json")
    ids = [line.split('"')[3] for line in name.splitlines() if '"id":' in line]
    expect(ids, name)
    root.inside("smfix", "undo", ids[0], "--yes")


def red_hat(dist: Path) -> str:
    """RPM: readable by dom0's rpm; installed, used, upgraded, removed; a changed policy and the journals stay."""
    made = next(dist.glob("*.rpm"))
    needs = said("rpm", "-qpR", str(made)).split("\n")
    libraries = {line.split("(")[1].split(")")[0] for line in needs if line.startswith("rpmlib(")}
    others = {line for line in needs if line and not line.startswith("rpmlib(")}
    expect(libraries <= KNOWN and others <= {"/bin/sh", "config(smfix) = " + smfix.__version__ + "-1"}, needs)
    expect(said("rpm", "-qp", "--qf", "%{PAYLOADCOMPRESSOR}", str(made)) == "xz", "payload")
    expect(said("rpm", "-qpc", str(made)).split() == [POLICY], "configuration")
    with bare() as root, tempfile.TemporaryDirectory() as work:
        before = root.files()
        line = ["rpm", "--root", str(root.folder), "--dbpath", "/var/lib/rpm"]
        said(*line, "-i", str(_shell(Path(work))))
        _told(root)
        said(*line, "-i", str(made))
        expect(said(*line, "-V", "smfix") == "", "rpm -V")
        expect(_told(root) == ["daemon-reload"], "scripts at the installation")
        works(root)
        text = (root.folder / UNIT[1:]).read_text(encoding="utf-8")
        started = f"ExecStart=/usr/bin/smfix from-log --follow /var/log/SMlog --policy {POLICY}\n"
        expect(started in text, text)
        root.inside("smfix", "service", "install", "--policy", POLICY, "--unit-dir", "/tmp")  # it reads the policy
        journals = root.damaged()
        policy = root.folder / POLICY[1:]
        ours = policy.read_text(encoding="utf-8") + "# ours\n"
        policy.write_text(ours, encoding="utf-8")
        _told(root)
        theirs = "version = 1\ndry-run = true\n# theirs\n"
        said(*line, "-U", str(rpm(dist / "smfix", Path(work), Path(work), NEXT, theirs)))
        expect(_told(root) == ["daemon-reload"] * 2 + ["try-restart smfix.service"], "scripts at the upgrade")
        expect(policy.read_text(encoding="utf-8") == ours, "the policy was replaced")
        expect((root.folder / f"{POLICY[1:]}.rpmnew").read_text(encoding="utf-8") == theirs, "no .rpmnew")
        expect(root.journals() == journals, "journals went with the upgrade")
        _undo(root)
        journals = root.journals()
        (root.folder / f"{POLICY[1:]}.rpmnew").unlink()
        said(*line, "-e", "smfix")
        called = ["--no-reload disable smfix.service", "stop smfix.service", "daemon-reload"]
        expect(_told(root) == called, "scripts at the removal")
        expect(root.journals() == journals, "journals went with the package")
        saved = {"etc/smfix", f"{POLICY[1:]}.rpmsave", "usr/bin/systemctl", "run/systemd", "run/systemd/system"}
        left = {name for name in root.files() - before - saved if not name.startswith("var/lib/smfix")}
        expect(not left, sorted(left))
    return f"needs {', '.join(sorted(libraries))} of rpm; {len(journals)} files of journals stayed, and policy.toml"


def _shell(work: Path) -> Path:
    """A package that tells rpm of the root's own shell, as the bash package of dom0 does."""
    spec = work / "shell.spec"
    spec.write_text(
        "Name: shell\nVersion: 1\nRelease: 1\nSummary: s\nLicense: MIT\nBuildArch: noarch\nProvides: /bin/sh\n"
        "%description\ns\n%files\n",
        encoding="ascii",
    )
    said("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {work}/shell", str(spec))
    return next((work / "shell" / "RPMS").rglob("*.rpm"))


def _told(root: Bare) -> list[str]:
    """What systemctl was told since the last time; from now on there is one that remembers."""
    (root.folder / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    stub = root.folder / "usr/bin/systemctl"
    stub.write_text(STUB, encoding="ascii")
    stub.chmod(0o755)
    told = root.folder / "told"
    words = told.read_text(encoding="ascii").splitlines() if told.exists() else []
    told.unlink(missing_ok=True)
    return words


ROWS: tuple[Callable[[Path], str], ...] = (wheel, debian, red_hat)


def main() -> int:
    """Check what lies in ``dist/``; the number of rows that do not hold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dist", type=Path, default=ROOT / "dist")
    options.add_argument("--write", type=Path)
    given = options.parse_args()
    if os.geteuid() != 0:
        print("a bare root needs root", file=sys.stderr)
        return 1
    lines, failures = [], 0
    for row in ROWS:
        what = " ".join((row.__doc__ or "").split())
        try:
            seen, holds = row(given.dist.resolve()), True
        except (Failed, OSError, StopIteration, subprocess.SubprocessError) as error:
            seen, holds = f"{type(error).__name__}: {error}", False
        failures += not holds
        print(f"{'ok    ' if holds else 'FAILED'}  {what} [{seen}]", flush=True)
        lines.append(f"| {what} | {seen} | {'yes' if holds else '**no**'} |\n")
    if given.write:
        given.write.write_text(f"| package | seen | holds |\n|---|---|---|\n{''.join(lines)}", encoding="utf-8")
    return failures


if __name__ == "__main__":
    sys.exit(main())
