"""Refuse to write an image that XAPI shows as used by another host of the pool or by the storage manager. Pure.

Theory. XAPI's keys are set before a disk is attached and removed after it was detached, so no key means not attached.
A key may be stale (its host crashed). smfix treats a key as stale only on this host, after it has seen that no process
and no tapdisk has the image, while it holds SM's lock of the disk. A key of another host is always believed, even if
that host has left the pool: an operator who knows that the host is gone clears it.
"""

from __future__ import annotations

from smfix.values import NextStep, Reason, Refusal, StepKind, Target
from smfix.xapi.records import Attachment, PoolDiskState


def pool_refusal(target: Target, state: PoolDiskState, *, hidden: bool | None, only_appends: bool) -> Refusal | None:
    """Return the refusal to write the image from this host, or None if nothing in XAPI forbids it.

    The caller has checked that no process of **this** host holds it read-write. `hidden`: the footer's mark, None if
    unknown. `only_appends`: every edit is after the end of data, which no reader uses.
    """
    writer = next((one for one in state.attached if one.writes and not one.is_here), None)
    if writer is not None:
        return _attached(target, writer)
    if state.busy:
        return Refusal(
            Reason.SM_PENDING,
            f"XAPI has the key {', '.join(state.busy)} for {target.path}: the storage manager is at work on it; try "
            "again when it is done",
            _look(target),
        )
    if not state.is_master_here:
        return Refusal(
            Reason.SHARED_SR_UNKNOWN,
            f"the locks that count for {target.path} are on {state.master}: run smfix there",
        )
    reader = next((one for one in state.attached if not one.writes and not one.is_here), None)
    if reader is not None and not hidden and not only_appends:
        return Refusal(
            Reason.IN_USE,
            f"{target.path} is attached to {reader.words}, and this repair changes metadata that a reader uses; "
            "run smfix again after it is detached",
            _look(target),
        )
    return None


def _attached(target: Target, writer: Attachment) -> Refusal:
    message = f"{target.path} is attached to {writer.words}, says XAPI; shut down the VM or detach the disk"
    gone = "; if that host is gone for good, its key is stale: clear it with SM's resetvdis.py, then run smfix again"
    return Refusal(Reason.IN_USE, message + gone, _look(target))


def _look(target: Target) -> tuple[NextStep, ...]:
    return (NextStep(StepKind.SHOW_SM_CONFIG, (target.vdi,)),) if target.vdi else ()
