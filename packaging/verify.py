"""Prove the self-contained smfix in an empty chroot: ``make dist-check`` runs it, as root.

The chroot holds the file, /tmp and /proc: no C library, no Python, no shell, no /dev. What smfix does there is
compared with what the same smfix does outside, run by the Python of build/tools. Programs of the host are played
by a static one that writes down its arguments and its environment. Prints a table; the exit code is the number of
rows that do not hold. ``--write FILE`` keeps the table.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import smfix
from smfix.demo.disks import DISKS, SR
from smfix.demo.run import Stage, build
from smfix.values import Status

ROOT = Path(__file__).resolve().parent.parent
TOLD = "/told"
TOOL = r"""
#include <stdio.h>
#include <string.h>
extern char **environ;
int main(int argc, char **argv) {
    char name[256];
    const char *base = strrchr(argv[0], '/');
    snprintf(name, sizeof name, "/told/%s", base ? base + 1 : argv[0]);
    FILE *file = fopen(name, "a");
    if (!file) return 9;
    for (int i = 0; i < argc; i++) fprintf(file, "argv %s\n", argv[i]);
    for (char **each = environ; *each; each++) fprintf(file, "env %s\n", *each);
    return fclose(file) != 0;
}
"""
CALLER = {"PATH": "/tools", "HOME": "/", "LD_LIBRARY_PATH": "/caller/lib", "LC_ALL": "C.UTF-8", "EDITOR": "ed"}
MARKS = re.compile(r"^env (LD_|STATICX_|_PYI_|_MEI|PYINSTALLER)")


class Failed(Exception):
    """A row does not hold; the words say what was seen."""


def expect(holds: object, *seen: object) -> None:
    """Raise Failed with what was `seen`, unless it `holds`."""
    if not holds:
        raise Failed(" ".join(str(each) for each in seen)[-600:])


class Chroot:
    """An empty root with the file in it."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder = folder
        self.stage: Stage | None = None  # where the damaged disks are, once they are made
        for name in ("tmp", "proc"):
            (folder / name).mkdir()
        (folder / "tmp").chmod(0o1777)
        shutil.copy2(program, folder / "smfix")

    def start(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """``smfix`` in the root, with `env` and nothing else as its environment."""

        def enter() -> None:
            os.chroot(self.folder)
            os.chdir("/")

        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        line = [words[0] if words[0].startswith(("/", "./")) else "/smfix", *words[words[0].startswith(("/", "./")) :]]
        return subprocess.Popen(line, env=env or {}, text=True, preexec_fn=enter, **given)

    def run(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> tuple[int, str, str]:
        """The same to its end: exit code, stdout, stderr."""
        with self.start(*words, env=env, **options) as process:
            out, err = process.communicate(timeout=300)
        return process.returncode, out or "", err or ""

    def left(self, where: str = "tmp") -> list[str]:
        """Unpacked folders that are there."""
        return sorted(path.name for path in (self.folder / where).glob("staticx-*"))

    def processes(self) -> list[int]:
        """Every process whose root this is."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "root") == str(self.folder):
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def chroot(program: Path) -> Iterator[Chroot]:
    """An empty root, with its /proc mounted; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="smfix-verify-"))
    mounted = [folder / "proc"]
    try:
        root = Chroot(folder, program)
        subprocess.run(["mount", "-t", "proc", "proc", str(mounted[0])], check=True)
        for name, option in (("noexec", "noexec"), ("full", "size=4m")):
            (folder / name).mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", option, "none", str(folder / name)], check=True)
            mounted.append(folder / name)
        yield root
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", "-l", str(place)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


# --------------------------------------------------------------------------- the rows


def starts(root: Chroot) -> str:
    """It starts, with no file of the host but its own."""
    there = sorted(path.name for path in root.folder.iterdir() if path.name not in ("noexec", "full"))
    expect(there == ["proc", "smfix", "tmp"], there)
    code, out, err = root.run("--version")
    expect((code, out) == (0, f"smfix {smfix.__version__}\n"), code, out, err)
    for name in ("", "from-log", "scan"):
        code, out, err = root.run(*([name] if name else []), "--help")
        expect(code == 0 and "Usage: smfix" in out, code, out, err)
    return out and f"smfix {smfix.__version__}"


