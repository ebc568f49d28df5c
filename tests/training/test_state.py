"""Which trainings a state, and the checkpoint in a run's folder, belong to."""

import dataclasses

import pytest
import torch
from helpers.interrupted import RECIPE, small
from helpers.patterns import patterns

from fer_lab.bench import random_batch
from fer_lab.models import create_model
from fer_lab.training import fit, state


def test_a_folder_with_another_training_is_refused(tmp_path):
    fit(small(), patterns(), None, RECIPE.replace(epochs=1), tmp_path / "run")
    with pytest.raises(ValueError, match="recipe"):
        fit(small(), patterns(), None, RECIPE.replace(epochs=1, lr=0.2), tmp_path / "run")
    with pytest.raises(ValueError, match="fingerprint"):
        fit(small(), patterns(seed=5), None, RECIPE.replace(epochs=1), tmp_path / "run")
    with pytest.raises(ValueError, match="'small', now 'baseline'"):
        fit(create_model("baseline", 3), patterns(), None, RECIPE.replace(epochs=1), tmp_path / "run")
    run = fit(small(), patterns(), None, RECIPE.replace(epochs=2), tmp_path / "run", resume=False)
    assert len(run.history) == 2


def test_classes_must_agree(tmp_path):
    with pytest.raises(ValueError, match="3 classes"):
        fit(create_model("small", 7), patterns(), None, RECIPE, tmp_path / "run")
    for classes in (("middle", "top", "bottom"), ("a", "b", "c")):
        other = dataclasses.replace(patterns(), classes=classes)
        with pytest.raises(ValueError, match=rf"has top, middle, bottom; .* has {', '.join(classes)}; make"):
            fit(small(), patterns(), other, RECIPE, tmp_path / "run")


def test_several_processes_need_a_whole_batch(tmp_path, monkeypatch):
    class Two:
        def __getattr__(self, name):
            return {"world_size": 2, "global_rank": 0, "is_global_zero": True}.get(name) or getattr(real, name)

    real = state.make_fabric("cpu", "fp32")
    monkeypatch.setattr("fer_lab.training.loop.make_fabric", lambda device, precision: Two())
    with pytest.raises(ValueError, match="60 faces an epoch are less than a batch of 64, which several"):
        fit(small(), patterns(), None, RECIPE.replace(batch_size=64), tmp_path / "run")


def test_bf16_leaves_the_batch_as_it_is_also_between_processes():
    class Look(torch.nn.Module):
        def forward(self, batch):
            self.seen = batch
            return torch.mm(batch.images[:, 0, 0], batch.images[:, 0, 0].T)

    # Fabric passes a batch through its precision in a forward; a marked method, on several devices alone.
    batch, look = random_batch(create_model("baseline", 7), 4), Look()
    product = state.make_fabric("cpu", "bf16").setup_module(look)(batch)
    assert look.seen is batch
    exact = torch.mm(batch.images[:, 0, 0], batch.images[:, 0, 0].T)
    assert 0 < (product - exact).abs().max() < 0.1 * exact.abs().max()
