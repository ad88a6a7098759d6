"""Ask the pool's database, XAPI: the hosts that have a disk attached, the coordinator, the names of disks and SRs.

Theory. XAPI may be absent or hang: every call has a time limit, and after a failure XAPI is not asked for a while,
because SM's locks may be held meanwhile. Without an answer the rules for unseen hosts apply (docs/adr/0006). The XenAPI
client is an extra of the package and is imported when a connection is made; without it smfix says that it is missing.

Two ways in: the local socket of a host (no password; on a member of a pool it leads to the coordinator), or
a remote pool by https with the credentials of a :class:`Login`, its certificate verified.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from smfix import __version__
from smfix.errors import Unreadable
from smfix.sm import locks
from smfix.sm.locks import Clock
from smfix.values import Names
from smfix.xapi.login import Login
from smfix.xapi.records import (
    HOST_KEY,
    MAX_LEAVES,
    OURS,
    PARENT_KEY,
    Attachment,
    PoolDisk,
    PoolDiskState,
    PoolHost,
    PoolSr,
    attachments,
    busy_keys,
    vm_names,
)

# Seconds. NOW_LIMIT is a wait while SM's locks are held, for which a starting VM waits.
NOW_LIMIT, CALL_LIMIT, SCAN_LIMIT = 2.0, 15.0, 120.0
_TO_CLOSE = 0.3  # seconds to wait for a call that is still running
SILENCE = 30.0
"""Seconds after a failure in which XAPI is not asked again."""
MEMORY = 30.0
"""Seconds for which names and chains are cached. Attachments are never cached."""

_MOST_WORDS = 200
_UNPAUSE_TRIES = 4


def this_host(inventory: str | None = None) -> str | None:
    """Return this host's UUID from its inventory; None if this machine is no XenServer or XCP-ng host."""
    with suppress(OSError), open(inventory or locks.INVENTORY, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition("=")
            if name.strip() == "INSTALLATION_UUID":
                return value.strip().strip("'\"").lower()
    return None


class Pool:
    """One pool, connected to at the first question. Every method but :meth:`names` raises Unreadable.

    `here`: this host's UUID, None on no host.
    """

    def __init__(self, login: Login, *, here: str | None, clock: Clock | None = None) -> None:
        self._login = login
        self._here = here
        self._clock = clock or Clock()
        self._alone = threading.RLock()
        self._session: Any = None
        self._transport: Any = None
        self._trouble: tuple[type[Exception], ...] = ()
        self._silent: tuple[float, str] | None = None
        self._srs: dict[str, tuple[float, PoolSr]] = {}
        self._hosts: tuple[float, dict[str, PoolHost], str] | None = None
        self._names: dict[str, tuple[str, ...]] = {}
        self.left_paused: list[str] = []
        """VDIs that could not be unpaused any more: XAPI had gone."""

    # ------------------------------------------------------------------ what is asked

    def disk_state(self, vdi: str, sr: str) -> PoolDiskState:
        """Return the state of the disk now: attachments, work of SM, the master of its SR.

        The hosts and the SR may be cached for twice :data:`MEMORY`: after :meth:`warm`, which the caller runs before it
        takes locks, this does not wait for the records of a whole SR while it holds them.
        """
        ref = self._ask("VDI.get_by_uuid", vdi, limit=NOW_LIMIT)
        config = _texts(self._ask("VDI.get_sm_config", ref, limit=NOW_LIMIT))
        hosts, coordinator = self.hosts(2 * MEMORY)
        known = self.sr(sr, 2 * MEMORY)
        masters = [coordinator] if known.shared else list(known.hosts)
        named = [hosts[one] for one in masters if one in hosts]
        return PoolDiskState(
            attached=attachments(config, hosts, self._here),
            busy=busy_keys(config),
            left_over=config.get("paused") == OURS,
            shared=known.shared,
            is_master_here=self._here is not None and any(host.uuid == self._here for host in named),
            master=", ".join(f"{host.name} ({host.address})" for host in named) or "a host that XAPI does not name",
            children=known.children(vdi),
        )

    def warm(self, sr: str) -> None:
        """Fetch what :meth:`disk_state` needs of the SR and the hosts. Call it before locks are taken."""
        self.hosts()
        self.sr(sr)

    def sr(self, sr: str, age: float | None = None) -> PoolSr:
        """Return the SR with its disks, cached for at most `age` seconds (None: :data:`MEMORY`)."""
        kept = self._srs.get(sr)
        if kept is not None and self._clock.now() - kept[0] < (MEMORY if age is None else age):
            return kept[1]
        ref = self._ask("SR.get_by_uuid", sr)
        record = _record(self._ask("SR.get_record", ref))
        where = f'field "SR" = "{ref}"'
        pbds = _record(self._ask("PBD.get_all_records_where", where)).values()
        disks = [_disk(one) for one in _record(self._ask("VDI.get_all_records_where", where)).values()]
        switches = _texts(record.get("other_config", {}))
        found = PoolSr(
            uuid=sr,
            name=_text(record, "name_label"),
            shared=record.get("shared") is True,
            gc=switches.get("gc") != "false",
            coalesce=switches.get("coalesce") != "false",
            hosts=tuple(_text(_record(one), "host") for one in pbds if _record(one).get("currently_attached") is True),
            disks={disk.uuid: disk for disk in disks},
        )
        self._srs[sr] = (self._clock.now(), found)
        self._names.clear()
        return found

    def attached(self, disk: PoolDisk) -> tuple[Attachment, ...]:
        """Return the attachments of a disk of :meth:`sr`, as old as that answer."""
        return attachments(disk.keys, self.hosts()[0], self._here) if disk.keys else ()

    def sr_of(self, vdi: str) -> str:
        """Return the UUID of the disk's SR."""
        ref = self._ask("VDI.get_SR", self._ask("VDI.get_by_uuid", vdi))
        return str(self._ask("SR.get_uuid", ref)).lower()

    def hosts(self, age: float | None = None) -> tuple[Mapping[str, PoolHost], str]:
        """Return the hosts of the pool by OpaqueRef, and its coordinator's OpaqueRef; `age` as for :meth:`sr`."""
        if self._hosts is None or self._clock.now() - self._hosts[0] >= (MEMORY if age is None else age):
            records = _record(self._ask("host.get_all_records"))
            hosts = {
                ref: PoolHost(ref, _text(one, "uuid").lower(), _text(one, "name_label"), _text(one, "address"))
                for ref, one in ((ref, _record(value)) for ref, value in records.items())
            }
            pools = self._ask("pool.get_all")
            if not isinstance(pools, list) or not pools:
                raise Unreadable(f"XAPI ({self._login.where}) names no pool")
            self._hosts = (self._clock.now(), hosts, str(self._ask("pool.get_master", pools[0])))
        return self._hosts[1], self._hosts[2]

    def names(self, vdi: str | None, sr: str | None) -> Names:
        """Return the names of the disk, its SR and the VMs that read it, as far as they are known."""
        with suppress(Unreadable):
            if sr is None and vdi is not None:
                sr = self.sr_of(vdi)
            if sr is None:
                return Names()
            known = self.sr(sr)
            disk = known.disks.get(vdi or "")
            if disk is None:
                return Names(sr=known.name)
            vms: set[str] = set()
            for leaf in known.leaves(disk.uuid):
                vms.update(self._vms(leaf))
            return Names(disk.name or None, known.name or None, vm_names(vms))
        return Names()

    def _vms(self, disk: PoolDisk) -> tuple[str, ...]:
        if disk.uuid not in self._names:
            found = []
            for vbd in disk.vbds[:MAX_LEAVES]:
                vm = _record(self._ask("VM.get_record", self._ask("VBD.get_VM", vbd)))
                name = _text(vm, "name_label")
                found.append(f"{name} (snapshot)" if vm.get("is_a_snapshot") is True else name)
            self._names[disk.uuid] = tuple(found)
        return self._names[disk.uuid]

    # ------------------------------------------------------------------ what is done

    def scan(self, sr: str) -> None:
        """Call SR.scan: SM scans the whole SR and starts its GC. Returns after the scan."""
        self._ask("SR.scan", self._ask("SR.get_by_uuid", sr), limit=SCAN_LIMIT)

    @contextmanager
    def paused(self, vdi: str) -> Iterator[None]:
        """Keep every host of the pool from attaching the disk while the block runs.

        This is SM's own handshake: an attach adds its key, then looks for ``paused``; a pause adds ``paused``, then
        looks for keys. smfix sets another value than SM, so that the pause of a killed smfix is recognised and
        reused.
        """
        ref = self._ask("VDI.get_by_uuid", vdi, limit=NOW_LIMIT)
        try:
            self._ask("VDI.add_to_sm_config", ref, "paused", OURS, limit=NOW_LIMIT)
        except Unreadable:
            # MAP_DUPLICATE_KEY, or a lost answer: the value shows whether smfix has set the key.
            if _texts(self._ask("VDI.get_sm_config", ref, limit=NOW_LIMIT)).get("paused") != OURS:
                raise
        try:
            yield
        finally:
            self._unpause(vdi, ref)

    def _unpause(self, vdi: str, ref: Any) -> None:
        for attempt in range(_UNPAUSE_TRIES):
            self._silent = None  # XAPI must be asked, even after a failure
            try:
                self._ask("VDI.remove_from_sm_config", ref, "paused", limit=NOW_LIMIT)
            except Unreadable:
                self._clock.sleep(0.2 * attempt)
            else:
                return
        self.left_paused.append(vdi)

    def another(self) -> Pool:
        """Return the same pool with a separate connection, which waits for no call of this one."""
        return Pool(self._login, here=self._here, clock=self._clock)

    def close(self) -> None:
        """End the session, unless a call of it is still running. Raises nothing."""
        if not self._alone.acquire(timeout=_TO_CLOSE):
            return
        try:
            session, self._session = self._session, None
            if session is not None:
                self._transport.limit = NOW_LIMIT
                with suppress(*self._trouble):
                    session.xenapi.session.logout()
                with suppress(*self._trouble):
                    session("close")()
        finally:
            self._alone.release()

    # ------------------------------------------------------------------ how it is asked

    def _ask(self, method: str, *parameters: Any, limit: float | None = None) -> Any:
        """Call XAPI and return the answer; `limit` in seconds, None for :data:`CALL_LIMIT`.

        Raises Unreadable: no client, no connection, no answer, an error.
        """
        with self._alone:
            if self._silent is not None and self._clock.now() < self._silent[0]:
                raise Unreadable(self._silent[1])
            try:
                session = self._session or self._connect(limit or CALL_LIMIT)
                self._transport.limit = limit or CALL_LIMIT
                return session.xenapi_request(method, parameters)
            except self._trouble as error:
                raise self._failed(method, error) from error

    def _connect(self, limit: float) -> Any:
        try:
            import XenAPI
        except ImportError as error:
            raise self._unheard("the Python package XenAPI is not installed (pip install 'smfix[xapi]')") from error
        from http.client import HTTPException
        from xml.parsers.expat import ExpatError
        from xmlrpc.client import Error

        from smfix.xapi.transport import SocketTransport, TlsTransport

        # The client raises TypeError and KeyError if the answer is malformed.
        self._trouble = (OSError, HTTPException, Error, ExpatError, ValueError, TypeError, KeyError, XenAPI.Failure)
        at = self._login
        if at.socket is not None:
            self._transport = SocketTransport(at.socket, limit)
            session = XenAPI.Session("http://localhost/", transport=self._transport)
        else:
            self._transport = TlsTransport(limit, at.ca)
            session = XenAPI.Session(at.url, transport=self._transport)
        session.xenapi.login_with_password(at.user, at.password, "1.0", f"smfix {__version__}")
        self._session = session
        return session

    def _failed(self, method: str, error: Exception) -> Unreadable:
        """Return `error` as one line without any password; if XAPI does not answer, do not ask it for a while."""
        details = getattr(error, "details", None)
        if isinstance(details, list) and details:
            words = " ".join(str(part) for part in details)[:_MOST_WORDS]
            if details[0] == "HOST_IS_SLAVE":
                return self._unheard(f"is a member of its pool; name the coordinator: {' '.join(details[1:])}")
            if "AUTHENTICATION" in str(details[0]):
                return self._unheard(f"does not accept the credentials of {self._login.user}")
            return Unreadable(f"XAPI ({self._login.where}) answers {method} with {words}")
        if isinstance(error, TimeoutError):
            return self._unheard(f"did not answer {method} in time")
        if type(error).__name__ == "SSLCertVerificationError":
            reason = getattr(error, "verify_message", "") or str(error)
            return self._unheard(f"shows a certificate that is not to be trusted: {reason}")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return self._unheard(f"cannot be asked: {reason[:_MOST_WORDS]}")

    def _unheard(self, why: str) -> Unreadable:
        self._session = None
        if self._transport is not None:
            self._transport.close()
        line = f"XAPI ({self._login.where}) {why}"
        self._silent = (self._clock.now() + SILENCE, line)
        return Unreadable(line)


def _disk(value: Any) -> PoolDisk:
    record = _record(value)
    config = _texts(record.get("sm_config", {}))
    parent = config.get(PARENT_KEY)
    vbds = record.get("VBDs", [])
    return PoolDisk(
        uuid=_text(record, "uuid").lower(),
        name=_text(record, "name_label"),
        managed=record.get("managed") is not False,
        parent=parent.lower() if parent else None,
        vbds=tuple(str(one) for one in vbds) if isinstance(vbds, list) else (),
        keys={key: mode for key, mode in config.items() if key.startswith(HOST_KEY)},
    )


def _record(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable("XAPI answers with something that is not a record")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {str(name): str(one) for name, one in _record(value).items()}


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
