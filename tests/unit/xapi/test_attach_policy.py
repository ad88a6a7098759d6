"""host.elsewhere: what XAPI says against a write, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smfix.values import Backing, Reason, Target
from smfix.xapi.attach_policy import pool_refusal
from smfix.xapi.records import Attachment, PoolDiskState, PoolHost
from steps import lines

VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
TARGET = Target("/sr/x.vhd", Backing.FILE, VDI, "sr")
FREE = PoolDiskState((), (), left_over=False, shared=True, is_master_here=True, master="xen-1 (192.0.2.1)")
XEN2 = PoolHost("ref-2", "uuid-2", "xen-2")


def attached(*, writes: bool, here: bool = False, host: PoolHost | None = XEN2) -> PoolDiskState:
    return replace(FREE, attached=(Attachment("ref-2", host, writes, here),))


def refusal(standing: PoolDiskState, *, hidden: bool | None = False, only_appends: bool = True):
    return pool_refusal(TARGET, standing, hidden=hidden, only_appends=only_appends)


def test_a_detached_leaf_is_free():
    assert refusal(FREE, only_appends=False) is None


@pytest.mark.parametrize("hidden", [True, False, None])
def test_read_write_on_another_host_forbids_everything(hidden):
    found = refusal(attached(writes=True), hidden=hidden)
    assert found.reason is Reason.IN_USE
    assert "attached to host xen-2 read-write, says XAPI" in found.message
    assert lines(found.next) == (f"xe vdi-param-get uuid={VDI} param-name=sm-config",)


def test_the_key_of_a_host_that_left_is_not_disproved():
    found = refusal(attached(writes=True, host=None))
    assert found.reason is Reason.IN_USE
    assert "its key is stale: clear it with SM's resetvdis.py" in found.message


def test_a_key_of_this_host_is_stale_where_nobody_has_it():
    assert refusal(attached(writes=True, here=True)) is None


@pytest.mark.parametrize(
    ("hidden", "only_appends", "forbidden"),
    [(True, False, False), (True, True, False), (False, True, False), (False, False, True), (None, False, True)],
)
def test_a_reader_forbids_what_it_would_read(hidden, only_appends, forbidden):
    found = refusal(attached(writes=False), hidden=hidden, only_appends=only_appends)
    assert (found is not None) is forbidden
    assert found is None or found.reason is Reason.IN_USE


def test_sm_at_work():
    found = refusal(replace(FREE, busy=("relinking",)), hidden=True)
    assert (found.reason, "relinking" in found.message) == (Reason.SM_PENDING, True)


def test_another_host_is_master():
    found = refusal(replace(FREE, is_master_here=False), hidden=True)
    assert (found.reason, "are on xen-1 (192.0.2.1): run smfix there" in found.message) == (
        Reason.SHARED_SR_UNKNOWN,
        True,
    )


def test_without_a_name_there_is_nothing_to_look_up():
    found = pool_refusal(TARGET._replace(vdi=None), attached(writes=True), hidden=False, only_appends=True)
    assert found.next == ()
