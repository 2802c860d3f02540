"""Eigenvectors of Laplacians, and what is read off them: heat kernels, potentials.

``spectrum`` decomposes small components whole, ``eigenvectors`` computes a few columns of any;
both read the matrices of ``laplacian``. ``symmetric`` solves stacks of small matrices, ``lanczos``
large ones.
"""
