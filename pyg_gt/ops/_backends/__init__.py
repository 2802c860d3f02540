"""Ways to compute an attention; :mod:`pyg_gt.ops.dispatch` chooses among them."""
