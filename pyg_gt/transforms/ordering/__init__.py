"""Orders of the nodes of a graph in which edges lie in few blocks of pairs."""
