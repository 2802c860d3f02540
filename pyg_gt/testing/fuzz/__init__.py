"""Random inputs against oracles from outside the library: ``python -m pyg_gt.testing.fuzz``.

Every draw is made from (seed, part, number) alone, so a failure prints one line that repeats it.
"""
