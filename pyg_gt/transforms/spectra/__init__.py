"""Eigenvectors of Laplacians and functions of them."""
