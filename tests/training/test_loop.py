import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from helpers import together
from helpers.patterns import Small, patterns

from fer_lab._files import RunBusyError
from fer_lab.data.augmentation import Augmentation
from fer_lab.models import Recipe, create_model
from fer_lab.models.inference import count_right
from fer_lab.runs import Run
from fer_lab.training import TrainingDivergedError, fit

AUGMENTATION = Augmentation(flip=0.5, rotation=10, shift=0.05, erasing_p=0.5)


def small(seed=0):
    torch.manual_seed(seed)
    return create_model("small", 3)


RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05, schedule="one_cycle", augmentation=AUGMENTATION)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_fit_learns_and_writes_a_run(tmp_path):
    faces = patterns()
    model = small()
    run = fit(model, faces, patterns(30, 1), RECIPE.replace(epochs=6), tmp_path / "run", config={"note": "x"})
    assert count_right(model, faces, device="cpu") / len(faces) > 0.95
    history = run.history
    assert list(history.epoch) == [1, 2, 3, 4, 5, 6]
    assert history.total.iloc[-1] < history.total.iloc[0] / 2
    assert history.valid_accuracy.iloc[-1] > 0.95
    assert run.config["method"] == "small"
    assert run.config["note"] == "x"
    assert run.config["recipe"]["epochs"] == 6
    assert run.is_finished
    again = run.load_model()
    x = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    assert again.classes == ("top", "middle", "bottom")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "exponential", "gamma": 0.5},
        {"sam_rho": 0.05},
        {"mixup": 0.4, "cutmix": 1.0},
        {"ema_decay": 0.9, "schedule": "step", "step_epochs": 1},
        {"soft_targets": True, "label_smoothing": 0.1, "sampler": "balanced", "clip_norm": 1.0},
    ],
    ids=["one-cycle", "adamw", "sam", "mixed", "ema", "soft"],
)
def test_a_stopped_training_goes_on_in_the_same_bits(tmp_path, changes):
    faces, recipe = patterns(votes=True), RECIPE.replace(**changes)
    whole = small()
    fit(whole, faces, faces, recipe, tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(_model, epoch):
        if epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        fit(small(), faces, faces, recipe, tmp_path / "cut", on_epoch=stop)
    resumed = small(seed=99)
    run = fit(resumed, faces, faces, recipe, tmp_path / "cut")
    assert same(resumed.state_dict(), whole.state_dict())
    kept = Run(tmp_path / "whole").history.drop(columns="seconds")
    assert run.history.drop(columns="seconds").equals(kept)


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(tmp_path):
    states = []
    for i, seed in enumerate((0, 0, 1)):
        model = small()
        fit(model, patterns(), None, RECIPE.replace(seed=seed), tmp_path / str(i))
        states.append(model.state_dict())
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_on_epoch_does_not_disturb(tmp_path):
    plain, watched = small(), small()
    fit(plain, patterns(), None, RECIPE, tmp_path / "plain")
    seen = []

    def look(model, epoch):
        assert not model.training
        torch.rand(10)
        seen.append(epoch)

    fit(watched, patterns(), None, RECIPE, tmp_path / "watched", on_epoch=look)
    assert seen == [1, 2, 3]
    assert same(plain.state_dict(), watched.state_dict())


def test_killed_in_mid_epoch_then_resumed(tmp_path):
    """SIGKILL while an epoch runs; the second process ends in the bits of one that was never stopped."""
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time, torch
            sys.path[:0] = sys.argv[1].split(":")
            from test_loop import RECIPE, fit, patterns, small
            slow = len(sys.argv) > 3
            original = torch.optim.SGD.step
            def step(self, *args, **kwargs):
                if slow:
                    time.sleep(0.15)
                return original(self, *args, **kwargs)
            torch.optim.SGD.step = step
            fit(small(), patterns(), patterns(), RECIPE, sys.argv[2])
            """
        )
    )
    here = os.path.dirname(__file__)
    here = f"{here}:{os.path.dirname(here)}"
    command = [sys.executable, str(script), here]
    process = subprocess.Popen([*command, str(tmp_path / "cut"), "slow"])
    deadline = time.time() + 60
    while len(Run(tmp_path / "cut").history) < 1 and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # into the second epoch, which takes 0.45 s
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 1 <= len(Run(tmp_path / "cut").history) < 3
    subprocess.run([*command, str(tmp_path / "cut")], check=True, timeout=60)
    whole = small()
    fit(whole, patterns(), patterns(), RECIPE, tmp_path / "whole")
    assert same(Run(tmp_path / "cut").load_model().state_dict(), whole.state_dict())


def test_a_loss_that_is_not_finite_stops_with_step_term_and_rate(tmp_path):
    class Explodes(Small):
        def training_losses(self, batch):
            self.calls = getattr(self, "calls", 0) + 1
            loss = super().training_losses(batch)["total"]
            bad = loss * float("nan") if self.calls == 2 else loss
            return {"cross_entropy": loss, "regulariser": bad, "total": loss + bad}

    model = Explodes()
    with pytest.raises(TrainingDivergedError, match=r"step 2: regulariser is nan at learning rate 0\.05"):
        fit(model, patterns(), None, RECIPE.replace(schedule="constant"), tmp_path / "run")
    assert not Run(tmp_path / "run").is_finished


def test_two_trainings_in_one_folder(tmp_path):
    with Run(tmp_path / "run").lock(), pytest.raises(RunBusyError):
        fit(small(), patterns(), None, RECIPE, tmp_path / "run")


def test_bf16_training_is_close_to_fp32(tmp_path):
    weights = []
    for precision in ("fp32", "bf16"):
        model = small()
        fit(model, patterns(), None, RECIPE.replace(precision=precision), tmp_path / precision)
        assert count_right(model, patterns(), device="cpu") / len(patterns()) > 0.9
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert weights[0].dtype == weights[1].dtype == torch.float32
    assert 0 < (weights[0] - weights[1]).norm() / weights[0].norm() < 0.1


# ---------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folder with `together.CASES` as two processes trained them."""
    folder = tmp_path_factory.mktemp("two")
    together.in_two_processes("trainings", folder)
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Folder with the same trained in this process."""
    folder = tmp_path_factory.mktemp("one")
    for case in together.CASES:
        together.train(case, folder)
    return folder


def distance(a: Run, b: Run) -> float:
    """How far apart the weights of two runs are, relative to the weights of the second."""
    x, y = (torch.cat([p.flatten() for p in run.load_model().parameters()]) for run in (a, b))
    return ((x - y).norm() / y.norm()).item()


@pytest.mark.parametrize("case", together.CASES)
def test_one_and_two_processes_agree(shared, single, case):
    two, one = Run(shared / case), Run(single / case)
    assert distance(two, one) < 1e-5
    assert (two.config["devices"], one.config["devices"]) == (2, 1)
    losses = two.history.columns.difference(["epoch", "seconds", "lr", "valid_accuracy"])
    assert two.history[losses].values == pytest.approx(one.history[losses].values, rel=1e-4)
    # Judged once each: with a face left out or judged twice the share would be of another number of faces.
    assert two.history.valid_accuracy.tolist() == one.history.valid_accuracy.tolist()


def test_the_memory_of_batchnorm_agrees_too(shared, single):
    two, one = (Run(folder / "baseline").load_model() for folder in (shared, single))
    for name, value in one.named_buffers():
        torch.testing.assert_close(dict(two.named_buffers())[name], value, rtol=1e-4, atol=1e-5)


def test_batchnorms_left_to_themselves_would_not_agree(shared, single):
    assert distance(Run(shared / "apart" / "triplet_center"), Run(single / "triplet_center")) > 1e-4


def test_more_processes_than_faces_to_judge(shared):
    assert set(Run(shared / "lonely" / "triplet_center").history.valid_accuracy) <= {0.0, 1.0}


def test_a_model_that_learned_from_grey_faces_says_so(tmp_path):
    faces = patterns()
    grey = dataclasses.replace(faces, storage=faces.storage[:, :1].expand_as(faces.storage))
    for data, expected in ((grey, "GREY"), (faces, "RGB")):
        model = small()
        run = fit(model, data, None, RECIPE.replace(epochs=1), tmp_path / expected)
        assert model.color_order == run.load_model().color_order == expected
