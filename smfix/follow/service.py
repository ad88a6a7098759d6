"""The follower as a service of systemd: its unit, installed, taken away, looked at.

The unit gives it what its work needs and nothing more: the disks, SM's locks and its own folders are
writable, the rest of the host is not. dom0 of today has systemd 219, which does not know every word of
it; it says so in its journal and takes the rest.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import CompletedProcess

from smfix.errors import Unanswered, Unreadable, UsageError, WriteFailed
from smfix.host import atomic_file, bundle, kernel_path
from smfix.host.subprocesses import finished

UNIT = "smfix.service"
UNIT_DIR = "/etc/systemd/system"
PACKAGED = "/usr/lib/systemd/system"
"""Where a package puts its unit; one in UNIT_DIR goes before it. Source: systemd.unit(5)."""
RUNNING = "/run/systemd/system"
"""There where systemd runs. Source: sd_booted(3)."""
_LIMIT = 60.0

_TEMPLATE = """\
# Written by `smfix service install`; `smfix service uninstall` takes it away.
[Unit]
Description=smfix: damaged VHD disks, from the storage log to the confirmed repair
After=local-fs.target remote-fs.target network.target rsyslog.service xapi.service

[Service]
Type=notify
# A self-contained smfix unpacks itself and runs in a child.
NotifyAccess=all
ExecStart={command}
# Reads the policy again; a policy with a mistake in it changes nothing. Not SIGHUP to $MAINPID: a
# self-contained smfix is the child of that process, which knows nothing of policies.
ExecReload={reload}
# SIGTERM to smfix alone: it finishes the repair in hand, else it stops within a second.
KillMode=mixed
TimeoutStopSec=5min
# It ends by itself with 0 only when it is stopped. 16 is a mistake in the command line or the policy:
# trying again would not mend it.
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=16
WatchdogSec=10min

Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
UMask=0077

StateDirectory=smfix
StateDirectoryMode=0700
RuntimeDirectory=smfix
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# Every process' open files (PTRACE), every disk (DAC), volumes and their caches (ADMIN, MKNOD, IPC_LOCK).
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_SYS_PTRACE CAP_SYS_ADMIN \\
 CAP_MKNOD CAP_IPC_LOCK CAP_SYS_NICE

[Install]
WantedBy=multi-user.target
"""


UNIT_FILE = atomic_file.FileKind(
    "a unit that `smfix service install` wrote", lambda head: head.startswith(_TEMPLATE[:40].encode()), 0o644
)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The state of the service. `enabled`, `active`: None if systemd does not answer."""

    unit: str
    installed: bool
    enabled: str | None
    active: str | None


def program() -> list[str]:
    """Return the command that starts this smfix: the self-contained file, the script, or this Python."""
    script = bundle.own_file() or sys.argv[0]
    if os.path.basename(script) != "__main__.py" and os.access(script, os.X_OK):
        return [kernel_path.named(script)]
    return [sys.executable, "-m", "smfix"]


def options(log: str, *, policy: str | None, yes: bool, metrics: str | None, sr_mounts: Sequence[str]) -> list[str]:
    """The options of the service's command line; every path absolute."""
    words = [kernel_path.named(log)]
    words += ["--policy", kernel_path.named(policy)] if policy else []
    words += ["--yes"] if yes else []
    words += ["--metrics", kernel_path.named(metrics)] if metrics else []
    for mount in sr_mounts:
        words += ["--sr-mount", kernel_path.named(mount)]
    return words


def words(found: ServiceState) -> str:
    """The service's state for people."""
    if not found.installed:
        return f"{found.unit}: not installed; `smfix service install` does it"
    running = "systemd does not run here" if found.active is None else f"{found.active}, {found.enabled}"
    return f"{found.unit}: installed; {running}"


