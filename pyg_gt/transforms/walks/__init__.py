"""Probabilities of random walks."""
