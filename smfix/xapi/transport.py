"""How the XenAPI client reaches XAPI: the local socket or TLS, every call bounded in time and size.

The client's own transports wait for ever, and read whatever comes. Imported only when a connection is made:
it needs what the rest of smfix does without (HTTP, XML, TLS).
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
import xmlrpc.client
from typing import Any

MAX_ANSWER = 256 << 20
"""Bytes of one answer: the records of 100,000 disks are about half of that."""


_BUNDLES = ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/ca-bundle.pem")
"""Where distributions keep the CAs they trust: Red Hat's (dom0), Debian's, SUSE's."""


def system_authorities() -> str | None:
    """The host's CAs, where OpenSSL looks in another place: ours may have been built on another distribution.

    None where OpenSSL finds what it looks for, or there is nothing to be found.
    """
    looked = ssl.get_default_verify_paths()
    if looked.cafile or looked.capath:
        return None
    return next((path for path in _BUNDLES if os.path.isfile(path)), None)


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, with the timeout that the client's own lacks."""

    def __init__(self, path: str, limit: float) -> None:
        super().__init__("localhost", timeout=limit)
        self._path = path

    def connect(self) -> None:
        """As the client's own, but within the limit, also where the server's queue is full for a while."""
        deadline = time.monotonic() + (self.timeout or 0)
        while True:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(self._path)
            except OSError as error:
                self.sock.close()
                # EAGAIN, which a socket without a timeout would have waited out.
                if not isinstance(error, BlockingIOError) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


class _Bounded(xmlrpc.client.Transport):
    """A transport whose calls end: `limit` seconds for each, from the first byte to the last."""

    accept_gzip_encoding = False  # so that what is counted is what is parsed

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self._deadline = 0.0
        self._open: http.client.HTTPConnection | None = None

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """The connection, which is kept for the next call; its timeout is the call's."""
        if self._open is None:
            self._open = self._new(host)
            self._connection = host, self._open
        self._open.timeout = self.limit
        if self._open.sock is not None:
            self._open.sock.settimeout(self.limit)
        return self._open

    def _new(self, host: Any) -> http.client.HTTPConnection:
        raise NotImplementedError

    def close(self) -> None:
        """Forget the connection: half an answer may be in it."""
        self._open = None
        super().close()

    def request(self, *request: Any, **options: Any) -> Any:
        """One call and its answer, within `limit` seconds. Raises what the client raises, and TimeoutError."""
        self._deadline = time.monotonic() + self.limit
        try:
            return super().request(*request, **options)
        except BaseException:
            self.close()
            raise

    def parse_response(self, response: http.client.HTTPResponse) -> Any:
        """The answer. Raises OSError where it is too long, TimeoutError where it takes too long."""
        parser, target = self.getparser()
        size = 0
        while piece := response.read1(1 << 16):
            size += len(piece)
            if size > MAX_ANSWER:
                raise OSError(f"an answer of more than {MAX_ANSWER} bytes")
            if time.monotonic() > self._deadline:
                raise TimeoutError("timed out")
            parser.feed(piece)
        parser.close()
        return target.close()


class SocketTransport(_Bounded):
    """To the XAPI of this host, by its Unix socket."""

    def __init__(self, path: str, limit: float) -> None:
        super().__init__(limit)
        self._path = path

    def _new(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the socket is the host
        return _SocketConnection(self._path, self.limit)


class TlsTransport(_Bounded):
    """To the XAPI of another machine; its certificate is verified against `ca` (PEM), else the system's CAs."""

    def __init__(self, limit: float, ca: str | None) -> None:
        super().__init__(limit)
        self._context = ssl.create_default_context(cafile=ca or system_authorities())
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def _new(self, host: Any) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(host, timeout=self.limit, context=self._context)
