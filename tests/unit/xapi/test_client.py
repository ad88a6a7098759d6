"""host.xapi: the real XenAPI client against a real server on a socket, sound, slow, gone, and not to be trusted."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from smfix.errors import Unreadable, UsageError
from smfix.sm.locks import Clock
from smfix.values import Names
from smfix.xapi import client, transport
from smfix.xapi.client import Pool, this_host
from smfix.xapi.login import Login, login
from xapi_host import GONE, HERE, ME, PASSWORD, THEM, Failure, XapiHost, certificates

pytest.importorskip("XenAPI", reason="the XenAPI package is not installed")

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
BASE = "1d994938-058e-102f-80dc-001ec95cb0b6"
LEAF = "5b0c1a7e-3a52-4a05-9f0e-6d1f6e0b7c11"
OTHER = "c5c0cdc3-c2c4-4c43-a5a2-845f36b866a4"


@pytest.fixture
def server():
    made = XapiHost(SR, shared=True)
    made.vdi(BASE, "base copy", managed=False)
    made.vdi(LEAF, "web-root", parent=BASE)
    made.vm("web01", LEAF)
    yield made
    made.stop()


@pytest.fixture
def path(server, tmp_path) -> Path:
    return server.listen(tmp_path / "xapi")


@pytest.fixture
def pool(path):
    made = Pool(Login(socket=str(path)), here=HERE)
    yield made
    made.close()


# ------------------------------------------------------------------------------ answers


def test_nobody_has_it(pool):
    standing = pool.disk_state(LEAF, SR)
    assert (standing.attached, standing.busy, standing.left_over) == ((), (), False)
    assert (standing.shared, standing.is_master_here) == (True, True)
    assert standing.master == "xen-1 (192.0.2.1)"
    assert pool.disk_state(BASE, SR).children == (LEAF,)


def test_keys_of_hosts(server, pool):
    server.config(LEAF).update({f"host_{ME}": "RO", f"host_{THEM}": "RW", f"host_{GONE}": "RW"})
    gone, me, them = pool.disk_state(LEAF, SR).attached
    assert (me.words, me.writes, me.is_here) == ("host xen-1 read-only", False, True)
    assert (them.words, them.writes, them.is_here) == ("host xen-2 read-write", True, False)
    assert (gone.host, gone.is_here) == (None, False)
    assert gone.words == f"a host that has left the pool ({GONE}) read-write"


@pytest.mark.parametrize("key", ["paused", "relinking", "activating"])
def test_sm_is_at_work(server, pool, key):
    server.config(LEAF)[key] = "true"
    assert pool.disk_state(LEAF, SR).busy == (key,)


def test_who_is_master(server, path):
    server.master = THEM
    elsewhere = Pool(Login(socket=str(path)), here=HERE).disk_state(LEAF, SR)
    assert (elsewhere.is_master_here, elsewhere.master) == (False, "xen-2 (192.0.2.2)")
    server.sr["shared"] = False
    server.pbds = {"p": {"host": ME, "currently_attached": True}, "q": {"host": THEM, "currently_attached": False}}
    assert Pool(Login(socket=str(path)), here=HERE).disk_state(LEAF, SR).is_master_here
    assert not Pool(Login(socket=str(path)), here=None).disk_state(LEAF, SR).is_master_here
    server.pbds = {}
    assert Pool(Login(socket=str(path)), here=HERE).disk_state(LEAF, SR).master == "a host that XAPI does not name"


def test_names_of_a_base_copy_are_those_of_its_leaves(server, pool):
    server.vdi(OTHER, "db-root", parent=BASE)
    server.vm("db01", OTHER)
    server.vm("nightly", OTHER, snapshot=True)
    assert pool.names(BASE, SR) == Names("base copy", "NFS gold", ("db01", "nightly (snapshot)", "web01"))
    assert pool.names(LEAF, SR) == Names("web-root", "NFS gold", ("web01",))
    assert pool.names(LEAF, None) == Names("web-root", "NFS gold", ("web01",))
    asked = len(server.calls)
    assert pool.names(LEAF, SR).vms == ("web01",)
    assert len(server.calls) == asked  # from memory


def test_names_of_what_is_unknown(server, pool):
    assert pool.names(OTHER, SR) == Names(sr="NFS gold")
    assert pool.names(None, None) == Names()
    assert pool.names(OTHER, None) == Names()
    server.stop()
    assert Pool(Login(socket="/nonexistent"), here=None).names(LEAF, SR) == Names()


def test_switches_and_memory(server, path):
    now = [0.0]
    pool = Pool(Login(socket=str(path)), here=HERE, clock=Clock(lambda: now[0], lambda _s: None))
    assert (pool.sr(SR).gc, pool.sr(SR).coalesce, pool.sr(SR).unhealthy) == (True, True, 1)
    server.sr["other_config"] = {"gc": "false", "coalesce": "false"}
    assert pool.sr(SR).gc is True
    assert pool.sr(SR, age=0).gc is False
    server.sr["name_label"] = "other"
    now[0] += client.MEMORY
    assert pool.sr(SR).name == "other"
    pool.close()


def test_what_was_warmed_is_not_asked_for_behind_the_locks(server, path):
    now = [0.0]
    pool = Pool(Login(socket=str(path)), here=HERE, clock=Clock(lambda: now[0], lambda _s: None))
    pool.warm(SR)
    now[0] += 1.5 * client.MEMORY
    server.calls.clear()
    pool.disk_state(LEAF, SR)
    assert server.calls == ["VDI.get_by_uuid", "VDI.get_sm_config"]
    now[0] += client.MEMORY
    pool.disk_state(LEAF, SR)
    assert "VDI.get_all_records_where" in server.calls
    pool.close()


def test_a_scan_and_an_error_of_xapis(server, pool):
    pool.scan(SR)
    assert server.scans == 1
    with pytest.raises(Unreadable, match="answers SR.get_by_uuid with UUID_INVALID SR nothing"):
        pool.scan("nothing")
    assert pool.disk_state(LEAF, SR)  # an error is an answer: it is asked again


def test_a_lost_session_is_renewed(server, pool):
    pool.scan(SR)
    server.forget_sessions()
    pool.scan(SR)
    assert server.calls.count("session.login_with_password") == 2


def test_the_session_is_ended(server, path):
    pool = Pool(Login(socket=str(path)), here=HERE)
    pool.close()
    assert server.calls == []
    pool.scan(SR)
    pool.close()
    assert server.calls[-1] == "session.logout"


# ------------------------------------------------------------------------------ the pause


def test_a_pause_is_there_while_it_lasts(server, pool):
    with pool.paused(LEAF):
        assert server.config(LEAF)["paused"] == "smfix"
        assert pool.disk_state(LEAF, SR).busy == ()
    assert "paused" not in server.config(LEAF)


def test_a_pause_of_sms_stays(server, pool):
    server.config(LEAF)["paused"] = "true"
    with pytest.raises(Unreadable, match="MAP_DUPLICATE_KEY"), pool.paused(LEAF):
        pytest.fail("paused by two")
    assert server.config(LEAF)["paused"] == "true"


def test_what_a_killed_smfix_left_is_taken_over(server, pool):
    server.config(LEAF)["paused"] = "smfix"
    assert pool.disk_state(LEAF, SR).left_over
    with pool.paused(LEAF):
        pass
    assert "paused" not in server.config(LEAF)


def test_a_pause_that_cannot_be_ended_is_told(server, path):
    pool = Pool(Login(socket=str(path)), here=HERE, clock=Clock(sleep=lambda _s: None))
    with pool.paused(LEAF):
        server.stop()
        pool._session = None
    assert pool.left_paused == [LEAF]


# ------------------------------------------------------------------------------ no answer


def test_nobody_listens(tmp_path):
    pool = Pool(Login(socket=str(tmp_path / "none")), here=HERE)
    with pytest.raises(Unreadable, match="cannot be asked: No such file or directory"):
        pool.disk_state(LEAF, SR)


def test_gone_in_the_middle_of_a_call(server, pool):
    pool.disk_state(LEAF, SR)
    server.hooks["VDI.get_sm_config"] = server.cut
    with pytest.raises(Unreadable, match="cannot be asked"):
        pool.disk_state(LEAF, SR)


def test_silence_is_remembered_then_asked_again(server, tmp_path):
    now = [0.0]
    pool = Pool(Login(socket=str(tmp_path / "late")), here=HERE, clock=Clock(lambda: now[0], lambda _s: None))
    with pytest.raises(Unreadable):
        pool.scan(SR)
    server.listen(tmp_path / "late")
    with pytest.raises(Unreadable):
        pool.scan(SR)
    assert server.calls == []
    now[0] += client.SILENCE
    pool.scan(SR)
    assert server.scans == 1


def test_a_slow_server_costs_its_limit_once(server, pool, monkeypatch):
    pool.disk_state(LEAF, SR)
    monkeypatch.setattr(client, "NOW_LIMIT", 0.2)
    wake = threading.Event()
    server.hooks["VDI.get_sm_config"] = lambda: wake.wait(5)
    begun = time.monotonic()
    for _ in range(10):
        with pytest.raises(Unreadable, match=r"did not answer VDI.get_sm_config in time"):
            pool.disk_state(LEAF, SR)
    assert time.monotonic() - begun < 1.5
    wake.set()


@contextmanager
def raw_server(path: Path, answer):
    """One connection at a time, each given to `answer` once the request is in."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"</methodCall>" not in request and (piece := connection.recv(65536)):
                    request += piece
                with suppress(OSError):
                    answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # accept() returns; closing alone would leave it waiting
        listener.close()
        thread.join()


