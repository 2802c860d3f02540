"""Encodings of whole datasets: in bulk, by worker processes, on disk."""