def demo(root: Chroot) -> str:
    """`smfix demo`: every claim of it."""
    code, out, err = root.run("demo")
    expect(code == 0, code, out, err)
    found = re.search(r"^(\d+) of (\d+) claims proved", out, re.MULTILINE)
    expect(found and found.group(1) == found.group(2), out)
    return out.splitlines()[-1]


def _stage(root: Chroot) -> Stage:
    (root.folder / "sr").mkdir()
    stage = Stage(str(root.folder / "sr"), lambda _: None)
    build(stage)
    return stage


def _rotated(root: Chroot, stage: Stage) -> Path:
    """The demo's log as the newest part of a rotated set that is worth more than one process."""
    folder = root.folder / "log"
    folder.mkdir()
    sys.path.insert(0, str(ROOT / "tools" / "benchmarks"))
    program = [sys.executable, str(ROOT / "tools" / "benchmarks" / "make_smlog.py")]
    for number, size in ((3, 8 << 20), (2, 30 << 20), (1, 40 << 20)):
        subprocess.run([*program, str(folder / f"SMlog.{number}"), str(size), str(number)], check=True)
    for number in (3, 2):
        path = folder / f"SMlog.{number}"
        with gzip.open(f"{path}.gz", "wb", compresslevel=1) as packed:
            packed.write(path.read_bytes())
        path.unlink()
    shutil.copy(stage.log, folder / "SMlog")
    return folder


def _facts(document: str, prefix: str) -> list[tuple[Any, ...]]:
    incidents = json.loads(document.replace(prefix, ""))["incidents"]
    return [
        (one["id"], one["vdi"], one["sr"], one["path"], one["kinds"], one["first_seen"], one["count"], one["state"],
         one["evidence"], one["outcome"] and (one["outcome"]["status"], one["outcome"]["reason"],
                                              one["outcome"]["plan"]))
        for one in incidents
    ]  # fmt: skip


def from_log(root: Chroot) -> str:
    """`from-log` on a rotated set: in several processes, and what the unpacked smfix finds."""
    stage = _stage(root)
    folder = _rotated(root, stage)
    line = ["from-log", "/log", "--json", "--dry-run", "--sr-mount", "/sr/sr-mount"]
    with root.start(*line) as process:
        most = 0
        while process.poll() is None and most < 3:
            most = max(most, len(root.processes()))
            time.sleep(0.002)
        out, err = process.communicate(timeout=300)
    outside = [sys.executable, "-m", "smfix", "from-log", str(folder), "--json", "--dry-run"]
    done = subprocess.run([*outside, "--sr-mount", stage.mount], capture_output=True, text=True, check=False)
    expect(process.returncode == done.returncode == 4, process.returncode, err, done.returncode, done.stderr)
    inside = _facts(out, "\0")
    expect(inside == _facts(done.stdout, str(root.folder)), "other incidents than outside")
    wanted = min(2, len(os.sched_getaffinity(0))) + 1
    expect(most >= wanted, f"{most} processes at most, {wanted} expected")
    root.stage = stage
    return f"{len(inside)} incidents, the same as outside; read by {most - 1} processes beside the one that unpacked"


