"""Orders of the nodes of a graph."""
