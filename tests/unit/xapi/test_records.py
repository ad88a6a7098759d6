"""host.pool: chains, leaves, keys, as XAPI's records have them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smfix.xapi import records
from smfix.xapi.records import Attachment, PoolDisk, PoolHost, PoolSr, attachments, busy_keys, vm_names

HOSTS = {"ref-1": PoolHost("ref-1", "uuid-1", "xen-1"), "ref-2": PoolHost("ref-2", "uuid-2", "xen-2")}


def sr(*disks: PoolDisk) -> PoolSr:
    return PoolSr("sr", "name", True, True, True, (), {disk.uuid: disk for disk in disks})


def base(uuid: str, parent: str | None = None) -> PoolDisk:
    return PoolDisk(uuid, "base copy", False, parent)


def leaf(uuid: str, parent: str | None = None) -> PoolDisk:
    return PoolDisk(uuid, uuid, True, parent)


def test_a_base_copy_with_one_child_is_unhealthy():
    chain = sr(base("a"), base("b", "a"), leaf("c", "b"), leaf("d", "b"), leaf("e"))
    assert chain.unhealthy == 1  # a, and not b, which has two
    assert sr(base("a"), leaf("c", "a")).unhealthy == 1
    assert sr(leaf("a"), leaf("c", "a")).unhealthy == 0  # a snapshot that something hangs below
    assert sr().unhealthy == 0


def test_leaves_are_at_the_end_of_every_chain():
    tree = sr(base("a"), base("b", "a"), leaf("c", "b"), leaf("d", "b"), leaf("e", "a"), leaf("f"))
    assert {disk.uuid for disk in tree.leaves("a")} == {"c", "d", "e"}
    assert [disk.uuid for disk in tree.leaves("c")] == ["c"]
    assert tree.leaves("unknown") == ()
    assert sorted(tree.children("b")) == ["c", "d"]
    assert tree.children("c") == ()


def test_a_ring_ends_and_a_crowd_is_cut():
    assert sr(base("a", "b"), base("b", "a")).leaves("a") == ()
    crowd = sr(base("a"), *(leaf(f"l{n}", "a") for n in range(3 * records.MAX_LEAVES)))
    assert len(crowd.leaves("a")) == records.MAX_LEAVES


@given(st.dictionaries(st.text(max_size=3), st.none() | st.text(max_size=3), max_size=20))
def test_any_database_has_leaves_and_a_count(parents):
    chaos = sr(*(base(uuid, parent) for uuid, parent in parents.items()))
    assert 0 <= chaos.unhealthy <= len(parents)
    for uuid in parents:
        assert all(disk.uuid in parents for disk in chaos.leaves(uuid))


def test_keys_name_hosts():
    config = {"host_ref-1": "RW", "host_ref-2": "RO", "host_ref-3": "odd", "vhd-parent": "x"}
    mine, theirs, gone = attachments(config, HOSTS, "uuid-1")
    assert mine == Attachment("ref-1", HOSTS["ref-1"], writes=True, is_here=True)
    assert theirs == Attachment("ref-2", HOSTS["ref-2"], writes=False, is_here=False)
    assert gone == Attachment("ref-3", None, writes=True, is_here=False)  # what is not RO may write
    assert not any(one.is_here for one in attachments(config, HOSTS, None))
    assert theirs.words == "host xen-2 read-only"
    assert gone.words == "a host that has left the pool (ref-3) read-write"


def test_busy_keys():
    assert busy_keys({"paused": "true", "activating": "True", "host_x": "RW"}) == ("paused", "activating")
    assert busy_keys({"paused": "smfix", "relinking": "true"}) == ("relinking",)


def test_names_once_and_sorted():
    assert vm_names(["b", "a", "", "b"]) == ("a", "b")
