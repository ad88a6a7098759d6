"""Whether another host of the pool, or the storage manager there, forbids to write an image: XAPI's part.

Theory. XAPI's keys are made before a disk is attached and taken away after it was detached, so no key means
not attached. A key may be stale (its host crashed). It is believed stale only where we can see for
ourselves: on this host, where no process and no tapdisk has the image while SM's lock of the disk is ours.
A key of another host is never disproved from here, not even one that names no host of the pool any more: who
knows that the host is gone clears it.
"""

from __future__ import annotations

from smfix.values import Reason, Refusal, Target
from smfix.xapi.records import Attachment, PoolDiskState


def pool_refusal(target: Target, standing: PoolDiskState, *, hidden: bool | None, only_appends: bool) -> Refusal | None:
    """Why what XAPI says forbids to write the image from this host, or None.

    The caller has seen that nobody **here** holds it read-write. `hidden`: the footer's mark, None where nobody
    knows. `only_appends`: what is to be written lies behind the data, where no reader looks.
    """
    writer = next((one for one in standing.attached if one.writes and not one.is_here), None)
    if writer is not None:
        return _attached(target, writer)
    if standing.busy:
        return Refusal(
            Reason.SM_PENDING,
            f"XAPI says of {target.path}: {', '.join(standing.busy)}: the storage manager is at work on it; try "
            "again when it is done",
            _look(target),
        )
    if not standing.is_master_here:
        return Refusal(
            Reason.SHARED_SR_UNKNOWN,
            f"the locks that count for {target.path} are on {standing.master}: run smfix there",
        )
    reader = next((one for one in standing.attached if not one.writes and not one.is_here), None)
    if reader is not None and not hidden and not only_appends:
        return Refusal(
            Reason.IN_USE,
            f"{target.path} is attached to {reader.words}, and what is to be written lies where a reader looks; "
            "run smfix again when it is detached",
            _look(target),
        )
    return None


def _attached(target: Target, writer: Attachment) -> Refusal:
    message = f"{target.path} is attached to {writer.words}, says XAPI; shut down the VM or detach the disk"
    gone = "; if that host is gone for good, its key is stale: clear it with SM's resetvdis.py, then run smfix again"
    return Refusal(Reason.IN_USE, message + gone, _look(target))


def _look(target: Target) -> tuple[str, ...]:
    return (f"xe vdi-param-get uuid={target.vdi} param-name=sm-config",) if target.vdi else ()
