"""The namespace of this library's ops, ``torch.ops.pyg_gt``."""

from __future__ import annotations

import torch

LIBRARY = torch.library.Library("pyg_gt", "DEF")
# host numbers are read inside the ops, which a CUDA graph cannot record
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)
