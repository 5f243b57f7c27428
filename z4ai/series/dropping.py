"""What a step leaves behind that goes: which steps are stored anew, and how."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from z4ai._atomic import AtomicFile
from z4ai.series.storing import Storing

if TYPE_CHECKING:
    from z4ai._progress import Progress
    from z4ai.series.manifest import Manifest, Step
    from z4ai.series.opening import Opener

__all__ = ["heirs", "store_anew"]


def heirs(manifest: Manifest, dropped: Step) -> tuple[list[Step], Manifest]:
    """Find the steps that must be stored anew, and one of them that takes the dropped one's place.

    That is the first of its stream: the others can be stored against it then, behind which they
    stand.
    """
    affected = manifest.dependents(dropped.name)
    if not affected:
        return affected, manifest
    heir = next((step for step in affected if step.stream == dropped.stream), affected[0])
    steps = [step for step in manifest.steps if step is not heir]
    steps.insert(steps.index(dropped) + 1, heir)
    return [heir, *(step for step in affected if step is not heir)], manifest.with_steps(steps)


def store_anew(
    opener: Opener, before: Manifest, now: Manifest, dropped: Step, old: Step, bar: Progress
) -> Step:
    """Store a step without the one that goes, in ``.partial``; no deeper than it was.

    Parameters
    ----------
    opener : Opener
        Of the series, whose only writer is the caller.
    before, now : Manifest
        Of the steps as they are; of those that it may be stored against, and the one that goes.
    dropped : Step
        The one that goes.
    old : Step
        The step as it is.
    bar : Progress
        Moved by its size for each pass.

    Returns
    -------
    Step
        The step as it will be.
    """
    written = os.path.join(opener.folder.partial, f"{os.path.splitext(old.file)[0]}.safetensors")
    # What lies there meanwhile, and what is made of it, is as private as the step.
    with (
        opener.open(before, old) as chain,
        AtomicFile(written, like=chain.path) as file,
    ):
        chain.restore(file.write, bar.update)
        file.commit()
    place = now.steps.index(old)
    known = [step for step in now.steps[:place] if step.name != dropped.name]
    job = Storing(opener, now.with_steps(known), written, bar)
    made = job.store(old.name, old.stream, old.step, old.depth, None)
    job.verify(made)
    os.unlink(written)
    return made
