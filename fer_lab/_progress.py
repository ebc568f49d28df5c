"""Progress bars that show where somebody can see them and nowhere else."""

import os

from tqdm.auto import tqdm


def progress(iterable=None, description: str = "", *, shown: bool | None = None, **options) -> tqdm:
    """A tqdm bar that goes away when done.

    Args:
        iterable: what to count; None for a bar that is updated by hand.
        description: text before the bar.
        shown: True or False decides; None shows it at a terminal or in a live notebook, and stays silent
            where output goes to a file or FER_LAB_QUIET is set, as in headless runs.
        options: further options of tqdm.
    """
    hidden = bool(os.environ.get("FER_LAB_QUIET")) or None
    disable = hidden if shown is None else not shown
    return tqdm(iterable, desc=description or None, leave=False, disable=disable, mininterval=0.5, **options)