def repaired_and_undone(root: Chroot) -> str:
    """The log's disks are repaired to the same bytes as outside; undone, each is as it was."""
    stage = root.stage
    if stage is None:
        raise Failed("there is no log")
    twin = root.folder.with_name(root.folder.name + "-twin")
    shutil.copytree(stage.folder, twin)
    try:
        words = ["--yes", "--json", "--no-rescan"]
        places = ["--journal-dir", "/state/journal", "--sm-lock-dir", "/state/locks"]
        (root.folder / "state" / "locks").mkdir(parents=True)
        (root.folder / "sr" / "SMlog").rename(root.folder / "log" / "SMlog")
        line = ["from-log", "/log/SMlog", "--sr-mount", "/sr/sr-mount", *words, *places, "--html", "/tmp/page.html"]
        code, out, err = root.run(*line)
        expect(code == 5, code, out, err)
        expect((root.folder / "tmp" / "page.html").stat().st_size > 10_000, "no page")
        other = [sys.executable, "-m", "smfix", "from-log", str(twin / "SMlog"), "--sr-mount", str(twin / "sr-mount")]
        other += [*words, "--journal-dir", str(twin / "journal"), "--sm-lock-dir", str(root.folder / "state" / "locks")]
        subprocess.run(other, capture_output=True, text=True, check=False)
        repaired = [one["outcome"] for one in json.loads(out)["incidents"] if one["outcome"]["status"] == "repaired"]
        wanted = sum(disk.expect is Status.REPAIRED or bool(disk.held) for disk in DISKS)  # nobody holds one here
        expect(len(repaired) == wanted, f"{len(repaired)} repaired, not {wanted}")
        for disk in DISKS:
            same = (twin / "sr-mount" / SR / disk.name).read_bytes() == stage.content(disk)
            expect(same, f"{disk.vdi} was repaired to other bytes than outside")
        expect(any(stage.content(disk) != stage.before[disk.vdi] for disk in DISKS), "nothing was written")
        for outcome in reversed(repaired):
            code, out, err = root.run("undo", outcome["journal"], "--yes", "--json", *places)
            expect(code in (0, 1), code, out, err)
        for disk in DISKS:
            expect(stage.content(disk) == stage.before[disk.vdi], f"{disk.vdi} is not as it was")
        return f"{len(repaired)} repaired, {len(repaired)} undone"
    finally:
        shutil.rmtree(twin, ignore_errors=True)


def scans(root: Chroot) -> str:
    """`scan` of 300 images, where there is no /dev/shm."""
    folder = root.folder / "many" / SR
    folder.mkdir(parents=True)
    sound = next(disk for disk in DISKS if not disk.held)
    made = sound.made()
    for number in range(300):
        (folder / f"00000000-0000-4000-8000-{number:012d}.vhd").write_bytes(made)
    code, out, err = root.run("scan", SR, "--sr-mount", "/many", "--json")
    expect(code in (0, 4), code, out[-300:], err)
    found = json.loads(out)
    images = found.get("images") or [each for sr in found.get("srs", []) for each in sr["images"]]
    expect(len(images) == 300, len(images))
    shutil.rmtree(root.folder / "many")
    return "300 images"


def environment(root: Chroot) -> str:
    """A program of the host sees its caller's environment, nothing of the unpacking."""
    tools = root.folder / "tools"
    tools.mkdir()
    (root.folder / "told").mkdir()
    compiler = shutil.which("cc") or shutil.which("gcc")
    expect(compiler, "no C compiler: apt-get install gcc libc6-dev")
    source = tools / "tool.c"
    source.write_text(TOOL, encoding="ascii")
    subprocess.run([str(compiler), "-static", "-O1", "-o", str(tools / "tool"), str(source)], check=True)
    for name in ("vhd-util", "tap-ctl", "lvs", "systemctl", "hook"):
        shutil.copy2(tools / "tool", tools / name)
    line = ["from-log", "/log/SMlog", "--sr-mount", "/sr/sr-mount", "--yes", "--json", "--journal-dir", "/state/again"]
    code, out, err = root.run(*line, "--sm-lock-dir", "/state/locks", env=CALLER)
    expect(code == 5, code, out, err)
    (root.folder / "run" / "systemd" / "system").mkdir(parents=True)
    (root.folder / "etc" / "systemd" / "system").mkdir(parents=True)
    code, out, err = root.run("service", "install", "--yes", env=CALLER)
    expect(code == 0, code, out, err)
    _hooked(root)
    group = root.folder / "dev" / f"VG_XenStorage-{SR}"  # an LVM SR that is attached
    group.mkdir(parents=True)
    root.run("scan", SR, "--sr-mount", "/sr/sr-mount", env=CALLER)
    shutil.rmtree(group.parent)
    told = {path.name: path.read_text(encoding="utf-8") for path in (root.folder / "told").iterdir()}
    expect({"vhd-util", "systemctl", "hook", "lvs"} <= told.keys(), sorted(told))
    for name, text in told.items():
        lines = text.splitlines()
        expect(not [each for each in lines if MARKS.match(each)], name, text)
        expect("env PATH=/tools" in lines and "env EDITOR=ed" in lines and "env LC_ALL=C" in lines, name, text)
    expect("argv daemon-reload" in told["systemctl"], told["systemctl"])
    return f"{', '.join(sorted(told))} ran, and none saw a variable of the unpacking"


