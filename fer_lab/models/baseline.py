"""The plain ResNet-18 that every other method is measured against.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, https://arxiv.org/abs/1512.03385
"""

from torch import Tensor, nn

from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import FaceBatch
from fer_lab.models.method import Method, classification_loss
from fer_lab.models.recipes import Recipe
from fer_lab.models.trunks import make_trunk


class Baseline(Method):
    """A trunk's features ("resnet18"), averaged over the grid, and one linear layer.

    The rows of that layer, `fc`, also weigh the class activation map.
    """

    paper = "He et al., CVPR 2016, https://arxiv.org/abs/1512.03385"
    class_maps = True

    def __init__(
        self, num_classes: int = 7, size: str = "tiny", *, trunk: str = "resnet18", pretrained: bool = False
    ):
        super().__init__(num_classes, size)
        self.trunk = make_trunk(trunk, size, ("resnet18",), pretrained=pretrained)
        self.fc = nn.Linear(self.trunk.out_channels, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → mean of the features over the grid [B,D]."""
        return self.trunk(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → logits [B,C]."""
        return self.fc(self.embed(images))

    def training_losses(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Cross-entropy."""
        loss = classification_loss(self(batch.images), batch.labels, batch.targets)
        return {"cross_entropy": loss, "total": loss}

    def attention_maps(self, images: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Class activation map (Zhou et al., arXiv 1512.04150), [B,1,7,7].

        `target`: a class for each face, int64 [B]; None is the predicted class.
        """
        features = self.trunk(images)
        if target is None:
            target = self.fc(features.mean((2, 3))).argmax(1)
        return {"class activation": (features * self.fc.weight[target][:, :, None, None]).sum(1, keepdim=True)}


SCRATCH_AUGMENTATION = Augmentation(
    flip=0.5,
    rotation=15,
    scale=(0.87, 1.18),
    shift=0.06,
    brightness=0.2,
    contrast=0.3,
    erasing_p=0.5,
    erasing_scale=(0.02, 0.12),
)
# For a few thousand rendered faces and some fifteen seconds on two cores. In so few steps SGD still answers
# "happiness" for every face; Adam and small batches leave that plateau.
SMOKE = Recipe(
    epochs=6,
    batch_size=16,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.02,
    schedule="one_cycle",
    augmentation=Augmentation(flip=0.5, rotation=8, shift=0.03),
)
# For tens of thousands of real faces, without face-recognition weights to start from.
SCRATCH = Recipe(
    epochs=15,
    batch_size=128,
    lr=0.1,
    weight_decay=5e-4,
    schedule="one_cycle",
    soft_targets=True,
    augmentation=SCRATCH_AUGMENTATION,
    precision="auto",
)
Baseline.recipes = {"smoke": SMOKE, "scratch": SCRATCH}
