"""Kernels of attention along edges. Importing one of these modules imports triton."""
