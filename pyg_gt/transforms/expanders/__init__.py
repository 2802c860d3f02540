"""Random regular graphs with a large spectral gap, the same for the same graph and seed."""
