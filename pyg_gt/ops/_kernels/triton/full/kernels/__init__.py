"""Kernels of attention inside graphs. Importing one of these modules imports triton."""
