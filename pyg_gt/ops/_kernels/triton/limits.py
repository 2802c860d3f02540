"""Types and head widths that the kernels take."""

from __future__ import annotations

import torch

TYPES = (torch.float32, torch.float16, torch.bfloat16)
# the widest head that there are tiles for
MAX_CHANNELS = 256
