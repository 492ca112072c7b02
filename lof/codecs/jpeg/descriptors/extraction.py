"""The encoder's choice of descriptors, from a picture and what the filter makes of its JPEG without any."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lof.codecs.descriptors.classes import CLASSES


class Extraction(nn.Module):
    """Three convolutions of both pictures, their difference beside them, then steps down to a place per 16×16 pixels.

    All at half of the resolution and below: pixels enter by twos.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(12, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.down = nn.Sequential(
            nn.Conv2d(3 * width, 2 * width, 3, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 3 * width, 3, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(3 * width, 4 * width, 3, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4 * width, CLASSES, 1),
        )

    def forward(self, images: Tensor, decoded: Tensor, scale: Tensor) -> Tensor:
        """Logits, (B, h, w, 16).

        Args:
            images, decoded: (B, 3, H, W) in [0, 1], H and W multiples of 16.
            scale: (B,), what errors are about: differences are seen in this unit.
        """
        # The same for both: what is common cancels in the difference, which is what there is to tell.
        unit = scale.reshape(-1, 1, 1, 1)
        mean = 0.5 * (images + decoded)
        half = 0.5 * (images - decoded) / unit
        ours, theirs = (
            self.features(F.pixel_unshuffle(part, 2))
            for part in (4 * (mean - 0.5) + half, 4 * (mean - 0.5) - half)
        )
        return cast(Tensor, self.down(torch.cat([ours, theirs, ours - theirs], 1))).permute(0, 2, 3, 1)


def drawn(logits: Tensor) -> Tensor:
    """A class for each place, drawn by its probability, as a one-hot vector with the gradient of a softmax."""
    noise = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)))
    soft = torch.softmax(logits + noise, -1)
    hard = F.one_hot(soft.argmax(-1), CLASSES).to(soft)
    return hard + soft - soft.detach()
