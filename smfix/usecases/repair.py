"""Repair the images that a command line names: `smfix repair`."""

from __future__ import annotations

from collections.abc import Sequence

from smfix.errors import UsageError
from smfix.sm.resolve import Found
from smfix.usecases.repair_context import names_of
from smfix.usecases.repair_image import repair_image
from smfix.usecases.resolve import parents_first, resolved
from smfix.usecases.run_options import After, Progress, RunOptions
from smfix.values import TreatedImage


def repair(
    targets: Sequence[str], run_options: RunOptions, each: Progress | None = None, after: After | None = None
) -> tuple[TreatedImage, ...]:
    """Repair every image that the targets name, parents first; `after` takes each outcome. Raises UsageError."""
    images = resolved(targets, run_options)
    if len(images) > 1 and (run_options.given_size is not None or run_options.given_uuid is not None):
        raise UsageError(f"--size and --uuid speak of one disk, the targets name {len(images)}")
    treated: dict[int, TreatedImage] = {}
    for index in parents_first(images):
        image = images[index]
        if each is not None:
            each(len(treated), len(images))
        if isinstance(image, Found):
            target = image.target
            treated[index] = TreatedImage(
                target.path, repair_image(image, run_options), names=names_of(run_options, target), sr=target.sr
            )
        else:
            treated[index] = TreatedImage(image.text, image.outcome, image.is_missing)
        if after is not None:
            after(treated[index].path, treated[index].outcome)
    return tuple(treated[index] for index in range(len(images)))
