"""Maps over a face as arrays: brought to a grid, scaled, and held against places that are known.

A map [B,K,h,w] has K values for each of h×w cells that tile the picture. Cells and pixels are overlaid by the
area they share, so a coarse map and a fine mask meet without interpolation.
"""

import numpy as np
import torch
import torch.nn.functional as F

# Side of the grid that the networks end in, at tiny and at paper size.
GRID = 7


def _check(maps: torch.Tensor) -> None:
    if maps.ndim != 4:
        raise ValueError(f"expected maps [B,K,h,w], got {list(maps.shape)}")


def _overlap(cells: int, pixels: int, like: torch.Tensor) -> torch.Tensor:
    """[cells,pixels]: share of each cell that lies in each pixel, both tiling one line; rows add up to 1."""
    ends = torch.arange(cells + 1, dtype=torch.float64, device=like.device) * (pixels / cells)
    pixel = torch.arange(pixels, dtype=torch.float64, device=like.device)
    low, high = ends[:-1, None].maximum(pixel), ends[1:, None].minimum(pixel + 1)
    return (high - low).clamp(min=0) * (cells / pixels)


def to_grid(maps: torch.Tensor, height: int, width: int | None = None) -> torch.Tensor:
    """Maps [B,K,h,w] → float32 [B,K,height,width]: the mean over each new cell, by exact overlap.

    The sum over the face keeps its share: finer maps are averaged, coarser ones repeated.

    Raises:
        ValueError: another number of dimensions.
    """
    _check(maps)
    width = height if width is None else width
    if maps.shape[2:] == (height, width):
        return maps.float()
    rows, columns = _overlap(height, maps.shape[2], maps), _overlap(width, maps.shape[3], maps)
    return (rows @ maps.double() @ columns.T).float()


def upsample(maps: torch.Tensor, size: int, mode: str = "bilinear") -> torch.Tensor:
    """Maps [B,K,h,w] → [B,K,size,size], interpolated between the centres of the grid's cells, for pictures.

    Args:
        mode: "bilinear" stays within the maps' values; "bicubic" looks smoother and may leave them a little.

    Raises:
        ValueError: another number of dimensions.
    """
    _check(maps)
    return F.interpolate(maps.float(), size=(size, size), mode=mode, align_corners=False)


def normalize_for_display(maps: torch.Tensor) -> torch.Tensor:
    """Stretch every map [B,K,h,w] to 0…1 on its own; a constant map becomes zeros.

    For pictures only: what one map has more of than another is lost.

    Raises:
        ValueError: another number of dimensions, or values that are not finite.
    """
    _check(maps)
    maps = maps.detach().float()
    if not maps.isfinite().all():
        raise ValueError("maps hold values that are not finite; there is nothing to show")
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)


def scaled_to_mass(maps: torch.Tensor) -> torch.Tensor:
    """Divide every map [B,K,h,w] by its sum, so that each adds up to 1; a map of zeros stays zeros.

    Raises:
        ValueError: another number of dimensions, or negative mass.
    """
    _check_mass(maps)
    total = maps.sum((2, 3), keepdim=True)
    return torch.where(total > 0, maps / total, 0.0)


def centre_prior(grid: int = GRID, width: float = 0.2) -> torch.Tensor:
    """A map that knows nothing but that faces stand in the middle: a round Gaussian, [1,1,grid,grid].

    Args:
        width: standard deviation, as a share of the picture's side.
    """
    place = (torch.arange(grid) + 0.5) / grid - 0.5
    line = torch.exp(-0.5 * (place / width) ** 2)
    return (line[:, None] * line)[None, None]


# ---------------------------------------------------------------------------------------------------------
# Against places that are known


def _check_mass(maps: torch.Tensor) -> None:
    _check(maps)
    if (maps < 0).any():
        raise ValueError("maps have negative values, whose share means nothing; clamp them first")


