"""Probabilities of random walks: back at their start, exact or estimated, and between all pairs.

``return_probabilities`` chooses, by the size of a component, one of the ways of
``power_diagonals``.
"""
