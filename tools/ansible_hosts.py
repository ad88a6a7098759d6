"""A pool on one machine, driven by Ansible: hosts in namespaces of their own, each with sshd, a log and SRs.

``make ansible`` runs it as root with the file that ``make dist`` built. Each host is a network, mount, UTS and
process namespace with a file tree of its own in the places that matter (/etc, /run, /tmp, /var/log, /var/lib/smfix,
/opt, /root), reached by ssh over a bridge. What they are:

========== ====================================================== =========
host       is                                                     Python
========== ====================================================== =========
master     pool's master (an ``xe`` that says so); shared SR      none
member     of the same pool; the same shared SR, and its own      none
full       the file system of its journals is full                yes
busy       of its two damaged disks one is held open for writing  yes
gone       in the inventory, and nobody is there                  -
calm       its log names nothing                                  yes
========== ====================================================== =========

Needs root, sshd, ip and unshare. Leaves nothing behind but the folder of ``--keep``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smfix.formats.vhd import build as build_module

ROOT = Path(__file__).resolve().parents[1]
COLLECTIONS = ROOT / "ansible"
NET = "198.18.77"  # for tests of networks (RFC 2544); only on the bridge
BRIDGE = "smfixtest0"
SHARED = "5a5a5a5a-0000-4000-8000-00000000aaaa"
POOL = {"master": "aaaaaaaa-0000-4000-8000-000000000001", "member": "aaaaaaaa-0000-4000-8000-000000000002"}
PYTHONS = "/usr/bin/python3 /usr/bin/python3.11 /usr/bin/python /usr/local/bin/python3 /usr/local/bin/python"

FOOTER_LOST = """\
Nov 20 10:0{n}:35 {host} SM: [26919] FAILED in util.pread: (rc 22) stdout: 'primary footer invalid: invalid cookie
{path} appears invalid; dumping metadata
', stderr: ''
Nov 20 10:0{n}:36 {host} SMGC: [26919] coalesce: EXCEPTION <class 'util.SMException'>, VHD *{short}(40G/14G) corrupted
"""


def vdi(number: int) -> str:
    """The UUID of a test's disk."""
    return f"{number:08x}-1111-4000-8000-{number:012x}"


def sr_of(number: int) -> str:
    """The UUID of host `number`'s own SR."""
    return f"{number:08x}-0000-4000-8000-00000000bbbb"


def damaged(number: int) -> bytes:
    """An image whose end footer is overwritten."""
    data = {0: {n: bytes([n % 251]) * 512 for n in range(64)}, 1: {5: vdi(number).encode().ljust(512, b".")}}
    return build_module.sparse(8 << 20, os.urandom(16), data).to_bytes()[:-512] + b"x" * 512


