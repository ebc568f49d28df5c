"""What `bench growth` measures, and the line that it draws through it."""

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from fer_lab import cli, figures
from fer_lab.bench import growth


@pytest.fixture(scope="module")
def table():
    return growth.bench_growth((100, 300), (3, 9), (32, 64), batch=16, seconds=0.01)


def test_a_row_for_every_size_of_everything_that_grows(table):
    counts = table.groupby(["grows", "name"], sort=False)["size"].apply(list).to_dict()
    assert counts == {
        ("faces", "a batch"): [100, 300],
        **{("classes", name): [3, 9] for name in growth.LOSSES.values()},
        **{("side, pixels", name): [32, 64] for name in ("baseline", "dan")},
    }
    assert (table["ms"] > 0).all()
    pictures = table[table["name"] == "dan"]["ms"].tolist()
    assert pictures[1] > pictures[0]  # four times the pixels


def test_threads_are_as_before(monkeypatch):
    monkeypatch.setattr(growth, "loss_steps", lambda *sizes: 1 / 0)
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        growth.bench_growth((100,), (3,), (), batch=16, seconds=0.01)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("grows", "power"), growth.POWERS.items())
def test_the_line_is_found_again(grows, power):
    sizes = np.array([10, 30, 100, 300])
    part = pd.DataFrame({"grows": grows, "size": sizes, "ms": 5 + 0.2 * sizes**power})
    np.testing.assert_allclose(growth._line(part), part["ms"], rtol=1e-6)
    shrinks = part.assign(ms=part["ms"].to_numpy()[::-1])
    assert (np.diff(growth._line(shrinks)) >= 0).all()


def test_the_picture_has_a_dot_a_row_and_a_panel_for_everything(table, tmp_path):
    fig = figures.growth(table)
    assert [ax.get_xlabel() for ax in fig.axes] == list(growth.POWERS)
    dots = [line for ax in fig.axes for line in ax.lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in dots) == len(table)
    for ax in fig.axes:
        assert ax.get_ylim()[0] < min(min(line.get_ydata()) for line in ax.lines)


def test_the_command_prints_writes_and_draws(table, tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "bench_growth", lambda: table)
    words = ["bench", "growth", "--csv", tmp_path / "g.csv", "--figure", tmp_path / "g.png"]
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "g.csv"), table, check_exact=False)
    assert (tmp_path / "g.png").stat().st_size > 5000
