"""What notebooks 04 and 05 draw: matching lines between two faces, and votes of places as heat."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from fer_lab.explanation.maps import GRID, cell_centre
from fer_lab.figures.pictures import Images, as_maps, heat_over, heat_rows, heats, mosaic, pictures_of
from fer_lab.figures.style import PITCH, SERIES, Names, styled

Match = tuple[int, int, float]  # place of the first face, of the second, and strength 0…1


@styled
def matching_lines(
    pairs: Sequence[tuple[Images, Images]], matches: Sequence[Sequence[Match]], names: Names, title: str = ""
) -> Figure:
    """Pairs of faces uint8 [3,S,S], with numbered lines between places that match: thick is strong.

    `matches`: of each pair, as `strongest_matches` gives them; places are row-major numbers in the 7×7 grid.
    """
    if not len(pairs) == len(matches) == len(names):
        raise ValueError(f"{len(pairs)} pairs, {len(matches)} lists of matches and {len(names)} names")
    if any(max(i, j) >= GRID * GRID for some in matches for i, j, _ in some):
        raise ValueError(f"expected places below {GRID * GRID}, for a grid of {GRID} by {GRID}")
    faces = [pictures_of(face)[0] for pair in pairs for face in pair]
    texts = [text for name in names for text in (name, "")]
    starts = range(0, len(faces), 4)  # two pairs a row
    rows, captions = [faces[i : i + 4] for i in starts], [texts[i : i + 4] for i in starts]
    fig, ax, tops = mosaic(rows, captions=captions, cell=2.0, title=title)
    for text in ax.texts:
        text.set_x(text.get_position()[0] + PITCH / 2)  # from above the first face to above the pair
    for n, some in enumerate(matches):
        row, start_x = n // 2, 2 * (n % 2) * PITCH
        for k, (i, j, strength) in enumerate(some):
            color = SERIES[k % len(SERIES)]
            (x1, y1), (x2, y2) = cell_centre(i), cell_centre(j)
            xs, ys = [start_x + x1, start_x + PITCH + x2], [tops[row] + y1, tops[row] + y2]
            # Bent, each in its own way, so that no line hides another at its height.
            share = np.linspace(0, 1, 25)
            bend = 0.022 * (1 + k // 2) * (-1) ** k * 4 * share * (1 - share)
            arc = (np.interp(share, (0, 1), xs), np.interp(share, (0, 1), ys) + bend)
            ax.add_line(Line2D(*arc, color="white", linewidth=1.2 + 2.4 * strength, alpha=0.7))
            ax.add_line(Line2D(*arc, color=color, linewidth=0.5 + 2.2 * strength, alpha=0.95))
            ax.plot(xs, ys, "o", color="white", markersize=9, markeredgecolor=color, zorder=4)
            for x, y in zip(xs, ys, strict=True):
                ax.text(x, y, str(k + 1), ha="center", va="center_baseline", fontsize=6, zorder=5)
    return fig


@styled
def votes_on_a_face(
    other: Images,
    own: Images,
    votes: Mapping[str, Images],
    places: Sequence[int],
    title: str,
    names: Sequence[str] = ("who votes,\non the other face", "for what,\non one's own"),
) -> Figure:
    """Maps [7,7] over one's own face, uint8 [3,S,S], and above each the other face that voted for it.

    `votes`: name → map. `places`: row-major numbers of the other face's places that cast the first of them, one
    each; they are framed. All places cast the maps after these. `names`: of the two rows.
    """
    face, mine = pictures_of(other)[0], pictures_of(own)[0]
    maps = torch.stack([as_maps(one) for one in votes.values()])
    heat = heats(maps[None], mine.shape[0])[0]
    tiles = [[face] * len(maps), [heat_over(mine, one) for one in heat]]
    fig, ax, tops = heat_rows(tiles, list(votes), names, 1.35, "each map on its own scale: least", title)
    for c in range(len(maps)):
        (row, column), side = (divmod(places[c], GRID), 1) if c < len(places) else ((0, 0), GRID)
        corner = c * PITCH + column / GRID, tops[0] + row / GRID
        for color, width in (("white", 3), (SERIES[1], 1.6)):
            frame = Rectangle(corner, side / GRID, side / GRID, fill=False, edgecolor=color, linewidth=width)
            ax.add_patch(frame)
    return fig
