"""Drawing tools: pixel coordinates, soft edges, windows into the picture, fields of blobs.

Nothing in this module knows what a face looks like.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fer_lab.data.synthetic.anatomy import Face, Identity, Nuisance, Point, to_picture


def column(v: Tensor) -> Tensor:
    """[B] → [B,1,1]."""
    return v.view(-1, 1, 1)


def edge(distance: Tensor, pixel: Tensor | float) -> Tensor:
    """Coverage 0…1 of a pixel whose centre is `distance` inside (+) or outside (-) an edge."""
    return (distance / pixel + 0.5).clamp(0, 1)


def ramp(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth (3t²-2t³) between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bell(x: Tensor, width: Tensor | float) -> Tensor:
    """exp(-(x/width)²): 1 on a line, and softly less on both sides of it."""
    return torch.exp(-((x / width) ** 2))


def paint(picture: Tensor, color: Tensor, alpha: Tensor) -> None:
    """Blend a colour over a picture [B,3,…], in place; alpha [B,…] is a coverage 0…1."""
    torch.lerp(picture, color.expand_as(picture), alpha.unsqueeze(1), out=picture)


class Canvas:
    """B square pictures of S pixels: colours [B,3,S,S] and region bits [B,S,S].

    x and y [B,S,S] are the face units of every pixel's centre, `pixel` [B,1,1] is a pixel's side in them.
    """

    def __init__(self, how: Nuisance, size: int) -> None:
        self.how, self.size = how, size
        n, device = len(how), how.roll.device
        self.colors = torch.empty(n, 3, size, size, device=device)
        self.regions = torch.zeros(n, size, size, dtype=torch.uint8, device=device)
        self.axis = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
        self.pixel = column(2 / size / how.scale)
        self.x, self.y = self.face_units(self.axis[None, None, :], self.axis[None, :, None])

    def face_units(self, px: Tensor, py: Tensor) -> Point:
        """Picture coordinates (columns px, rows py, broadcastable to [B,h,w]) → face units."""
        roll, scale = column(torch.deg2rad(self.how.roll)), column(self.how.scale)
        c, s = roll.cos() / scale, roll.sin() / scale
        px, py = px - column(self.how.shift[:, 0]), py - column(self.how.shift[:, 1])
        return c * px + s * py, c * py - s * px

    def field(self, x: Tensor, y: Tensor, radius: Tensor, weights: Tensor) -> Tensor:
        """Sums [B,F,S,S] of Gaussian blobs: centres and deviations [B,K] in face units, weights [B,F,K]."""
        gx, gy, *_ = self._blobs(x, y, radius)
        return self._product([gy * w[..., None] for w in weights.unbind(1)], gx)

    def relief(
        self, x: Tensor, y: Tensor, radius: Tensor, height: Tensor, *weights: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Slopes of a relief made of blobs [B,K], and one field of the same blobs for each of `weights` [B,K].

        Returns the slope to the right [B,S,S], then a tuple of [B,S,S]: slope downwards and the fields.
        """
        gx, gy, dx, dy, radius = self._blobs(x, y, radius)
        steep = (-height / radius**2)[..., None]
        along = torch.bmm(gy.mT, gx * (dx * steep))
        rows = [gy * (dy * steep), *(gy * w[..., None] for w in weights)]
        return along, self._product(rows, gx).unbind(1)

    def _product(self, rows: list[Tensor], gx: Tensor) -> Tensor:
        stacked = torch.cat([r.mT for r in rows], 1)
        return torch.bmm(stacked, gx).view(len(gx), len(rows), self.size, self.size)

    def _blobs(self, x: Tensor, y: Tensor, radius: Tensor) -> tuple[Tensor, ...]:
        # Round blobs stay round under roll, so each is the product of a row and a column of the picture.
        radius = torch.maximum(radius, 0.7 * self.pixel.squeeze(2))
        px, py = to_picture(x, y, self.how)
        place = torch.stack([px, py])[..., None]
        offset = (self.axis - place) / self.how.scale[:, None, None]
        # Below exp(-40) a product of two would be a denormal number, which processors handle slowly.
        gx, gy = (offset * offset * (-0.5 / radius**2)[..., None]).clamp_(min=-40).exp_()
        return gx, gy, *offset, radius


class Window:
    """Cut-outs of one size around the point x, y [B] of each picture, large enough for all scales and rolls.

    Edit `colors` [B,3,h,w], a copy of the canvas, then call `close`. x, y [B,h,w] and `pixel` are the canvas's.
    """

    def __init__(self, canvas: Canvas, x: Tensor, y: Tensor, half_width: float, half_height: float) -> None:
        self.canvas, self.pixel = canvas, canvas.pixel
        n, size, how = len(canvas.colors), canvas.size, canvas.how
        roll, scale = torch.deg2rad(how.roll.abs().max()), how.scale.max()
        c, s = (roll.cos() * scale).item(), (roll.sin() * scale).item()
        w = min(size, int((half_width * c + half_height * s) * size) + 2)
        h = min(size, int((half_height * c + half_width * s) * size) + 2)
        px, py = to_picture(x, y, how)
        left = ((px + 1) / 2 * size - w / 2).round().long().clamp(0, size - w)
        top = ((py + 1) / 2 * size - h / 2).round().long().clamp(0, size - h)
        columns = left[:, None] + torch.arange(w, device=left.device)
        rows = top[:, None] + torch.arange(h, device=left.device)
        self.index = (rows[:, :, None] * size + columns[:, None, :]).view(n, 1, h * w)
        self.colors = canvas.colors.view(n, 3, -1).gather(2, self.index.expand(-1, 3, -1)).view(n, 3, h, w)
        self.x, self.y = canvas.face_units(canvas.axis[columns][:, None, :], canvas.axis[rows][:, :, None])

    def mark(self, bit: int, inside: Tensor) -> None:
        """Set a region bit at the pixels where `inside` [B,h,w] is true."""
        flat, index = self.canvas.regions.flatten(1), self.index[:, 0]
        value = flat.gather(1, index) | (inside.flatten(1).to(torch.uint8) << bit)
        flat.scatter_(1, index, value)

    def close(self) -> None:
        """Write the colours back to the canvas."""
        colors = self.canvas.colors.view(len(self.colors), 3, -1)
        colors.scatter_(2, self.index.expand(-1, 3, -1), self.colors.flatten(2))


class Scene(NamedTuple):
    """B faces that are being drawn."""

    canvas: Canvas
    face: Face  # where every feature is, after the action units have moved it
    who: Identity
    how: Nuisance
    skin: Tensor  # [B,3] unlit skin colour
    light: Tensor  # [B,3] unit vectors to the light: right, down, towards the viewer
