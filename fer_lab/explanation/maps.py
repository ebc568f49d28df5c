"""Maps over a face as arrays: resampled to a grid, scaled, and compared with places that are known.

A map [B,K,h,w] has K values for each of h×w cells that tile the picture. Cells and pixels are weighted by the
area they share, so a coarse map and a fine mask are compared without interpolation. Every function raises a
ValueError for maps, masks or tables of another shape or type.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fer_lab.models.method import GRID


def _check(maps: Tensor) -> None:
    if maps.ndim != 4:
        raise ValueError(f"expected maps [B,K,h,w], got {list(maps.shape)}")


def _overlap(cells: int, pixels: int, like: Tensor) -> Tensor:
    """[cells,pixels]: share of each cell in each pixel, where both tile the same line; rows add up to 1."""
    ends = torch.arange(cells + 1, dtype=torch.float64, device=like.device) * (pixels / cells)
    pixel = torch.arange(pixels, dtype=torch.float64, device=like.device)
    low, high = ends[:-1, None].maximum(pixel), ends[1:, None].minimum(pixel + 1)
    return (high - low).clamp(min=0) * (cells / pixels)


def _cells(maps: Tensor, height: int, width: int) -> Tensor:
    """[B,K,h,w] → float64 [B,K,height,width], the mean over each new cell."""
    rows, columns = _overlap(height, maps.shape[2], maps), _overlap(width, maps.shape[3], maps)
    return rows @ maps.double() @ columns.T


def to_grid(maps: Tensor, height: int, width: int | None = None) -> Tensor:
    """Maps [B,K,h,w] → float32 [B,K,height,width]: the mean over each new cell, by exact overlap.

    Finer maps are averaged, coarser ones repeated, and the mean over the face stays the same.
    """
    _check(maps)
    width = height if width is None else width
    if maps.shape[2:] == (height, width):
        return maps.float()
    return _cells(maps, height, width).float()


def normalize_for_display(maps: Tensor) -> Tensor:
    """Stretch every map [B,K,h,w] to 0…1 on its own; a constant map becomes zeros.

    For pictures only: differences between the values of two maps are lost. Raises ValueError for values that
    are not finite.
    """
    _check(maps)
    maps = maps.detach().float()
    if not maps.isfinite().all():
        raise ValueError("maps hold values that are not finite; there is nothing to show")
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)


def scaled_to_mass(maps: Tensor) -> Tensor:
    """Divide every map [B,K,h,w] by its sum, so that each adds up to 1; a map of zeros stays zeros.

    Raises ValueError for negative mass.
    """
    _check_mass(maps)
    total = maps.sum((2, 3), keepdim=True)
    return torch.where(total > 0, maps / total, 0.0)


def centre_prior(grid: int = GRID) -> Tensor:
    """A map that only knows where faces are, [1,1,grid,grid]: a Gaussian, a fifth of the side wide."""
    place = (torch.arange(grid) + 0.5) / grid - 0.5
    line = torch.exp(-0.5 * (place / 0.2) ** 2)
    return (line[:, None] * line)[None, None]


def _check_mass(maps: Tensor) -> None:
    _check(maps)
    if (maps < 0).any():
        raise ValueError("maps have negative values, which have no share of a sum; clamp them first")


def mass_in_regions(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Share of each map's mass in each region, and the share that an even map would have.

    Maps [B,K,h,w], not negative, and bool masks [B,R,S,S], which may overlap → share [B,K,R], 0…1 (NaN for a
    map of zeros), and chance [B,R], the regions' share of the area. A cell's value is even over its pixels.
    """
    _check_mass(maps)
    if masks.ndim != 4 or masks.dtype != torch.bool or len(masks) != len(maps):
        raise ValueError(f"expected bool masks [{len(maps)},R,S,S], got {masks.dtype} {list(masks.shape)}")
    inside = _cells(masks, maps.shape[2], maps.shape[3]).flatten(2)  # how much of each cell a region covers
    mass = maps.flatten(2).double()
    share = mass @ inside.transpose(1, 2) / mass.sum(2, keepdim=True)
    return share.float(), inside.mean(2).float()


def pointing_game(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a map's largest value is in the region (pointing game, Zhang et al., arXiv 1608.00507).

    They take the largest pixel, with a tolerance. A coarse map has a largest cell instead, so the point is
    drawn evenly from that cell (from all of them where several are equally large), and a hit is the probability
    that the point is in the region. For a map as fine as the mask that is 0 or 1; an even map gets exactly
    chance. Maps [B,K,h,w] and masks as in `mass_in_regions`; returns hit [B,K,R], 0…1, and the same chance.
    """
    _check(maps)
    return mass_in_regions((maps == maps.amax((2, 3), keepdim=True)).double(), masks)


def mean_pairwise_cosine(maps: Tensor) -> Tensor:
    """How much K maps of one face overlap: [B,K,h,w] → [B], the mean cosine over the K(K−1)/2 pairs of maps.

    0…1 for maps that are not negative; a map of zeros overlaps with nothing. ValueError for a single map.
    """
    if maps.ndim != 4 or maps.shape[1] < 2:
        raise ValueError(f"expected maps [B,K,h,w] with K of at least 2, got {list(maps.shape)}")
    k = maps.shape[1]
    units = F.normalize(maps.flatten(2).float(), dim=2)
    # |Σ u|² counts every pair twice and every map with itself once.
    return (units.sum(1).square().sum(1) - units.square().sum((1, 2))) / (k * (k - 1))


def strongest_matches(table: Tensor | np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The places of two faces that match best: (place of the first, place of the second, strength 0…1).

    What counts is how much more alike two places are than each of them is to all others: the means of row and
    column are taken off the table [N,M], or plain background, which is like everything, would come first. Each
    place occurs at most once: the largest entry is the first, then the largest one that shares no place with
    it, and so on. Strength is the entry as a share of the range.
    """
    similar = np.asarray(table, dtype=float)
    if similar.ndim != 2 or not 1 <= count <= min(similar.shape):
        raise ValueError(
            f"expected a table [N,M] and 1…{min(similar.shape)} matches, got {list(similar.shape)}, {count}"
        )
    special = similar - similar.mean(0) - similar.mean(1, keepdims=True)
    left, low, span = special.copy(), special.min(), max(np.ptp(special), 1e-12)
    matches = []
    for _ in range(count):
        i, j = np.unravel_index(left.argmax(), left.shape)
        matches.append((int(i), int(j), float((special[i, j] - low) / span)))
        left[i], left[:, j] = -np.inf, -np.inf
    return matches


def cell_centre(place: int) -> tuple[float, float]:
    """(x, y) of the centre of a cell of the 7×7 grid, numbered row by row, as shares of the picture's side."""
    row, column = divmod(place, GRID)
    return (column + 0.5) / GRID, (row + 0.5) / GRID
