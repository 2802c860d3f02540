"""Batch normalisation that takes a single row."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn import BatchNorm1d


class BatchNorm(BatchNorm1d):
    """Normalises a single row as in evaluation, like PyG's with ``allow_single_element``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, F]``."""
        if self.training and input.size(0) <= 1:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(input, mean, var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)