def test_an_answer_that_drips_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "CALL_LIMIT", 0.3)

    def drip(connection) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)

    with raw_server(tmp_path / "s", drip):
        begun = time.monotonic()
        with pytest.raises(Unreadable, match="in time"):
            Pool(Login(socket=str(tmp_path / "s")), here=None).hosts()
        assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>no</html>", "cannot be asked"),
        (b"\xff\x00", "cannot be asked"),
        (b"<methodResponse><params><param><value><int>1</int></value></param></params></methodResponse>", "asked"),
        (b" " * 5000, "more than 4096 bytes"),
    ],
)
def test_an_answer_that_is_none(tmp_path, monkeypatch, body, said):
    monkeypatch.setattr(transport, "MAX_ANSWER", 4096)

    def answer(connection) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    with raw_server(tmp_path / "s", answer), pytest.raises(Unreadable, match=said):
        Pool(Login(socket=str(tmp_path / "s")), here=None).hosts()


def test_records_that_are_none(server, pool):
    server.hosts = []
    with pytest.raises(Unreadable, match="not a record"):
        pool.hosts()
    server.hosts = {}
    server._pool_get_all = list
    with pytest.raises(Unreadable, match="names no pool"):
        pool.hosts()


def test_without_the_client(path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "XenAPI", None)
    with pytest.raises(Unreadable, match=r"XenAPI is not installed \(pip install 'smfix\[xapi\]'\)"):
        Pool(Login(socket=str(path)), here=HERE).disk_state(LEAF, SR)