@dataclass
class Host:
    """One host. `disks` are (SR, VDI number) that its log names."""

    name: str
    number: int
    has_python: bool = True
    disks: list[tuple[str, int]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{NET}.{10 + self.number}"

    @property
    def link(self) -> str:
        return f"smfixt{self.number}"

    @property
    def space(self) -> str:
        return f"smfixtest-{self.name}"


class Pool:
    """The hosts, and the folder in which their trees lie."""

    def __init__(self, place: Path) -> None:
        self.place = place
        own = {name: (sr_of(n), n) for n, name in enumerate(("master", "member", "full", "busy"), 1)}
        self.hosts = [
            Host("master", 1, has_python=False, disks=[own["master"], (SHARED, 100)]),
            Host("member", 2, has_python=False, disks=[own["member"], (SHARED, 100)]),
            Host("full", 3, disks=[own["full"]]),
            Host("busy", 4, disks=[own["busy"], (own["busy"][0], 40)]),
            Host("calm", 5),
        ]
        self.before: dict[Path, bytes] = {}

    def file(self, sr: str, number: int) -> Path:
        return self.place / "sr" / sr / f"{vdi(number)}.vhd"

    # ------------------------------------------------------------------ building

    def build(self) -> None:
        """Make images, logs and keys."""
        for host in self.hosts:
            log = self.place / host.name / "log"
            log.mkdir(parents=True)
            text = f"Nov 20 09:00:00 {host.name} SM: [100] lock: opening lock file /var/lock/sm/running\n"
            for n, (sr, number) in enumerate(host.disks):
                path = self.file(sr, number)
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(damaged(number))
                    self.before[path] = path.read_bytes()
                there = f"/run/sr-mount/{sr}/{vdi(number)}.vhd"
                text += FOOTER_LOST.format(n=n, host=host.name, path=there, short=vdi(number)[:8])
            (log / "SMlog").write_text(text)
        for name in ("client", "server"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.place / name))
        (self.place / "authorized").write_text((self.place / "client.pub").read_text())

    def start(self) -> None:
        """A bridge, and each host in its namespaces."""
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{NET}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for host in self.hosts:
            run("ip", "netns", "add", host.space)
            run("ip", "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.space)
            run("ip", "link", "set", host.link, "master", BRIDGE, "up")
            inside = ["ip", "-n", host.space]
            run(*inside, "link", "set", "lo", "up")
            run(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
            run(*inside, "link", "set", "eth0", "up")
            script = self.place / host.name / "start.sh"
            script.write_text(self._script(host))
            line = ["ip", "netns", "exec", host.space, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
            line += ["--mount-proc", "sh", "-eu", str(script)]
            with (self.place / host.name / "console").open("wb") as console:
                host.process = subprocess.Popen(line, stdout=console, stderr=console)
        for host in self.hosts:
            self._wait(host)

    def _script(self, host: Host) -> str:
        here = self.place / host.name
        lines = [
            f"hostname {host.name}",
            f"mount --bind {here}/log /var/log",
            "mkdir -p /var/lib/smfix /opt",
            *(f"mount -t tmpfs -o mode=755 none {folder}" for folder in ("/var/lib/smfix", "/opt", "/run")),
            "mount -t tmpfs -o mode=1777 none /tmp",
            "mkdir -p /run/sshd /run/etc /run/work /run/bin /run/lock/sm",
            "mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc",
        ]
        for sr in dict.fromkeys(sr for sr, _ in host.disks):
            lines += [f"mkdir -p /run/sr-mount/{sr}", f"mount --bind {self.place}/sr/{sr} /run/sr-mount/{sr}"]
        if host.name in POOL:
            lines += [
                f"echo \"INSTALLATION_UUID='{POOL[host.name]}'\" > /etc/xensource-inventory",
                "cat > /run/bin/xe <<'END'",
                "#!/bin/sh",
                'case "$*" in',
                f"'pool-list params=master --minimal') echo {POOL['master']} ;;",
                f"'sr-list shared=true params=uuid --minimal') echo {SHARED} ;;",
                "*) exit 1 ;;",
                "esac",
                "END",
                "chmod 755 /run/bin/xe",
                "mount --bind /run/bin /usr/local/bin",
            ]
        if not host.has_python:
            over = "if [ -e $p ]; then mount --bind /run/nothing $p; fi"
            lines.append(f": > /run/nothing; for p in {PYTHONS}; do {over}; done")
        lines.append("mount -t tmpfs -o mode=700 none /root")
        if host.name == "full":
            lines += [
                "mount -t tmpfs -o mode=755,size=64k none /var/lib/smfix",
                "dd if=/dev/zero of=/var/lib/smfix/filler bs=4k count=64 2>/dev/null || true",
            ]
        if host.name == "busy":
            held = f"/run/sr-mount/{sr_of(4)}/{vdi(40)}.vhd"
            lines.append(f"sh -c 'exec 7<>{held}; exec sleep 100000' &")
        options = (
            f"ListenAddress={host.address} HostKey={self.place}/server AuthorizedKeysFile={self.place}/authorized "
            "StrictModes=no UsePAM=no PidFile=none PermitRootLogin=yes"
        )
        words = " ".join(f"-o {word}" for word in options.split())
        # Today's scp speaks SFTP; sshd brings its server along.
        lines.append(f"exec /usr/sbin/sshd -D -e -f /dev/null {words} -o 'Subsystem=sftp internal-sftp'")
        return "\n".join(lines) + "\n"

    def _wait(self, host: Host) -> None:
        ends = time.monotonic() + 20
        while self.ssh(host, "true").returncode != 0:
            if time.monotonic() > ends:
                raise SystemExit(f"{host.name} does not answer: {(self.place / host.name / 'console').read_text()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End every host, and take the bridge away."""
        for host in self.hosts:
            if host.process is not None and host.process.poll() is None:
                host.process.send_signal(signal.SIGKILL)  # --kill-child: all of it
                host.process.wait()
            # By name, for the kernel takes its time to take a namespace apart.
            for line in (["link", "del", host.link], ["netns", "del", host.space]):
                subprocess.run(["ip", *line], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], stderr=subprocess.DEVNULL, check=False)

    # ------------------------------------------------------------------ asking

    def ssh_options(self) -> list[str]:
        known = f"-o UserKnownHostsFile={self.place}/known -o StrictHostKeyChecking=no"
        return f"{known} -o ConnectTimeout=3 -o LogLevel=ERROR".split()

    def ssh(self, host: Host, command: str) -> subprocess.CompletedProcess[str]:
        line = ["ssh", "-i", str(self.place / "client"), *self.ssh_options(), f"root@{host.address}", command]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def inventory(self) -> Path:
        path = self.place / "inventory"
        names = {host.name: host.address for host in self.hosts} | {"gone": f"{NET}.99"}
        lines = ["[xen]"]
        lines += [f"{name} ansible_host={names[name]}" for name in ("master", "member", "full", "gone", "busy", "calm")]
        lines += [
            "[xen:vars]",
            "ansible_user=root",
            f"ansible_ssh_private_key_file={self.place}/client",
            f"ansible_ssh_common_args='{' '.join(self.ssh_options())}'",
        ]
        path.write_text("\n".join(lines) + "\n")
        return path

    def state(self) -> dict[str, tuple[str, int]]:
        """Every image: what is in it, and when it was written."""
        return {
            path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in self.before
        }

    def journals(self, host: Host) -> list[str]:
        return self.ssh(host, "ls /var/lib/smfix/journal 2>/dev/null || true").stdout.split()


def run(*words: str) -> None:
    """A command that must succeed."""
    subprocess.run(words, check=True)


@contextmanager
def pool(place: Path) -> Iterator[Pool]:
    """Six hosts, five of them there."""
    hosts = Pool(place)
    hosts.build()
    hosts.stop()  # what a killed run left
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()


# --------------------------------------------------------------------------- the show


class Show:
    """What is claimed, seen or not; `rows` are for the record."""

    def __init__(self, hosts: Pool, bin_folder: Path, executable: Path) -> None:
        self.hosts, self.bin, self.executable = hosts, bin_folder, executable
        self.rows: list[tuple[str, bool, str]] = []
        self.results = hosts.place / "results"

    def claim(self, what: str, holds: object, seen: object = "") -> None:
        """A claim, and what was seen of it."""
        self.rows.append((what, bool(holds), str(seen)))
        print(f"{'ok ' if holds else 'NOT'}  {what}" + (f"  [{seen}]" if seen != "" else ""), flush=True)

    def play(self, book: str, *words: str, executable: Path | None = None) -> tuple[int, str, dict[str, Any]]:
        """Run a playbook; its exit code, what it said, and the recap by host."""
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_HOME": str(self.hosts.place / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        line = [str(self.bin / "ansible-playbook"), "-i", str(self.hosts.inventory()), f"smfix.remediation.{book}"]
        line += ["-e", f"smfix_executable={executable or self.executable}", "-e", f"smfix_results={self.results}"]
        done = subprocess.run(
            [*line, *words], capture_output=True, text=True, check=False, env=environment, cwd=self.hosts.place
        )
        (self.hosts.place / f"{len(self.rows):02}-{book}.log").write_text(done.stdout + done.stderr)
        recap: dict[str, Any] = {}
        for row in done.stdout.partition("PLAY RECAP")[2].splitlines()[1:]:
            host, _, counts = row.partition(":")
            if counts.strip():
                recap[host.strip()] = {name: int(n) for name, n in (pair.split("=") for pair in counts.split())}
        return done.returncode, done.stdout, recap

    def statuses(self, host: str) -> list[tuple[str, str | None]]:
        document = json.loads((self.results / f"{host}.json").read_text())
        return [(one["outcome"]["status"], one["outcome"]["reason"]) for one in document.get("incidents", ())]

    def report(self) -> dict[str, Any]:
        return json.loads((self.results / "report" / "fleet.json").read_text())

    # ------------------------------------------------------------------ the acts

    def all(self) -> None:
        self.preparation()
        self.dry_run()
        self.surprise()
        self.repair()
        self.again()
        self.undo()

    def preparation(self) -> None:
        for host in self.hosts.hosts:
            asked = "for p in python3 python python2; do $p -c 'print(1)'; done 2>/dev/null"
            is_there = bool(self.hosts.ssh(host, asked).stdout)
            words = "there" if host.has_python else "none that runs"
            self.claim(f"{host.name}: Python is {words}", is_there is host.has_python)
        names = {self.hosts.ssh(host, "hostname").stdout.strip() for host in self.hosts.hosts}
        self.claim("each host has its own name", names == {host.name for host in self.hosts.hosts})

    def dry_run(self) -> None:
        before = self.hosts.state()
        code, said, _ = self.play("remediate", "--check", "--diff")
        self.claim("check mode: the play ends well", code == 0, code)
        self.claim("check mode: no image was written", self.hosts.state() == before)
        self.claim("check mode: no journal was made", not any(self.hosts.journals(host) for host in self.hosts.hosts))
        self.claim("diff mode: the plan is shown", "512 bytes at offset" in said)
        told = self.statuses("master")
        self.claim("check mode: says what would be done", told == [("would-repair", None)] * 2, told)
        left = self.report()["summary"]["left"]
        self.claim("check mode: the report is made", left == 6, f"{left} left")

    def surprise(self) -> None:
        bad = self.hosts.place / "not-smfix"
        bad.write_text("#!/bin/sh\necho Segmentation fault\nexit 139\n")
        bad.chmod(0o755)
        sums = {host.name: self.installed(host) for host in self.hosts.hosts}
        before = self.hosts.state()
        code, _, _ = self.play("remediate", executable=bad)
        changed = [host.name for host in self.hosts.hosts if self.installed(host) != sums[host.name]]
        self.claim("a surprise: the play fails", code != 0, code)
        self.claim("a surprise: it stops at the first host, no other is touched", changed == ["master"], changed)
        self.claim("a surprise: no image was written", self.hosts.state() == before)
        kept = (self.results / "master.json").read_text()
        self.claim("a surprise: the first host's answer is kept", "does not answer" in kept)

    def installed(self, host: Host) -> str:
        return self.hosts.ssh(host, "sha256sum /opt/smfix/smfix").stdout

    def repair(self) -> None:
        before = self.hosts.state()
        code, _, recap = self.play("remediate")
        self.claim("the play ends well though one host is not there", code == 0, code)
        told = self.statuses("master")
        self.claim("master: its own disk and the shared one are repaired", told == [("repaired", None)] * 2, told)
        told = self.statuses("member")
        expected = {("repaired", None), ("refused", "policy")}
        self.claim("member: its own is repaired, the shared one left to the master", set(told) == expected, told)
        shared = [
            host.name for host in self.hosts.hosts for name in self.hosts.journals(host) if self.holds(host, name)
        ]
        self.claim("the shared disk was repaired once, on its master", shared == ["master"], shared)
        told = self.statuses("full")
        self.claim("full: reported, and nothing was written", told == [("failed", None)], told)
        told = self.statuses("busy")
        expected = {("repaired", None), ("refused", "in-use")}
        self.claim("busy: the disk in use was left, the other repaired", set(told) == expected, told)
        self.claim("calm: nothing to do", self.statuses("calm") == [])
        now = self.hosts.state()
        untouched = {self.hosts.file(sr_of(3), 3).name, self.hosts.file(sr_of(4), 40).name}
        changed = {name for name in now if now[name] != before[name]}
        self.claim("exactly the repaired images changed", changed == set(now) - untouched, len(changed))
        self.claim("every repaired image is valid, and no other", self.checked() == set(now) - untouched)
        busy = {name for name, one in recap.items() if one["changed"]}
        self.claim("those hosts count as changed, and no other", busy == {"master", "member", "busy"}, sorted(busy))
        self.reported()

    def reported(self) -> None:
        report = self.report()
        summary = report["summary"]
        told = (summary["hosts"], summary["hosts_in_trouble"])
        self.claim("report: six hosts, one of them silent", told == (6, 1), told)
        told = (summary["disks"], summary["repaired"], summary["left"])
        self.claim("report: six disks, four repaired, two left", told == (6, 4, 2), told)
        hosts = {one["host"]: one for one in report["hosts"]}
        why = "; ".join(hosts["gone"]["trouble"])
        self.claim("report: why the silent host says nothing", "No route to host" in why, why[:120])
        told = (hosts["full"]["statuses"], hosts["busy"]["reasons"])
        self.claim("report: full and busy with their reasons", told == ({"failed": 1}, {"in-use": 1}), told)
        one = next(one for one in report["srs"] if one["sr"] == SHARED)
        told = (one["disks"], one["repaired"], one["hosts"])
        self.claim("report: the shared SR's disk counts once", told == (1, 1, ["master", "member"]), told)
        page = (self.results / "report" / "fleet.html").read_text()
        self.claim("report: the page is there", page.startswith("<!DOCTYPE html>") and SHARED in page)

    def holds(self, host: Host, name: str) -> bool:
        return vdi(100) in self.hosts.ssh(host, f"cat /var/lib/smfix/journal/{name}").stdout

    def checked(self) -> set[str]:
        line = [str(self.executable), "check", "--json", *(str(path) for path in self.hosts.before)]
        document = json.loads(subprocess.run(line, capture_output=True, text=True, check=False).stdout)
        return {os.path.basename(one["path"]) for one in document["images"] if one["verdict"] == "valid"}

    def again(self) -> None:
        before = self.hosts.state()
        code, _, recap = self.play("remediate")
        same = code == 0 and self.hosts.state() == before
        self.claim("a second run changes no byte and no time of any image", same)
        still = not any(one["changed"] for one in recap.values())
        self.claim("a second run reports no change", still, recap_words(recap))
        self.claim("a second run finds the disks sound", self.statuses("master") == [("valid", None)] * 2)

    def undo(self) -> None:
        before = self.hosts.state()
        code, _, _ = self.play("undo", "-e", "smfix_undo_since=20200101", "--check")
        self.claim("undo in check mode changes nothing", code == 0 and self.hosts.state() == before)
        code, _, recap = self.play("undo", "-e", "smfix_undo_since=20200101")
        self.claim("undo: the play ends well", code == 0, recap_words(recap))
        same = [path.name for path, raw in self.hosts.before.items() if path.read_bytes() == raw]
        self.claim("undo: every image is byte for byte what it was", len(same) == len(self.hosts.before), len(same))
        code, _, recap = self.play("undo", "-e", "smfix_undo_since=20200101")
        still = code == 0 and not any(one["changed"] for one in recap.values())
        self.claim("a second undo changes nothing", still, recap_words(recap))


def recap_words(recap: dict[str, Any]) -> str:
    """``master 0, busy 1 changed``."""
    return ", ".join(f"{name} {one['changed']}" for name, one in recap.items()) + " changed"


def main() -> int:
    """Show it all; 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--executable", type=Path, default=ROOT / "dist" / "smfix")
    parser.add_argument("--ansible", type=Path, action="append", required=True, help="bin folder of an ansible-core")
    parser.add_argument("--write", type=Path, help="the record, as Markdown")
    parser.add_argument("--keep", type=Path, help="leave logs, results and images here")
    options = parser.parse_args()
    for tool in ("ip", "unshare", "ssh", "scp", "ssh-keygen", "/usr/sbin/sshd"):
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not here: apt-get install openssh-server openssh-client iproute2")
    if os.geteuid() != 0:
        parser.error("hosts in namespaces need root")
    parts, failed = [], 0
    for number, folder in enumerate(options.ansible):
        said = subprocess.run([folder / "ansible", "--version"], capture_output=True, text=True, check=True).stdout
        version = said.splitlines()[0]
        print(version, flush=True)
        # Not in /tmp: each host has its own.
        with tempfile.TemporaryDirectory(prefix="smfix-pool-", dir="/var/tmp") as place, pool(Path(place)) as hosts:
            show = Show(hosts, folder.resolve(), options.executable.resolve())
            began = time.monotonic()
            try:
                show.all()
            finally:
                if options.keep is not None:
                    shutil.copytree(place, options.keep / str(number), dirs_exist_ok=True)
        failed += sum(not holds for _, holds, _ in show.rows)
        parts.append(part(version, show, time.monotonic() - began))
    if options.write is not None and not failed:
        asked = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
        digest = hashlib.sha256(options.executable.read_bytes()).hexdigest()
        head = HEAD.format(day=datetime.now(UTC).date(), commit=commit, digest=digest, python=platform.python_version())
        options.write.write_text("\n\n".join([head, *parts]) + "\n", encoding="utf-8")
    return 1 if failed else 0


def part(version: str, show: Show, seconds: float) -> str:
    """What one ansible-core showed, as Markdown."""
    lines = [
        f"## {version}",
        "",
        f"{len(show.rows)} claims, {seconds:.0f} s.",
        "",
        "| claim | | seen |",
        "|---|---|---|",
    ]
    for what, holds, seen in show.rows:
        lines.append(f"| {what} | {'holds' if holds else '**does not hold**'} | {seen.replace('|', ' ')} |")
    return "\n".join(lines)


HEAD = """# A pool, driven by Ansible

Shown {day} at {commit} with `make ansible` (`tools/ansible_hosts.py`): the executable of `make dist` (SHA-256
{digest}), Python {python} on the controller. Six hosts in one inventory, five of them here, each in network, mount,
UTS and process namespaces of its own, reached by ssh: `master` and `member` are a pool with a shared SR and have no
Python; the journals' file system of `full` is full; a process on `busy` holds one of its damaged disks; `calm` has no
incident; no host has the address of `gone`."""


if __name__ == "__main__":
    sys.exit(main())
