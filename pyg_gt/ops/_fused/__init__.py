"""Fused attention on CPU and CUDA: what both have in common."""
