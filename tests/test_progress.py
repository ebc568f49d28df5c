"""Lines about a long work: above a terminal's bar, in a log, and neither in a notebook nor in quiet."""

import sys

import pytest

from fer_lab._progress import note, progress


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.delenv("FER_LAB_QUIET", raising=False)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


@pytest.mark.parametrize(
    ("terminal", "shown", "told"), [(True, True, True), (False, False, True), (False, True, False)]
)
def test_an_epochs_line_stays_in_a_terminal_and_in_a_log(capsys, monkeypatch, terminal, shown, told):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress(description="dan", shown=shown, total=2) as bar:
        bar.update()
        note(bar, "dan: epoch 1 of 2")
        said = capsys.readouterr().err
    assert ("dan: epoch 1 of 2\n" in said) == told


def test_quiet_says_nothing(capsys, monkeypatch):
    monkeypatch.setenv("FER_LAB_QUIET", "1")
    with progress(description="dan", total=2) as bar:
        note(bar, "dan: epoch 1 of 2")
    assert capsys.readouterr().err == ""
