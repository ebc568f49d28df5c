"""What a notebook calls: headline numbers, answers of exercises, a folder to write to."""

import subprocess
import sys

import pytest

from fer_lab.book import check_answer, frame_player, headline, run_folder
from fer_lab.book.result import format_numbers


def test_headline_prints_outside_a_notebook(capsys):
    headline(accuracy=0.81234, mean_class_recall=1 / 3, faces=12)
    assert capsys.readouterr().out == "accuracy 0.812 · mean class recall 0.333 · faces 12\n"
    assert format_numbers({}) == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "Your turn"),
        (0.5, "Right."),
        (0.5009, "Right."),
        (0.49, "Not yet: 0.49 is too small."),
        (2, "Not yet: 2 is too large."),
    ],
)
def test_answers_of_exercises(capsys, answer, said):
    check_answer(answer, 0.5)
    assert capsys.readouterr().out.startswith(said)


def test_run_folder(tmp_path):
    assert run_folder(tmp_path / "a" / "b").is_dir()
    first, second = run_folder(), run_folder("")
    assert first != second
    assert list(first.iterdir()) == []
    first.rmdir(), second.rmdir()


def test_calling_the_book_from_a_notebook_waits_for_nothing_heavy():
    code = (
        "import sys, fer_lab.book; "
        "print([name for name in ('torch', 'papermill', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_player_draws_a_frame_when_it_is_asked_for():
    asked = []

    def draw(i):
        asked.append(i)
        return f"frame {i}".encode()

    box = frame_player(draw, 12)
    (play, slide), picture = box.children[0].children, box.children[1]
    assert (play.min, play.max, slide.min, slide.max) == (1, 12, 1, 12)
    assert asked == [1]
    slide.value = 7
    assert (picture.value, asked) == (b"frame 7", [1, 7])
