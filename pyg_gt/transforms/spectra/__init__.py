"""Eigenvectors of Laplacians, and what is read off them: heat kernels, potentials.

``spectrum`` decomposes small components whole, ``eigenvectors`` computes a few columns of any:
``dense_laplacian`` and ``symmetric`` serve small components, ``sparse_laplacian`` and ``lanczos``
large ones.
"""
