"""Writes SMlogs of any size that look like those of a busy host: for benchmarks, never for tests.

    python tools/benchmarks/make_smlog.py FILE BYTES [SEED]

Ordinary traffic of attaching, scanning, snapshots and garbage collection, and once in 100,000 lines a
whole incident: the check that fails, the dump of the metadata, the EXCEPTION.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Iterator
from typing import BinaryIO

EVERY = 100_000  # lines from one incident to the next
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

ATTACH = """\
SM: [{pid}] lock: opening lock file /var/lock/sm/{vdi}/vdi
SM: [{pid}] lock: acquired /var/lock/sm/{vdi}/vdi
SM: [{pid}] vdi_activate {{'sr_uuid': '{sr}', 'subtask_of': 'DummyRef:|{ref}|VDI.activate', 'vdi_ref': \
'OpaqueRef:{ref}', 'vdi_on_boot': 'persist', 'args': ['true'], 'o_direct': True, 'vdi_location': '{vdi}', 'host_ref': \
'OpaqueRef:{ref}', 'session_ref': 'OpaqueRef:{ref}', 'device_config': {{'SRmaster': 'true', 'device': '/dev/sda3'}}, \
'command': 'vdi_activate', 'vdi_allow_caching': 'false', 'sr_ref': 'OpaqueRef:{ref}', 'vdi_uuid': '{vdi}'}}
SM: [{pid}] ['/usr/bin/vhd-util', 'query', '--debug', '-vsf', '-n', '/run/sr-mount/{sr}/{vdi}.vhd']
SM: [{pid}]   pread SUCCESS
SM: [{pid}] PATHDICT: key file: {{'path': '/run/sr-mount/{sr}/{vdi}.vhd'}}
SM: [{pid}] tap.activate: Launched Tapdisk(vhd:/run/sr-mount/{sr}/{vdi}.vhd, pid={pid}, minor=7, state=R)
SM: [{pid}] Attempt to register tapdisk with RRDD as a plugin.
SM: [{pid}] ERROR: Failed to register tapdisk with RRDD due to UnixStreamHTTP instance has no attribute 'getresponse'
SM: [{pid}] lock: released /var/lock/sm/{vdi}/vdi"""
SCAN = """\
SM: [{pid}] sr_scan {{'sr_uuid': '{sr}', 'subtask_of': 'DummyRef:|{ref}|SR.scan', 'args': [], 'host_ref': \
'OpaqueRef:{ref}', 'session_ref': 'OpaqueRef:{ref}', 'device_config': {{'SRmaster': 'true'}}, 'command': 'sr_scan'}}
SM: [{pid}] lock: opening lock file /var/lock/sm/{sr}/sr
SM: [{pid}] ['/usr/bin/vhd-util', 'scan', '-f', '-m', '/run/sr-mount/{sr}/*.vhd']
SM: [{pid}]   pread SUCCESS
SM: [{pid}] Kicking GC
SMGC: [{pid}] === SR {sr}: gc ===
SM: [{pid}] lock: released /var/lock/sm/{sr}/sr"""
COLLECT = """\
SMGC: [{pid}] === SR {sr}: gc ===
SM: [{pid}] lock: opening lock file /var/lock/sm/{sr}/running
SM: [{pid}] ['/usr/bin/vhd-util', 'scan', '-f', '-m', '/run/sr-mount/{sr}/*.vhd']
SM: [{pid}]   pread SUCCESS
SMGC: [{pid}] SR {sr4} ('Local storage') (38 VDIs in 7 VHD trees): showing only VHD trees that changed:
SMGC: [{pid}]         *{vdi8}(80.000G/2.155G/2.156G)
SMGC: [{pid}]             {ref8}(80.000G/1.004G/1.005G)
SMGC: [{pid}]
SMGC: [{pid}] Coalescing *{ref8}(80.000G/1.004G/1.005G) -> *{vdi8}(80.000G/2.155G/2.156G)
SM: [{pid}] ['/usr/bin/vhd-util', 'check', '--debug', '-n', '/run/sr-mount/{sr}/{ref}.vhd']
SM: [{pid}]   pread SUCCESS
SM: [{pid}] ['/usr/bin/vhd-util', 'check', '--debug', '-n', '/run/sr-mount/{sr}/{vdi}.vhd', '-B']
SM: [{pid}]   pread SUCCESS
SMGC: [{pid}]   Running VHD coalesce on *{ref8}(80.000G/1.004G/1.005G)
SMGC: [{pid}]   Child process completed successfully
SMGC: [{pid}]   Relinking {vdi8}(80.000G/1.2M/1.3M) from *{ref8}(80.000G/1.004G/1.005G) to *{vdi8}(80.000G/2.1G/2.1G)
SM: [{pid}] ['/usr/bin/vhd-util', 'modify', '--debug', '-p', '/run/sr-mount/{sr}/{vdi}.vhd', '-n', \
'/run/sr-mount/{sr}/{ref}.vhd']
SM: [{pid}]   pread SUCCESS
SMGC: [{pid}] In cleanup
SMGC: [{pid}] GC process exiting, no work left"""
MULTIPATH = """\
SM: [{pid}] ['/usr/sbin/cbt-util', 'get', '-n', '/run/sr-mount/{sr}/{vdi}.cbtlog', '-c']
SM: [{pid}]   pread SUCCESS
SM: [{pid}] Setting LVM_DEVICE to /dev/disk/by-scsid/3600a0980{ref8}
SM: [{pid}] LVMCache created for VG_XenStorage-{sr}
SM: [{pid}] ['/sbin/vgs', '--readonly', 'VG_XenStorage-{sr}']
SM: [{pid}]   pread SUCCESS
SM: [{pid}] sr_update {{'sr_uuid': '{sr}', 'command': 'sr_update'}}
fairlock[3906]: /run/fairlock/devicemapper acquired"""
INCIDENT = """\
SMGC: [{pid}] === SR {sr}: gc ===
SMGC: [{pid}] Coalescing *{ref8}(80.000G/1.004G/1.005G) -> *{vdi8}(80.000G/2.155G/2.156G)
SM: [{pid}] ['/usr/bin/vhd-util', 'check', '--debug', '-n', '/run/sr-mount/{sr}/{vdi}.vhd', '-B']
SM: [{pid}] FAILED in util.pread: (rc 22) stdout: 'primary footer invalid: invalid cookie
SM: [{pid}] /run/sr-mount/{sr}/{vdi}.vhd appears invalid; dumping metadata
SM: [{pid}] VHD Footer Summary:
SM: [{pid}] -------------------
SM: [{pid}] Cookie              : conectix
SM: [{pid}] Checksum            : 0xffffef6f|0xffffef6f (Good!)
SM: [{pid}] UUID                : {ref}
SM: [{pid}] Hidden              : 1
SM: [{pid}]
SM: [{pid}] ', stderr: ''
SMGC: [{pid}] *~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*
SMGC: [{pid}]          *  E X C E P T I O N  *
SMGC: [{pid}] coalesce: EXCEPTION <class 'util.SMException'>, VHD *{vdi8}(80.000G/2.155G/2.156G) corrupted
SMGC: [{pid}]   File "/opt/xensource/sm/cleanup.py", line 1746, in coalesce
SMGC: [{pid}] Coalesce failed, skipping"""
# A busy host coalesces some 200 disks a day, in some 100 MB of log.
WEIGHTS = ((ATTACH, 560), (SCAN, 157), (MULTIPATH, 280), (COLLECT, 3))


def blocks(size: int, seed: int = 1) -> Iterator[bytes]:
    """The text of a log of about `size` bytes, piece by piece."""
    chance = random.Random(seed)
    srs = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(4)]
    # A VDI lies in one SR.
    vdis = [(srs[number % 4], str(uuid.UUID(int=chance.getrandbits(128)))) for number in range(400)]
    kinds = [kind for kind, weight in WEIGHTS for _ in range(weight)]
    written = lines = second = 0
    while written < size:
        pieces: list[str] = []
        for _ in range(400):
            due = lines // EVERY != (lines - 12) // EVERY and lines > EVERY
            template = INCIDENT if due else chance.choice(kinds)
            sr, vdi = chance.choice(vdis)
            ref = str(uuid.UUID(int=chance.getrandbits(128)))
            text = template.format(
                pid=chance.randrange(300, 32768), sr=sr, sr4=sr[:4], vdi=vdi, vdi8=vdi[:8], ref=ref, ref8=ref[:8]
            )
            second += chance.random() < 0.6
            day = second // 86400
            stamp = (
                f"{MONTHS[day // 28 % 12]} {day % 28 + 1:2d} "
                f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d} xen-7 "
            )
            pieces.append(stamp + text.replace("\n", f"\n{stamp}"))
            lines += text.count("\n") + 1
        data = ("\n".join(pieces) + "\n").encode()
        written += len(data)
        yield data


def write(file: BinaryIO, size: int, seed: int = 1) -> None:
    """Write a log of about `size` bytes."""
    file.writelines(blocks(size, seed))


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as out:
        write(out, int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