def _hooked(root: Chroot) -> None:
    policy = root.folder / "policy.toml"
    policy.write_text(
        'version = 1\ndry-run = true\n[[hook]]\ncommand = ["/tools/hook", "told"]\ntimeout = 10\n', encoding="ascii"
    )
    line = ["from-log", "/log/SMlog", "-f", "--policy", "/policy.toml", "--state-dir", "/state/follow", "--json"]
    with root.start(*line, "--sr-mount", "/sr/sr-mount", env=CALLER) as process:
        ends = time.monotonic() + 30
        while not (root.folder / "told" / "hook").exists() and time.monotonic() < ends:
            time.sleep(0.05)
        told = root.run("service", "reload", "--state-dir", "/state/follow", env=CALLER)
        process.terminate()
        _, err = process.communicate(timeout=30)
    expect(process.returncode == 0, process.returncode, err)
    expect(told[0] == 0 and "the policy was read again" in err, told, err)


def own_name(root: Chroot) -> str:
    """It knows its own file: in a unit, by a link, by a relative name; messages say smfix."""
    (root.folder / "units").mkdir()
    (root.folder / "link").symlink_to("/smfix")
    for name in ("/smfix", "/link", "./smfix"):
        root.run(name, "service", "install", "--unit-dir", "/units")
        text = (root.folder / "units" / "smfix.service").read_text(encoding="utf-8")
        expect("\nExecStart=/smfix from-log --follow /var/log/SMlog\n" in text, text)
        expect("\nExecReload=/smfix service reload\n" in text, text)
    code, out, err = root.run("chek")
    expect(code == 16 and err.startswith("smfix: "), code, out, err)
    code, out, err = root.run("check", "/sr/none.vhd")
    expect(code == 8 and "Traceback" not in err, code, out, err)
    return "ExecStart=/smfix, also when started by a link"


def temporary_folder(root: Chroot) -> str:
    """TMPDIR missing, mounted noexec, full: one line that says so; another one serves."""
    for name, words in (
        ("nowhere", r"smfix: .*/nowhere: No such file or directory\n"),
        ("noexec", r"smfix /noexec/\S+: Permission denied; set TMPDIR\n"),
        ("full", r"smfix: no space left in TMPDIR\?.*\n"),
    ):
        code, out, err = root.run("--version", env={"TMPDIR": f"/{name}"})
        expect(code in (2, 3) and not out and re.fullmatch(words, err), name, code, out, err)
    (root.folder / "other").mkdir()
    code, out, err = root.run("--version", env={"TMPDIR": "/other"})
    expect(code == 0 and not root.left("other"), code, out, err)
    return "each is one line; exit code 2 or 3"


def signals(root: Chroot) -> str:
    """SIGTERM and SIGINT end it with its own exit code and leave nothing; SIGKILL leaves no writer behind."""
    line = ["from-log", "/log/SMlog", "-f", "--state-dir", "/state/signals", "--since", "now"]
    for number in (signal.SIGTERM, signal.SIGINT):
        with root.start(*line) as process:
            _until(lambda: len(root.processes()) == 2 and _follows(root), "it does not follow")
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        expect(process.returncode == 0, number, process.returncode, err)
        expect(not root.left(), number, root.left())
    with root.start(*line) as process:
        _until(lambda: len(root.processes()) == 2 and _follows(root), "it does not follow")
        process.kill()
        _until(lambda: not root.processes(), "its child lives on")
    expect(len(root.left()) == 1, root.left())
    root.run("--version")
    expect(not root.left(), root.left())
    return "0 and nothing left; after SIGKILL the child ends too, and the next run removes the folder"


def _follows(root: Chroot) -> bool:
    code, out, _ = root.run("status", "--state-dir", "/state/signals", "--json")
    return code in (0, 4) and any(one["running"] for one in json.loads(out)["followers"])


def _until(holds: Callable[[], bool], words: str) -> None:
    ends = time.monotonic() + 30
    while not holds():
        expect(time.monotonic() < ends, words)
        time.sleep(0.05)


