"""Computations on tensors, which know nothing of autograd or PyTorch Geometric."""