def unit_text(started: Sequence[str], with_options: Sequence[str], writable: Sequence[str]) -> str:
    """The unit that runs ``PROGRAM from-log --follow OPTIONS``. `writable` are folders besides its own."""
    line = [*started, "from-log", "--follow", *with_options]
    for word in (*line, *writable):
        if any(ord(letter) < 32 for letter in word):
            raise UsageError(f"{word!r} cannot be written into a unit")
    # A percent sign and a dollar are systemd's own. Source: systemd.service(5), COMMAND LINES.
    quoted = " ".join(_word(word) for word in line)
    reload = " ".join(_word(word) for word in (*started, "service", "reload"))
    folders = ["/var/lib/smfix", "-/var/lock/sm", "-/run/lock/sm", "-/run/sr-mount", "-/run/lvm", "-/run/lock/lvm"]
    places = " ".join([*folders, *(_word(f"-{each}") for each in writable)])
    return _TEMPLATE.format(command=quoted, reload=reload, writable=places)


def _word(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{escaped}"' if escaped != shlex.quote(escaped) else escaped


def install(text: str, unit_dir: str | None, say: Callable[[str], None]) -> None:
    """Write the unit, enable and start it. Raises UsageError where another unit has the name, WriteFailed."""
    folder = unit_dir or UNIT_DIR
    path = os.path.join(folder, UNIT)
    atomic_file.check(path, UNIT_FILE)
    atomic_file.replace(path, text.encode(), UNIT_FILE)
    say(f"smfix: wrote {path}")
    if unit_dir is None and os.path.isdir(RUNNING):
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT)
        _systemctl("restart", UNIT)
        say(f"smfix: {UNIT} is enabled and running; `journalctl -u smfix -f` shows what it says")
    else:
        say(f"smfix: systemd does not run here, or this is not its folder: `systemctl enable --now {UNIT}` there")


def uninstall(unit_dir: str | None, say: Callable[[str], None]) -> None:
    """Stop the service and take its unit away; what it knows stays. Raises WriteFailed, Unreadable."""
    path = os.path.join(unit_dir or UNIT_DIR, UNIT)
    runs = unit_dir is None and os.path.isdir(RUNNING)
    if not os.path.lexists(path):
        if unit_dir is None and os.path.lexists(os.path.join(PACKAGED, UNIT)):
            raise Unreadable(
                f"{PACKAGED}/{UNIT} belongs to the package: `systemctl disable --now smfix` stops it for good"
            )
        raise Unreadable(f"{path}: there is no such unit")
    if runs:
        _systemctl("disable", "--now", UNIT)
    try:
        os.unlink(path)
    except OSError as error:
        raise WriteFailed(f"{path}: {error.strerror}") from error
    if runs:
        _systemctl("daemon-reload")
    say(f"smfix: removed {path}; undo journals and state stay in /var/lib/smfix")


def state(unit_dir: str | None) -> ServiceState:
    """Return the state of the service."""
    path = os.path.join(unit_dir or UNIT_DIR, UNIT)
    if unit_dir is None and not os.path.isfile(path) and os.path.isfile(os.path.join(PACKAGED, UNIT)):
        path = os.path.join(PACKAGED, UNIT)
    runs = unit_dir is None and os.path.isdir(RUNNING)
    return ServiceState(
        path, os.path.isfile(path), _asked("is-enabled") if runs else None, _asked("is-active") if runs else None
    )


def _systemctl(*words: str) -> None:
    try:
        done = _run(*words)
    except Unanswered as error:
        raise WriteFailed(f"systemctl {' '.join(words)}: {error}") from error
    if done is None or done.returncode:
        why = "it cannot be run" if done is None else (done.stderr or done.stdout).strip() or f"exit {done.returncode}"
        raise WriteFailed(f"systemctl {' '.join(words)}: {why}")


def _asked(word: str) -> str | None:
    with suppress(Unanswered):
        done = _run(word, UNIT)
        return None if done is None else done.stdout.strip() or None
    return None


def _run(*words: str) -> CompletedProcess[str] | None:
    """Return the finished process of systemctl; None if it cannot be run. Raises Unanswered."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    try:
        done = finished([systemctl, *words], _LIMIT)
    except OSError:
        return None
    output, errors = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return CompletedProcess(done.args, done.returncode, output, errors)
