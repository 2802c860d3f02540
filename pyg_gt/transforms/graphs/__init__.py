"""Graphs as encodings read them: arrays made of a `Data`, and attributes written back to it.

``read`` makes :class:`~.graphs.Graphs` of data (``data`` checks one, ``batch`` finds the graphs in
it), ``components`` and ``pairs`` cut them up for linear algebra, ``attributes`` writes results.
"""
