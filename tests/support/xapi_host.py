"""A pool for tests: a real XML-RPC server that speaks XAPI's protocol over a Unix socket, or TLS.

Every answer is a struct with ``Status`` and ``Value`` or ``ErrorDescription``; every call but a login begins with
the session. The database is a few dictionaries that calls change honestly. `hooks` run before a call: they may
change the database, wait, or kill the server.
"""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

HERE = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER_HOST = "aaaaaaaa-0000-4000-8000-000000000002"
ME, THEM, GONE = "OpaqueRef:host-me", "OpaqueRef:host-them", "OpaqueRef:host-gone"
PASSWORD = "correct horse"


class Failure(Exception):
    """What XAPI answers with a Failure: its words."""


class _Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/", "/RPC2")
    disable_nagle_algorithm = False  # a Unix socket has none

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "local"


class _Server(socketserver.ThreadingMixIn, SimpleXMLRPCDispatcher):
    daemon_threads = True
    allow_reuse_address = True
    _send_traceback_header = False
    logRequests = False  # noqa: N815 - its name in the standard library

    listener: type[socketserver.TCPServer]

    def __init__(self, address: Any) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True)
        self.listener.__init__(self, address, _Handler)
        self.open: set[Any] = set()

    def process_request(self, request: Any, address: Any) -> None:
        self.open.add(request)
        super().process_request(request, address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _UnixServer(_Server, socketserver.UnixStreamServer):
    listener = socketserver.UnixStreamServer


class _TcpServer(_Server, socketserver.TCPServer):
    listener = socketserver.TCPServer


class XapiHost:
    """The database, and the server that answers from it."""

    def __init__(self, sr: str, *, shared: bool, master: str = ME) -> None:
        self.sr_ref = "OpaqueRef:sr"
        self.hosts = {
            ME: {"uuid": HERE, "name_label": "xen-1", "address": "192.0.2.1"},
            THEM: {"uuid": OTHER_HOST, "name_label": "xen-2", "address": "192.0.2.2"},
        }
        self.master = master
        self.sr = {"uuid": sr, "name_label": "NFS gold", "shared": shared, "other_config": {}}
        on = [ME, THEM] if shared else [ME]
        self.pbds = {f"OpaqueRef:pbd-{ref}": {"host": ref, "currently_attached": True} for ref in on}
        self.vdis: dict[str, dict[str, Any]] = {}
        self.vms: dict[str, dict[str, Any]] = {}
        self.vbds: dict[str, str] = {}
        self.calls: list[str] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        self.scans = 0
        self._sessions: set[str] = set()
        self._server: _Server | None = None

    # ------------------------------------------------------------------ the database

    def vdi(self, uuid: str, name: str = "", *, parent: str | None = None, managed: bool = True, **keys: str) -> str:
        config = dict(keys)
        if parent is not None:
            config["vhd-parent"] = parent
        record = {"uuid": uuid, "name_label": name, "managed": managed, "sm_config": config, "VBDs": []}
        self.vdis[f"OpaqueRef:vdi-{uuid}"] = record
        return uuid

    def config(self, uuid: str) -> dict[str, str]:
        return self.vdis[f"OpaqueRef:vdi-{uuid}"]["sm_config"]

    def vm(self, name: str, vdi: str, *, snapshot: bool = False) -> None:
        ref, vbd = f"OpaqueRef:vm-{name}", f"OpaqueRef:vbd-{name}-{vdi}"
        self.vms[ref] = {"name_label": name, "is_a_snapshot": snapshot}
        self.vbds[vbd] = ref
        self.vdis[f"OpaqueRef:vdi-{vdi}"]["VBDs"].append(vbd)

    # ------------------------------------------------------------------ the server

    def listen(self, path: Path) -> Path:
        return self._start(_UnixServer(str(path))) or path

    def listen_tls(self, certificate: Path, key: Path) -> int:
        server = _TcpServer(("127.0.0.1", 0))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self._start(server)
        return server.server_address[1]

    def _start(self, server: _Server) -> None:
        server.register_instance(self)
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Gone, in the middle of whatever it does: no listener, and no connection."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        if isinstance(server, _UnixServer):
            os.unlink(server.server_address)
        server.server_close()

    def cut(self) -> None:
        """Close every connection and listen no more, from inside of a call."""
        server, self._server = self._server, None
        assert server is not None
        if isinstance(server, _UnixServer):
            os.unlink(server.server_address)
        threading.Thread(target=lambda: (server.shutdown(), server.server_close()), daemon=True).start()
        for request in server.open:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def _dispatch(self, method: str, parameters: tuple[Any, ...]) -> dict[str, Any]:
        self.calls.append(method)
        self.hooks.get(method, lambda: None)()
        try:
            return {"Status": "Success", "Value": self._answer(method, list(parameters))}
        except Failure as error:
            return {"Status": "Failure", "ErrorDescription": list(error.args)}

    def _answer(self, method: str, given: list[Any]) -> Any:
        if method == "session.login_with_password":
            user, password = given[:2]
            if (user, password) not in (("root", ""), ("admin", PASSWORD)):
                raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
            self._sessions.add(session := f"OpaqueRef:session-{len(self.calls)}")
            return session
        session, *rest = given
        if session not in self._sessions:
            raise Failure("SESSION_INVALID", session)
        answer = getattr(self, f"_{method.replace('.', '_').lower()}", None)
        if answer is None:
            raise Failure("MESSAGE_METHOD_UNKNOWN", method)
        return answer(*rest) if method != "session.logout" else self._sessions.discard(session) or ""

    def forget_sessions(self) -> None:
        """As XAPI does when it is restarted."""
        self._sessions.clear()

    def _session_logout(self) -> str:
        return ""

    def _pool_get_all(self) -> list[str]:
        return ["OpaqueRef:pool"]

    def _pool_get_master(self, _pool: str) -> str:
        return self.master

    def _host_get_all_records(self) -> dict[str, Any]:
        return self.hosts

    def _sr_get_by_uuid(self, uuid: str) -> str:
        if uuid != self.sr["uuid"]:
            raise Failure("UUID_INVALID", "SR", uuid)
        return self.sr_ref

    def _sr_get_record(self, _ref: str) -> dict[str, Any]:
        return self.sr

    def _sr_get_uuid(self, _ref: str) -> str:
        return self.sr["uuid"]

    def _sr_scan(self, _ref: str) -> str:
        self.scans += 1
        return ""

    def _pbd_get_all_records_where(self, where: str) -> dict[str, Any]:
        assert where == f'field "SR" = "{self.sr_ref}"'
        return self.pbds

    def _vdi_get_all_records_where(self, where: str) -> dict[str, Any]:
        assert where == f'field "SR" = "{self.sr_ref}"'
        return self.vdis

    def _vdi_get_by_uuid(self, uuid: str) -> str:
        ref = f"OpaqueRef:vdi-{uuid}"
        if ref not in self.vdis:
            raise Failure("UUID_INVALID", "VDI", uuid)
        return ref

    def _vdi_get_sr(self, _ref: str) -> str:
        return self.sr_ref

    def _vdi_get_sm_config(self, ref: str) -> dict[str, str]:
        return self.vdis[ref]["sm_config"]

    def _vdi_add_to_sm_config(self, ref: str, key: str, value: str) -> str:
        config = self.vdis[ref]["sm_config"]
        if key in config:
            raise Failure("MAP_DUPLICATE_KEY", "VDI", "sm_config", ref, key)
        config[key] = value
        return ""

    def _vdi_remove_from_sm_config(self, ref: str, key: str) -> str:
        self.vdis[ref]["sm_config"].pop(key, None)
        return ""

    def _vbd_get_vm(self, ref: str) -> str:
        return self.vbds[ref]

    def _vm_get_record(self, ref: str) -> dict[str, Any]:
        return self.vms[ref]


def certificates(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path, Path]:
    """A CA of our own and a certificate of `name` (an IP address) signed by it: (ca, certificate, key)."""
    ca, ca_key, cert, key = (folder / one for one in ("ca.pem", "ca.key", "cert.pem", "cert.key"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["openssl", "req", "-x509", *curve, "-days", "2", "-keyout", str(ca_key), "-out", str(ca)]
    _run([*made, "-subj", "/CN=the pool's CA", "-addext", "keyUsage=critical,keyCertSign"])
    made = ["openssl", "req", "-x509", *curve, "-days", "2", "-keyout", str(key), "-out", str(cert)]
    issued = ["-CA", str(ca), "-CAkey", str(ca_key), "-addext", f"subjectAltName=IP:{name}"]
    _run([*made, *issued, "-subj", "/CN=xen-1", "-addext", "basicConstraints=critical,CA:FALSE"])
    return ca, cert, key


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
