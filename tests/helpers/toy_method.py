"""A method small enough to be made in a test, with a tied weight and an option."""

import torch
from torch import nn

from fer_lab.models.method import Method


class Toy(Method):
    def __init__(self, num_classes: int = 7, size: str = "tiny", width: int = 4):
        super().__init__(num_classes, size)
        if width > 1000:
            raise ValueError("width is too large")
        self.first = nn.Linear(3, width)
        self.second = nn.Linear(3, width)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, num_classes)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        pooled = images.mean((2, 3))
        return self.norm(self.first(pooled) + self.second(pooled))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(images))


class OtherToy(Toy):
    pass
