"""What a notebook of the book calls: record its headline numbers, check an answer, get a folder to write to."""

import hashlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fer_lab.book.result import HEADLINE, format_numbers

if TYPE_CHECKING:
    import ipywidgets as widgets


def headline(**numbers: float | int | str) -> None:
    """Show headline numbers and record them for the book's table; calls add up, a name keeps its last value."""
    plain = {name: value if isinstance(value, int | str) else float(value) for name, value in numbers.items()}
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        print(format_numbers(plain))
        return
    from IPython.display import display

    display({HEADLINE: plain, "text/plain": format_numbers(plain)}, raw=True)


def check_answer(answer: float | None, expected: float | str, *, tolerance: float = 1e-3) -> None:
    """Print whether an exercise's answer is right; None means that there is none yet.

    `expected` is the right number, or the text of `hide_answer`, which does not show it. The answer may be off
    by `tolerance`, in its own units. A hidden one is compared after both were rounded to a multiple of that.
    """
    if answer is None:
        print("Your turn: put your answer in place of None and run this cell again.")
    elif _is_right(answer, expected, tolerance):
        print("Right.")
    elif isinstance(expected, str):
        print(f"Not yet: {answer} is not the answer.")
    else:
        print(f"Not yet: {answer} is too {'small' if answer < expected else 'large'}.")


def mark_answer(answer: float | None, expected: float | str, *, tolerance: float = 1e-3) -> None:
    """As `check_answer`, for a cell that gives a point: a wrong or missing answer is an AssertionError."""
    if answer is None:
        raise AssertionError("no answer yet")
    if not _is_right(answer, expected, tolerance):
        raise AssertionError(f"{answer} is not the answer")
    print("Right.")


def _is_right(answer: float, expected: float | str, tolerance: float) -> bool:
    if isinstance(expected, str):
        return hide_answer(float(answer), tolerance=tolerance, salt=expected.partition(":")[0]) == expected
    return abs(float(answer) - float(expected)) <= tolerance


def hide_answer(answer: float, *, tolerance: float = 1e-3, salt: str = "") -> str:
    """A text for `check_answer` that does not show the right answer, "SALT:DIGEST".

    Answers that round to the same multiple of `tolerance` are right, too. The salt, by default a random one,
    makes equal answers look different.
    """
    salt = salt or secrets.token_hex(2)
    steps = round(answer / tolerance)
    return f"{salt}:{hashlib.sha256(f'{salt} {steps}'.encode()).hexdigest()[:10]}"


def frame_player(draw: Callable[[int], bytes], count: int, what: str = "epoch") -> "widgets.VBox":
    """A picture with a play button and a slider; `draw(i)` gives the PNG of frame i = 1…count."""
    import ipywidgets as widgets

    play = widgets.Play(min=1, max=count, interval=700)
    slide = widgets.IntSlider(min=1, max=count, description=what)
    widgets.jslink((play, "value"), (slide, "value"))
    picture = widgets.Image(value=draw(1), layout={"max_width": "100%"})
    slide.observe(lambda change: setattr(picture, "value", draw(change["new"])), "value")
    return widgets.VBox([widgets.HBox([play, slide]), picture])


def run_folder(run_dir: str | os.PathLike = "") -> Path:
    """The folder a notebook writes to: `run_dir`, made if missing, or a fresh temporary one for ""."""
    if not str(run_dir):
        return Path(tempfile.mkdtemp(prefix="fer_lab-"))
    folder = Path(run_dir).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
