"""Measurements, each run from the repository's root: ``python -m benchmarks.cpu.layer``.

``cpu/``, ``gpu/`` and ``transforms/`` import the modules beside this one and nothing of one
another; ``results/`` keeps what they gave.
"""