# ------------------------------------------------------------------------------ a remote pool


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("pki"))


def remote(server, pki, **other) -> Pool:
    port = server.listen_tls(pki[1], pki[2])
    given = {"url": f"https://127.0.0.1:{port}", "user": "admin", "password": PASSWORD, "ca": str(pki[0])} | other
    return Pool(Login(**given), here=None)


@pytest.mark.tools("openssl")
def test_a_remote_pool_by_tls(server, pki):
    pool = remote(server, pki)
    assert pool.names(LEAF, SR).vms == ("web01",)
    assert not pool.disk_state(LEAF, SR).is_master_here
    pool.close()


@pytest.mark.tools("openssl")
def test_a_wrong_certificate(server, pki, tmp_path):
    with pytest.raises(Unreadable, match="a certificate that is not to be trusted"):
        remote(server, pki, ca=None).hosts()
    assert server.calls == []  # no password was sent
    server.stop()
    folder = tmp_path / "wrong"
    folder.mkdir()
    with pytest.raises(Unreadable, match="not to be trusted.*IP address mismatch"):
        remote(server, certificates(folder, "192.0.2.9")).hosts()
    assert server.calls == []


def test_the_cas_of_a_host_of_another_distribution(tmp_path, monkeypatch):
    import ssl
    from types import SimpleNamespace

    from smfix.xapi import transport

    bundle = tmp_path / "ca-bundle.crt"
    monkeypatch.setattr(transport, "_BUNDLES", (str(tmp_path / "other"), str(bundle)))
    for cafile, capath in (("/usr/lib/ssl/cert.pem", None), (None, "/usr/lib/ssl/certs")):
        found = SimpleNamespace(cafile=cafile, capath=capath)
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda found=found: found)
        assert transport.system_authorities() is None
    nothing = SimpleNamespace(cafile=None, capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    assert transport.system_authorities() is None
    bundle.write_text("")
    assert transport.system_authorities() == str(bundle)


@pytest.mark.tools("openssl")
def test_a_wrong_password_is_not_repeated(server, pki):
    with pytest.raises(Unreadable, match="does not accept the credentials of admin") as caught:
        remote(server, pki, password="guessed").hosts()
    assert "guessed" not in str(caught.value)


@pytest.mark.tools("openssl")
def test_a_member_names_its_coordinator(server, pki):
    def refuse() -> None:
        raise Failure("HOST_IS_SLAVE", "192.0.2.1")

    answer = server._answer
    server._answer = lambda method, given: refuse() if method.startswith("session") else answer(method, given)
    with pytest.raises(Unreadable, match=r"is a member of its pool; name the coordinator: 192\.0\.2\.1"):
        remote(server, pki).hosts()


# ------------------------------------------------------------------------------ how to reach it


def login_file(tmp_path, text: str, mode: int = 0o600) -> str:
    path = tmp_path / "login.toml"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


GOOD = 'url = "https://xen-1.example:8443/"\nuser = "admin"\npassword = "secret"\n'


def test_a_file_wins(tmp_path):
    found = login(login_file(tmp_path, GOOD + 'ca = "/ca.pem"\n'), {"SMFIX_XAPI_URL": "x"})
    assert found == Login(None, "https://xen-1.example:8443", "admin", "secret", "/ca.pem")
    assert found.where == "https://xen-1.example:8443"
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url = ", "is not TOML"),
        ('url = "https://a"\nuser = "b"\n', "lacks password"),
        (GOOD + 'pin = "1"\n', "has pin"),
        (GOOD + "ca = 1\n", "has a value that is not text"),
        (GOOD.replace("https", "http"), "https://HOST"),
        (GOOD.replace("https://", "https://root:x@"), "without a user in it"),
        (GOOD.replace("xen-1.example:8443", ""), "https://HOST"),
        (GOOD.replace("8443", "no-port"), "https://HOST"),
        (GOOD.replace("xen-1.example:8443", "[::1"), "https://HOST"),
    ],
)
def test_files_that_say_something_else(tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        login(login_file(tmp_path, text), {})


def test_a_password_for_everybody_is_refused(tmp_path):
    with pytest.raises(UsageError, match="mode 0600"):
        login(login_file(tmp_path, GOOD, 0o644), {})
    with pytest.raises(UsageError, match="mode 0600"):
        login("/dev/null", {})
    with pytest.raises(Unreadable, match="No such file"):
        login(str(tmp_path / "none"), {})


def test_the_environment_then_the_socket(tmp_path):
    given = {"SMFIX_XAPI_URL": "https://a", "SMFIX_XAPI_USER": "u", "SMFIX_XAPI_PASSWORD": "p"}
    assert login(None, given) == Login(None, "https://a", "u", "p")
    with pytest.raises(UsageError, match=r"the environment \(SMFIX_XAPI_\*\) lacks user, password"):
        login(None, {"SMFIX_XAPI_URL": "https://a"})
    there = tmp_path / "xapi"
    assert login(None, {}, socket=str(there)) is None
    there.touch()
    assert login(None, {}, socket=str(there)) == Login(socket=str(there))


def test_the_inventory_names_this_host(tmp_path):
    inventory = tmp_path / "inventory"
    assert this_host(str(inventory)) is None
    inventory.write_text("PRODUCT='x'\n")
    assert this_host(str(inventory)) is None
    inventory.write_text(f"PRODUCT='x'\nINSTALLATION_UUID='{HERE.upper()}'\n")
    assert this_host(str(inventory)) == HERE