def _cover(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share of each of the maps' cells that a region covers: [B,R,h,w], float64."""
    if masks.ndim != 4 or masks.dtype != torch.bool or len(masks) != len(maps):
        raise ValueError(f"expected bool masks [{len(maps)},R,S,S], got {masks.dtype} {list(masks.shape)}")
    rows = _overlap(maps.shape[2], masks.shape[2], maps)
    columns = _overlap(maps.shape[3], masks.shape[3], maps)
    return rows @ masks.double() @ columns.T


def mass_in_regions(maps: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of each map's mass in each region, beside the share that an even map would have.

    A map's cell spreads its value evenly over the pixels it covers; cells and masks are overlaid exactly.

    Args:
        maps: [B,K,h,w], not negative.
        masks: bool [B,R,S,S]; regions may overlap.

    Returns:
        share [B,K,R], 0…1 (NaN for a map of zeros), and chance [B,R], the regions' share of the area.

    Raises:
        ValueError: shapes that do not fit, masks that are not bool, or negative mass.
    """
    _check_mass(maps)
    inside = _cover(maps, masks).flatten(2)
    mass = maps.flatten(2).double()
    share = mass @ inside.transpose(1, 2) / mass.sum(2, keepdim=True)
    return share.float(), inside.mean(2).float()


def pointing_game(maps: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Does a map's largest value lie in the region? (Zhang et al., arXiv 1608.00507)

    They take the largest pixel, with a tolerance. A coarse map names no pixel but a cell, so the point is
    drawn evenly from the largest cell (from all of them where several are equally large), and a hit is the
    probability that it lies in the region. For a map as fine as the mask that is a plain yes or no; an even
    map gets exactly chance.

    Args:
        maps: [B,K,h,w].
        masks: bool [B,R,S,S]; regions may overlap.

    Returns:
        hit [B,K,R], 0…1, and chance [B,R], the regions' share of the area.

    Raises:
        ValueError: shapes that do not fit, or masks that are not bool.
    """
    _check(maps)
    inside = _cover(maps, masks).flatten(2)
    flat = maps.flatten(2)
    largest = (flat == flat.amax(2, keepdim=True)).double()
    hit = largest @ inside.transpose(1, 2) / largest.sum(2, keepdim=True)
    return hit.float(), inside.mean(2).float()


def mean_pairwise_cosine(maps: torch.Tensor) -> torch.Tensor:
    """How much K maps of one face overlap: [B,K,h,w] → [B], the mean cosine over the K(K−1)/2 pairs of maps.

    1: all heads look at the same places; 0: at disjoint ones (for maps that are not negative). A map of
    zeros overlaps with nothing.

    Raises:
        ValueError: another number of dimensions, or a single map.
    """
    if maps.ndim != 4 or maps.shape[1] < 2:
        raise ValueError(f"expected maps [B,K,h,w] with K of at least 2, got {list(maps.shape)}")
    k = maps.shape[1]
    units = torch.nn.functional.normalize(maps.flatten(2).float(), dim=2)
    # |Σ u|² counts every pair twice and every map with itself once.
    return (units.sum(1).square().sum(1) - units.square().sum((1, 2))) / (k * (k - 1))


def strongest_matches(table: torch.Tensor | np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The places of two faces that match best: (place of the first, of the second, strength 0…1).

    One to one: the largest entry of the table [N,M] first, then the largest that shares no place with it, and
    so on. Strength is the entry as a share of the table's range.
    """
    table = np.asarray(table, dtype=float)
    if table.ndim != 2 or not 1 <= count <= min(table.shape):
        raise ValueError(
            f"expected a table [N,M] and 1…{min(table.shape)} matches, got {list(table.shape)}, {count}"
        )
    left, low, span = table.copy(), table.min(), max(np.ptp(table), 1e-12)
    found = []
    for _ in range(count):
        i, j = np.unravel_index(left.argmax(), left.shape)
        found.append((int(i), int(j), float((table[i, j] - low) / span)))
        left[i], left[:, j] = -np.inf, -np.inf
    return found


def _centre(place: int, grid: int) -> tuple[float, float]:
    row, column = divmod(place, grid)
    return (column + 0.5) / grid, (row + 0.5) / grid
