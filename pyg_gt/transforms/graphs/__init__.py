"""Graphs as encodings read them, and how attributes are written to them."""
