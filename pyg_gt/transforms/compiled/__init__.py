"""Compiled code: ``library`` calls our C++ (``csrc``), ``blas`` sets the threads of BLAS."""
