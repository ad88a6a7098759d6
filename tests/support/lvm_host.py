"""A volume group for tests: loop devices stand for logical volumes, stub ``lvs`` and ``lvchange`` keep honest state.

The state is one file a volume: permission, activity, the loop device. ``lvchange -ay`` makes the links below
``/dev``, LVM's and device-mapper's, ``-an`` takes them away and refuses while somebody has the device open, ``-p r``
makes the device itself read-only. Everything is written to a log. Needs root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from needed_tools import need_tool

_STUB = r"""#!/bin/bash
# {name}: a stand-in for LVM's
state={state}
echo "{name} $*" >> {log}
[ -z "$LD_LIBRARY_PATH" ] || {{ echo "not my library path" >&2; exit 9; }}
[ ! -e $state/broken ] || {{ echo "  Volume group is broken" >&2; exit 5; }}
is_open() {{ local f; for f in /proc/[0-9]*/fd/*; do [ "$f" -ef "$1" ] && return 0; done; return 1; }}
"""
_LVS = r"""
group=${{@: -1}}
for f in $state/$group/*; do
  [ -e "$f" ] || continue
  . $f
  perm=w; [ $rw = 1 ] || perm=r
  act=-; open=-
  if [ $active = 1 ]; then act=a; is_open $loop && open=o; fi
  echo "  $group|${{f##*/}}|-${{perm}}i-${{act}}${{open}}--|$size"
done
"""
_LVCHANGE = r"""
volume=${{@: -1}}; f=$state/$volume; node=/dev/$volume
group=${{volume%/*}}; name=${{volume#*/}}; mapped=/dev/mapper/${{group//-/--}}-${{name//-/--}}
[ -e "$f" ] || {{ echo "  Failed to find logical volume \"$volume\"" >&2; exit 5; }}
. $f
case "$1 $2" in
  "-ay "*) active=1; mkdir -p ${{node%/*}} /dev/mapper; ln -sfn $loop $node; ln -sfn $loop $mapped;;
  "-an "*) if is_open $loop; then echo "  Logical volume $volume in use." >&2; exit 5; fi
           active=0; rm -f $node $mapped;;
  "-p rw") rw=1; {blockdev} --setrw $loop;;
  "-p r") rw=0; {blockdev} --setro $loop;;
  *) echo "bad arguments" >&2; exit 3;;
esac
printf 'rw=%s active=%s loop=%s size=%s\n' $rw $active $loop $size > $f
"""


_LEFT_BEHIND = 600  # seconds: no test takes as long


def _take_turn(node: Path) -> TextIO:
    """Make the folder below /dev: there is one for all runs of these tests on this machine, so they take turns.

    What is old was left there by a run that was killed. The turn ends when the file is closed.
    """
    turn = (Path("/tmp") / "smfix-tests-lvm.lock").open("w", encoding="ascii")
    fcntl.flock(turn, fcntl.LOCK_EX)
    while True:
        try:
            node.mkdir()
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - node.stat().st_mtime > _LEFT_BEHIND:
                    shutil.rmtree(node)
            time.sleep(0.1)
        else:
            return turn


class LvmHost:
    """One group, ``VG_XenStorage-<sr>``. `attach`: file -> loop device."""

    def __init__(self, folder: Path, sr: str, attach) -> None:
        self.group = f"VG_XenStorage-{sr}"
        self.node = Path("/dev") / self.group
        self.folder, self.attach = folder, attach
        self.state = folder / "lvm"
        (self.state / self.group).mkdir(parents=True)
        self.log = folder / "lvm.log"
        self.log.write_text("")
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.blockdev = blockdev = need_tool("blockdev")
        for name, body in (("lvs", _LVS), ("lvchange", _LVCHANGE)):
            stub = self.bin / name
            stub.write_text((_STUB + body).format(name=name, state=self.state, log=self.log, blockdev=blockdev))
            stub.chmod(0o755)
        self._turn = _take_turn(self.node)
        (self.node / "MGT").symlink_to("/dev/null")

    def volume(self, name: str, raw: bytes, *, size: int = 16 << 20, rw: bool = False, active: bool = False) -> Path:
        """A volume of `size` bytes that begins with `raw`, its last 512 bytes being the last 512 of `raw`."""
        file = self.folder / f"{name}.img"
        body = bytearray(size)
        body[: len(raw)] = raw
        file.write_bytes(body)
        loop = self.attach(file)
        path = self.state / self.group / name
        path.write_text(f"rw={int(rw)} active=0 loop={loop} size={size}\n")
        if active:
            self._lvchange("-ay", name)
        self._lvchange("-p", "rw" if rw else "r", name)
        self.log.write_text("")
        return file

    def mapped(self, name: str) -> Path:
        """The node of a volume as device-mapper names it."""
        return Path("/dev/mapper") / "-".join(part.replace("-", "--") for part in (self.group, name))

    def _lvchange(self, *words: str) -> None:
        *options, name = words
        line = [self.bin / "lvchange", *options, f"{self.group}/{name}"]
        subprocess.run(line, check=True, env={"PATH": os.environ["PATH"]})

    def lvchange(self, *words: str) -> None:
        """As somebody else would."""
        self._lvchange(*words)

    def now(self, name: str) -> tuple[int, int]:
        """(writable, active) of a volume, by the state and by the device itself, which must agree."""
        words = dict(word.split("=") for word in (self.state / self.group / name).read_text().split())
        read_only = Path(f"/sys/block/{os.path.basename(words['loop'])}/ro").read_text().strip()
        assert (words["rw"] == "1") == (read_only == "0")
        assert (words["active"] == "1") == (self.node / name).exists()
        return int(words["rw"]), int(words["active"])

    def changes(self) -> list[str]:
        """The ``lvchange`` calls, without the group."""
        lines = self.log.read_text().splitlines()
        return [line.replace(f"{self.group}/", "") for line in lines if line.startswith("lvchange")]

    def close(self) -> None:
        shutil.rmtree(self.node, ignore_errors=True)
        for path in (self.state / self.group).iterdir():
            self.mapped(path.name).unlink(missing_ok=True)
        self._turn.close()
        for path in (self.state / self.group).iterdir():
            words = dict(word.split("=") for word in path.read_text().split())
            # The flag outlives the file behind the device.
            subprocess.run([self.blockdev, "--setrw", words["loop"]], check=True)
