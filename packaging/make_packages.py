"""Build the packages around ``dist/smfix``: ``make packages`` runs it with the Python of build/tools.

Into ``dist/``: sdist and wheel, an RPM for dom0 (Debian's rpmbuild), a .deb for workstations (dpkg-deb), and
SHA256SUMS. The version is that of ``smfix/__init__.py`` and stands nowhere else.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from make_dist import ROOT, commit_time

import smfix
from smfix.follow import service

HERE = Path(__file__).resolve().parent
POLICY = "/etc/smfix/policy.toml"
SUMMARY = "repairs the damaged VHD disks that a XenServer or XCP-ng storage log names"
DESCRIPTION = (
    "smfix reads the storage log (SMlog) of a XenServer or XCP-ng host, finds the VHD disks that are in trouble, says "
    "what is wrong with each, repairs what can be repaired without guessing, checks the result on a fresh open, and "
    "can undo it byte for byte. One file that brings everything it needs."
)


def main() -> int:
    """Build them all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dist", type=Path, default=ROOT / "dist")
    options.add_argument("--work", type=Path, default=ROOT / "build" / "packages")
    given = options.parse_args()
    dist, work = given.dist.resolve(), given.work.resolve()
    for old in (*dist.glob("smfix-*"), *dist.glob("smfix_*")):
        old.unlink()
    python_packages(dist)
    rpm(dist / "smfix", work, dist, smfix.__version__)
    deb(dist / "smfix", work, dist, smfix.__version__)
    made = sorted(path for path in dist.iterdir() if path.name not in ("SHA256SUMS", "smfix.sha256"))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
    (dist / "SHA256SUMS").write_text(sums, encoding="ascii")
    for path in made:
        print(f"{path.stat().st_size:>12,}  {path.name}")
    return 0


def python_packages(dist: Path) -> None:
    """Sdist and wheel, each built in a clean environment, their metadata read as the package index reads it."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(commit_time())}
    line = [sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)]
    subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL)
    made = [str(path) for pattern in ("*.whl", "*.tar.gz") for path in dist.glob(pattern)]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *made], check=True)


def filled(template: Path, words: dict[str, object]) -> str:
    """The text of a template, with every ``@NAME@`` in it filled in."""
    text = template.read_text(encoding="utf-8")
    for name, value in words.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def unit() -> str:
    """The service's unit, as `smfix service install` would write it, for the program in /usr/bin."""
    options = service.options("/var/log/SMlog", policy=POLICY, yes=False, metrics=None, sr_mounts=())
    text = service.unit_text(["/usr/bin/smfix"], options, [])
    head, _, rest = text.partition("\n")
    return f"# Of the package smfix. What is to be otherwise: systemctl edit smfix\n{rest}" if head else text


def common(program: Path, root: Path) -> None:
    """What both packages hold: program, manual pages, completion, documents."""
    shutil.rmtree(root, ignore_errors=True)
    _put(root / "usr/bin/smfix", program.read_bytes(), 0o755)
    for page in sorted((ROOT / "docs" / "man").glob("*.1")):
        _put(root / f"usr/share/man/man1/{page.name}.gz", gzip.compress(page.read_bytes(), mtime=0))
    asked = {"_SMFIX_COMPLETE": "source_bash", "PATH": os.environ["PATH"]}
    words = subprocess.run([str(program)], env=asked, capture_output=True, check=True).stdout
    _put(root / "usr/share/bash-completion/completions/smfix", words.lstrip())
    for name in ("README.md", "CHANGELOG.md", "SECURITY.md"):
        if (ROOT / name).exists():
            _put(root / f"usr/share/doc/smfix/{name}", (ROOT / name).read_bytes())
    _put(root / "usr/share/doc/smfix/copyright", (ROOT / "LICENSE").read_bytes())
    _put(root / "usr/share/doc/smfix/third-party.txt", program.with_name("smfix.third-party.txt").read_bytes())


def _put(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def rpm(program: Path, work: Path, dist: Path, version: str, policy: str | None = None) -> Path:
    """The RPM, with the service's unit and its policy."""
    tree, top = work / "rpm" / "tree", work / "rpm" / "top"
    common(program, tree)
    _put(tree / "usr/lib/systemd/system/smfix.service", unit().encode())
    _put(tree / POLICY[1:], (policy or (HERE / "policy.toml").read_text(encoding="utf-8")).encode(), 0o600)
    (tree / "var/lib/smfix").mkdir(parents=True, mode=0o700)
    words = {"VERSION": version, "SUMMARY": SUMMARY, "DESCRIPTION": textwrap.fill(DESCRIPTION, 78), "TREE": tree}
    spec = work / "rpm" / "smfix.spec"
    spec.write_text(filled(HERE / "rpm" / "smfix.spec.in", words), encoding="utf-8")
    _dated(tree)
    line = ["rpmbuild", "-bb", "--quiet", "--target", "x86_64", "--define", f"_topdir {top}", str(spec)]
    subprocess.run(line, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(commit_time()), "LC_ALL": "C.UTF-8"})
    made = next((top / "RPMS" / "x86_64").glob(f"smfix-{version}-1.x86_64.rpm"))
    return Path(shutil.copy2(made, dist))


def deb(program: Path, work: Path, dist: Path, version: str) -> Path:
    """The .deb: no service, for a workstation has no SMlog; `smfix service install` makes one where it is wanted."""
    tree = work / "deb"
    common(program, tree)
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    prose = textwrap.fill(DESCRIPTION, 76, initial_indent=" ", subsequent_indent=" ")
    words = {"VERSION": version, "SUMMARY": SUMMARY, "DESCRIPTION": prose, "KIBIBYTES": -(-size // 1024)}
    _put(tree / "DEBIAN/control", filled(HERE / "deb" / "control.in", words).encode())
    _put(tree / "DEBIAN/md5sums", _md5sums(tree).encode())
    _dated(tree)
    made = dist / f"smfix_{version}_amd64.deb"
    line = ["dpkg-deb", "--build", "--root-owner-group", "-Zxz", str(tree), str(made)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(commit_time())}
    subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL)
    return made


def _md5sums(tree: Path) -> str:
    files = sorted(path for path in tree.rglob("*") if path.is_file() and "DEBIAN" not in path.parts)
    sums = ((hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), path) for path in files)
    return "".join(f"{digest}  {path.relative_to(tree)}\n" for digest, path in sums)


def _dated(tree: Path) -> None:
    """Give all of `tree` the commit's time."""
    for path in (*tree.rglob("*"), tree):
        os.utime(path, (commit_time(), commit_time()))


if __name__ == "__main__":
    sys.exit(main())
