"""Connect the XenAPI client to XAPI: by the local socket or TLS, every call bounded in time and size.

The client's own transports wait for ever, and read answers of any size. Imported only when a connection is made,
because no other part of smfix needs HTTP, XML and TLS.
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
"""The CA bundles of Red Hat (dom0), Debian and SUSE."""


def system_authorities() -> str | None:
    """Find the host's CAs if OpenSSL looks in another place: it may have been built on another distribution.

    None if OpenSSL finds its CAs, or if the host has none.
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
        """Connect within the time limit, and try again while the server's queue is full."""
        deadline = time.monotonic() + (self.timeout or 0)
        while True:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(self._path)
            except OSError as error:
                self.sock.close()
                # EAGAIN: the queue is full; a socket without a timeout would wait.
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
        """Return the connection, which is kept for the next call, with this call's timeout."""
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
        """Forget the connection, which may hold half an answer."""
        self._open = None
        super().close()

    def request(self, *request: Any, **options: Any) -> Any:
        """Make one call and return its answer. Raises what the client raises; TimeoutError after `limit` s."""
        self._deadline = time.monotonic() + self.limit
        try:
            return super().request(*request, **options)
        except BaseException:
            self.close()
            raise

    def parse_response(self, response: http.client.HTTPResponse) -> Any:
        """Return the answer. Raises OSError if it is too large, TimeoutError if it takes too long."""
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
