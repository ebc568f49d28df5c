"""Faces whose pixels tell their number, and pixels out of a normalised batch."""

from collections.abc import Sequence

import numpy as np
import torch

from fer_lab.data.augmentation import MEAN, STD
from fer_lab.data.faces import FaceSet


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels_of(images: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalize`: float [...,3,H,W] → RGB uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def face_set(labels: Sequence[int], size: int = 16) -> FaceSet:
    """Faces with these labels; every pixel of face i is i."""
    n = len(labels)
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, size, size).clone()
    return FaceSet(
        storage=images,
        labels=torch.as_tensor(labels),
        classes=tuple("abcdefgh"[: max(labels) + 1]),
        splits=np.array(["train"] * n),
        subjects=torch.full((n,), -1),
        name="numbers",
        fingerprint="numbers",
    )
