"""Maps as arrays: the grid's cells, the pictures' pixels, and what of a map lies in a region."""

import numpy as np
import pytest
import torch

from fer_lab.explanation.maps import (
    centre_prior,
    mass_in_regions,
    normalize_for_display,
    pointing_game,
    scaled_to_mass,
    strongest_matches,
    to_grid,
)


def test_to_grid_takes_the_mean_by_exact_overlap():
    line = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    # Two cells over three pixels: each covers one and a half.
    torch.testing.assert_close(to_grid(line, 1, 2), torch.tensor([[[[4 / 3, 8 / 3]]]]))
    # Six cells over three pixels repeat them.
    assert to_grid(line, 1, 6).flatten().tolist() == [1, 1, 2, 2, 3, 3]
    assert to_grid(torch.arange(16.0).view(1, 1, 4, 4), 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(to_grid(line, 1, 3), line)
    with pytest.raises(ValueError, match=r"\[B,K,h,w\]"):
        to_grid(torch.zeros(7, 7), 14)


def test_to_grid_keeps_the_mean():
    maps = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(to_grid(maps, 56, 33).mean((2, 3)), maps.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_scaled_maps_add_up_to_one_and_zeros_stay():
    maps = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    assert scaled_to_mass(maps).tolist() == [[[[0.25, 0.75]], [[0.0, 0.0]]]]
    with pytest.raises(ValueError, match="negative"):
        scaled_to_mass(-maps)


def test_the_centre_prior_is_a_gaussian_in_the_middle():
    prior = centre_prior(5)[0, 0]
    assert prior[2, 2] == 1
    torch.testing.assert_close(prior[2], torch.exp(-0.5 * torch.tensor([4.0, 1.0, 0.0, 1.0, 4.0])))
    torch.testing.assert_close(prior[0, 0], torch.tensor(-4.0).exp())
    assert torch.equal(prior, prior.T)


def test_pointing_game_is_yes_or_no_for_a_fine_map():
    masks = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    masks[:, :, 1, 2] = True
    maps = torch.zeros(2, 1, 4, 4)
    maps[0, 0, 1, 2] = maps[1, 0, 0, 0] = 5.0
    hit, chance = pointing_game(maps, masks)
    assert hit.flatten().tolist() == [1, 0]
    assert chance.flatten().tolist() == [1 / 16, 1 / 16]


def test_pointing_game_draws_from_the_largest_cells():
    masks = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, :3] = True  # half of the first cell, a quarter of the second
    maps = torch.tensor([[[[2.0, 1.0], [0.0, 0.0]], [[3.0, 3.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    hit, chance = pointing_game(maps, masks)
    assert hit[0, :, 0].tolist() == [0.5, 0.375, 3 / 16]  # a map of zeros: as good as chance
    assert chance.item() == 3 / 16


def test_display_stretches_every_map_on_its_own():
    maps = torch.tensor([[[[-1.0, 0.0], [1.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]], [[10.0, 20.0], [10.0, 10.0]]]])
    shown = normalize_for_display(maps)
    assert shown[0].flatten(1).tolist() == [[0, 0.25, 0.5, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    with pytest.raises(ValueError, match="not finite"):
        normalize_for_display(torch.tensor([[[[float("nan"), 1.0]]]]))


def test_mass_in_regions_against_chance():
    maps = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    masks = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    masks[0, 0, 0, 0] = True
    masks[0, 1, 0] = True
    share, chance = mass_in_regions(maps, masks)
    assert share[0, :2].tolist() == [[0.75, 1.0, 0.0], [0.25, 0.5, 0.0]]
    assert share[0, 2].isnan().all()
    assert chance.tolist() == [[0.25, 0.5, 0.0]]


def test_cells_and_masks_are_overlaid_exactly():
    # Cells of one and a half pixels; the mask is the middle pixel, half in each cell: a third of a cell.
    masks = torch.tensor([[[[False, True, False]] * 3]])
    share, chance = mass_in_regions(torch.tensor([[[[3.0, 1.0], [3.0, 1.0]]]]), masks)
    assert share.item() == pytest.approx(1 / 3)
    assert chance.item() == pytest.approx(1 / 3)
    masks = torch.tensor([[[[True, False, False]] * 3]])
    assert mass_in_regions(torch.tensor([[[[3.0, 1.0], [3.0, 1.0]]]]), masks)[0].item() == pytest.approx(0.5)


def test_mass_of_an_even_map_is_chance_at_another_resolution():
    masks = torch.rand(2, 6, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.7
    share, chance = mass_in_regions(torch.full((2, 4, 7, 7), 0.3), masks)
    torch.testing.assert_close(share, chance[:, None].expand(2, 4, 6))


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (torch.ones(1, 1, 2, 2), torch.ones(2, 1, 4, 4, dtype=torch.bool), r"\[1,R,S,S\]"),
        (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), "bool masks"),
        (-torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4, dtype=torch.bool), "negative"),
    ],
)
def test_mass_refuses_what_it_cannot_mean(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        mass_in_regions(maps, masks)


def test_matches_are_one_to_one_and_the_strongest_first():
    table = np.array([[5.0, 9.0, 1.0], [8.0, 10.0, 0.0], [2.0, 3.0, 4.0]])
    # Less the means of row and column, and plus that of all, the largest are 4, 5/3 and 4/3; the least is -3.
    (first, second, third) = strongest_matches(table, 3)
    assert (first[:2], second[:2], third[:2]) == ((2, 2), (1, 0), (0, 1))
    assert [first[2], second[2], third[2]] == pytest.approx([1, 14 / 21, 13 / 21])
    # A place that is like everything comes no earlier for it.
    assert strongest_matches(table + np.array([[50.0], [0.0], [0.0]]), 3)[0][:2] == (2, 2)
    with pytest.raises(ValueError, match=r"expected a table \[N,M\] and 1…3 matches"):
        strongest_matches(table, 4)
