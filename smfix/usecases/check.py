"""Examine images without writing: verdict, open handles, chain. `smfix check`."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from smfix.errors import SmfixError
from smfix.formats.registry import diagnose, inspect, row
from smfix.host import wait_notice
from smfix.host.image_file import Identity, open_image
from smfix.host.open_files import OpenState, open_state, usage_of
from smfix.sm.resolve import Found
from smfix.sm.sr_types.registry import place_of, sr_type_of
from smfix.usecases import image_relatives
from smfix.usecases.repair_context import names_of
from smfix.usecases.repair_image import context_of, held_by, seen_by
from smfix.usecases.resolve import Missing, resolved
from smfix.usecases.run_options import RunOptions
from smfix.values import CheckedImage, Reason, Refusal, Status, Verdict


def check(targets: Sequence[str], run_options: RunOptions, *, parents: bool = False) -> tuple[CheckedImage, ...]:
    """Return the verdict on every image that the targets name; `parents`: and on their chains, nearest first.

    Writes nothing, takes no lock. Raises UsageError.
    """
    images = resolved(targets, run_options)
    uses = uses_of([image for image in images if isinstance(image, Found)])
    done: dict[str, CheckedImage] = {}
    above: dict[str, str] = {}
    for image in images:
        if isinstance(image, Missing):
            done[image.text] = _no_image(image)
            continue
        child = None
        for found in (image, *(chain_of(image) if parents else ())):
            path = place_of(found.target.path)
            if path not in done:
                with wait_notice.watched(found.target.path, run_options.say):
                    done[path] = checked(found, uses.get(found.target.path), run_options)
            if child is not None:
                above[child] = path
            child = path
    return tuple(
        image._replace(parent=done[above[path]].path) if path in above else image for path, image in done.items()
    )


def _no_image(missing: Missing) -> CheckedImage:
    outcome, words = missing.outcome, None
    if outcome.status is Status.AMBIGUOUS:
        words = "ambiguous"
    elif outcome.status is Status.NOT_FOUND and (outcome.next or os.strerror(errno.ENOENT) in outcome.message):
        words = "not found"
    return CheckedImage(missing.text, Verdict.UNREADABLE, note=outcome.message, said=words, next=outcome.next)


def uses_of(founds: Sequence[Found]) -> dict[str, OpenState]:
    """Return how each image is held open, in one pass over the host; without images that cannot be opened."""
    seen: dict[str, Identity] = {}
    for found in founds:
        try:
            opened = open_image(found.target, sr_root=found.root)
        except SmfixError:
            continue
        if not isinstance(opened, Refusal):
            with opened:
                seen[found.target.path] = opened.identity
    return dict(zip(seen, usage_of(tuple(seen.values())), strict=True))


def chain_of(found: Found) -> tuple[Found, ...]:
    """Return the parents of the image, nearest first, as far as they are found."""
    try:
        opened = open_image(found.target, sr_root=found.root)
        if isinstance(opened, Refusal):
            return ()
        with opened:
            return tuple(image_relatives.ancestors(inspect(opened), found))
    except SmfixError:
        return ()  # the check of the image itself reports the error


def checked(found: Found, uses: OpenState | None, run_options: RunOptions) -> CheckedImage:
    """Return the verdict on one image; `uses` is from :func:`uses_of`, None to look now. Never raises."""
    path = found.target.path
    names = names_of(run_options, found.target)
    try:
        refusal = sr_type_of(found.target).inactive_refusal(found.target)
        if refusal is not None:
            return CheckedImage(path, Verdict.UNREADABLE, note=refusal.message, names=names)
        opened = open_image(found.target, sr_root=found.root)
        if isinstance(opened, Refusal):
            verdict = Verdict.NOT_A_VHD if opened.reason is Reason.NOT_A_VHD else Verdict.UNREADABLE
            return CheckedImage(path, verdict, note=opened.message, names=names)
        with opened:
            uses = uses or open_state(opened.identity)
            image = inspect(opened)
            context = context_of(image, found, uses.state)
            diagnosis = diagnose(image, context)
            if diagnosis.verdict is Verdict.NOT_A_VHD:
                return CheckedImage(
                    path, Verdict.NOT_A_VHD, image.size, note="it holds no structure of a VHD", names=names
                )
            if diagnosis.verdict is Verdict.INVALID:
                # What looks like damage may be a disk that another host of the pool has open.
                uses = held_by(uses, found.target, run_options)
                with ExitStack() as stack:
                    if any(problem and problem.asks_relatives for problem in (row(f.code) for f in diagnosis.findings)):
                        context = image_relatives.with_relatives(
                            context, image_relatives.relatives_of(image, found, stack)
                        )
                    context = replace(context, in_use=uses.state)
                    diagnosis = diagnose(image, context)
            notes = [f"held by {', '.join(uses.holders)}"] if uses.holders else []
            notes += filter(None, [seen_by(context, uses).removeprefix("; ")])
            return CheckedImage(
                path,
                diagnosis.verdict,
                image.size,
                image.end_of_data,
                diagnosis.findings,
                "; ".join(notes) or None,
                names,
            )
    except SmfixError as error:
        return CheckedImage(path, Verdict.UNREADABLE, note=str(error), names=names)
