"""Kernels in Triton, for CUDA devices, and in Triton's interpreter for CPUs.

Importing this package does not import triton: the modules of kernels are imported where they are
launched.
"""
