"""Compiled code: our C++ and BLAS."""
