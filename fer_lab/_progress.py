"""Progress bars at a terminal and in a live notebook, and nowhere else."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress(
    iterable: Iterable | None = None, description: str = "", *, shown: bool | None = None, **options: Any
) -> tqdm:
    """A tqdm bar that disappears when done, over an iterable, or None for one that is updated by hand.

    `shown`: None shows it at a terminal or in a live notebook, and not where FER_LAB_QUIET is set, as in
    headless runs. `options`: of tqdm.
    """
    disable = (_quiet() or None) if shown is None else not shown
    return tqdm(iterable, desc=description or None, leave=False, disable=disable, mininterval=0.5, **options)


def note(bar: tqdm, line: str) -> None:
    """Print a line where `bar` is hidden, and above a terminal's bar; a live notebook has the bar alone."""
    if bar.disable:
        say(line)
    elif sys.stderr.isatty():
        bar.write(line, file=sys.stderr)


def say(line: str) -> None:
    """Print a line on stderr, where a long run's log shows it grow; with FER_LAB_QUIET print nothing."""
    if not _quiet():
        print(line, file=sys.stderr, flush=True)


def _quiet() -> bool:
    return bool(os.environ.get("FER_LAB_QUIET"))