def closed_streams(root: Chroot) -> str:
    """Started without standard streams, no image gets the report."""
    for closed in ((0,), (1,), (0, 1, 2)):

        def enter(closed: tuple[int, ...] = closed) -> None:
            os.chroot(root.folder)
            os.chdir("/")
            for number in closed:
                os.close(number)

        done = subprocess.run(
            ["/smfix", "explain", "VHD101"], env={}, preexec_fn=enter, stdout=subprocess.DEVNULL, check=False
        )
        expect(done.returncode == 0, closed, done.returncode)
    return "0; 1; 0, 1 and 2"


def tls(root: Chroot) -> str:
    """XAPI of a remote pool over TLS: its certificate verified with the CA that is named, refused without."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from xapi_host import PASSWORD, XapiHost, certificates

    server = XapiHost(SR, shared=False)
    for disk in DISKS:
        server.vdi(disk.vdi)
    authority, certificate, key = certificates(root.folder / "tmp")
    port = server.listen_tls(certificate, key)
    try:
        login = root.folder / "login.toml"
        url = f'url = "https://127.0.0.1:{port}"\nuser = "admin"\npassword = "{PASSWORD}"\n'
        line = ["check", "/sr/sr-mount/" + SR, "--xapi-login", "/login.toml", "--json"]
        login.touch(mode=0o600)
        login.write_text(url, encoding="ascii")
        refused = root.run(*line)
        expect(not server.calls, server.calls)
        login.write_text(f'{url}ca = "/tmp/{authority.name}"\n', encoding="ascii")
        code, out, err = root.run(*line)
        expect(code in (0, 4) and server.calls, code, out, err, server.calls)
        expect("not to be trusted" in refused[2] + refused[1], refused)
    finally:
        server.stop()
    return f"{len(server.calls)} calls after the certificate was verified, none before"


def nothing_is_left(root: Chroot) -> str:
    """After all of this the temporary folder is empty of it, and no process is left."""
    _until(lambda: not root.processes(), "processes are left")
    expect(not root.left(), root.left())
    return "no folder, no process"


ROWS = (
    starts, demo, from_log, repaired_and_undone, scans, environment, own_name, temporary_folder, signals,
    closed_streams, tls, nothing_is_left,
)  # fmt: skip


def check(program: Path) -> list[tuple[str, str, bool]]:
    """(what, what was seen, whether it holds) for every row."""
    seen = []
    with chroot(program) as root:
        for row in ROWS:
            what = " ".join((row.__doc__ or "").split())
            try:
                seen.append((what, row(root), True))
            except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                seen.append((what, f"{type(error).__name__}: {error}", False))
            print(f"{'ok    ' if seen[-1][2] else 'FAILED'}  {what} [{seen[-1][1]}]", flush=True)
    return seen


def same(one: bytes, other: bytes) -> tuple[str, str, bool]:
    """The row of two builds."""
    what = "Built twice, in two folders, it is the same file."
    if one == other:
        return what, f"{len(one):,} bytes", True
    pairs = zip(one, other, strict=False)
    where = [number for number, (a, b) in enumerate(pairs) if a != b]
    words = f"{len(one):,} and {len(other):,} bytes; {len(where):,} differ" + (f", from {where[0]:,}" if where else "")
    return what, words, False


def main() -> int:
    """Check ``dist/smfix``; the number of rows that do not hold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--program", type=Path, default=ROOT / "dist" / "smfix")
    options.add_argument("--again", type=Path, help="another build of the same commit, to be compared")
    options.add_argument("--write", type=Path)
    given = options.parse_args()
    if os.geteuid() != 0:
        print("a chroot needs root", file=sys.stderr)
        return 1
    digest = hashlib.sha256(given.program.read_bytes()).hexdigest()
    noted = given.program.with_name(given.program.name + ".sha256").read_text(encoding="ascii").split()[0]
    rows = [] if given.again is None else [same(given.program.read_bytes(), given.again.read_bytes())]
    rows += [("The SHA-256 beside it is its own.", digest, digest == noted), *check(given.program)]
    if given.write:
        table = "".join(f"| {what} | {seen} | {'yes' if holds else '**no**'} |\n" for what, seen, holds in rows)
        given.write.write_text(f"| in the empty chroot | seen | holds |\n|---|---|---|\n{table}", encoding="utf-8")
    return sum(not holds for _, _, holds in rows)


if __name__ == "__main__":
    sys.exit(main())
