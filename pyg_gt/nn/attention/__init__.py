"""Multi-head attention on a ragged batch: fused, with hooks on its module, or padded."""
