"""A method of a few weights and a data set that it learns at once."""

import numpy as np
import torch

from fer_lab.data.faces import REGIONS, FaceSet
from fer_lab.models import Method, register_method
from fer_lab.models.method import classification_loss


class Small(Method):
    """A few weights, BatchNorm and dropout: everything whose state a resume must get right."""

    def __init__(self, num_classes=3, size="tiny"):
        super().__init__(num_classes, size)
        self.trunk = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 8, 8), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2)
        )
        self.fc = torch.nn.Linear(8 * 49, num_classes)

    def embed(self, images):
        return self.trunk(images).flatten(1)

    def forward(self, images):
        return self.fc(self.embed(images))

    def training_losses(self, batch):
        loss = classification_loss(self(batch.images), batch.labels, batch.targets)
        return {"cross_entropy": loss, "total": loss}


register_method("small", f"{__name__}:Small")


def patterns(n=60, seed=0, votes=False):
    """Three classes that a pixel tells apart: noise, with one third of the picture bright, which "moved"."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 100, (n, 3, 32, 32), generator=g, dtype=torch.uint8)
    regions = torch.zeros(n, 32, 32, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        images[i, :, 10 * label : 10 * label + 10] += 120
        regions[i, 10 * label : 10 * label + 10] = 1 << REGIONS.index("moved")
    return FaceSet(
        storage=images,
        labels=labels,
        classes=("top", "middle", "bottom"),
        splits=np.array(["train"] * n),
        subjects=torch.full((n,), -1),
        name="patterns",
        fingerprint=f"patterns-{n}-{seed}",
        votes=torch.nn.functional.one_hot(labels, 3).float() if votes else None,
        regions=regions,
    )
