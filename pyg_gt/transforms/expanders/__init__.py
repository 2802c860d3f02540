"""Random regular graphs with a large spectral gap."""
