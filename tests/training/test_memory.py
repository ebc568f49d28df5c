"""What happens to a batch that does not fit into memory."""

import pytest
import torch
from helpers import together
from helpers.patterns import Small, patterns

from fer_lab.models import Recipe
from fer_lab.runs import Run
from fer_lab.training import BatchTooLargeError, fit
from fer_lab.training.memory import is_out_of_memory

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05, schedule="one_cycle")


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_which_errors_are_of_memory(error, lacking):
    assert is_out_of_memory(error) is lacking


@pytest.mark.parametrize("sam_rho", [0.0, 0.05])
def test_a_batch_that_does_not_fit_is_named_with_one_that_does(tmp_path, sam_rho):
    tried = []

    class Hungry(Small):
        def training_losses(self, batch):
            tried.append(len(batch.labels))
            if len(batch.labels) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB.")
            return super().training_losses(batch)

    message = "a batch of 24 faces does not fit into the memory of cpu; 3 do: set batch_size=3"
    with pytest.raises(BatchTooLargeError, match=message):
        fit(Hungry(), patterns(), None, RECIPE.replace(batch_size=24, sam_rho=sam_rho), tmp_path / "run")
    assert tried == [24, 12, 6] + [3] * (2 if sam_rho else 1)
    assert not Run(tmp_path / "run").is_finished


def test_where_no_batch_fits_a_smaller_model_is_advised(tmp_path):
    class Huge(Small):
        def training_losses(self, batch):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(BatchTooLargeError, match="nor does a smaller one: take a smaller model"):
        fit(Huge(), patterns(), None, RECIPE, tmp_path / "run")


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path):
    class Broken(Small):
        def training_losses(self, batch):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        fit(Broken(), patterns(), None, RECIPE, tmp_path / "run")


def test_one_process_out_of_memory_ends_both_with_its_advice(tmp_path):
    message = "a batch of 12 faces does not fit into the memory of cpu; 6 do: set batch_size=6"
    with pytest.raises(RuntimeError, match=f"^{message}$"):
        together.in_two_processes("out_of_memory", tmp_path)
