"""Encodings of whole datasets: in bulk, by worker processes, on disk.

``precompute`` cuts a dataset into ``chunks``; each is encoded by ``encode`` into ``columns``, here
or in ``workers``, and kept in memory or in a ``store``; ``dataset`` and ``collate`` hand them out.
"""
