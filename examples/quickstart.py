"""The swap: an existing PyG model keeps its weights and its outputs, and stops padding."""

import time

import torch
from torch_geometric.nn import GINConv, GPSConv, Linear, Sequential

import pyg_gt

channels, heads = 64, 4
layers = [
    (GPSConv(channels, GINConv(Linear(channels, channels)), heads), "x, edge_index, batch -> x")
    for _ in range(4)
]
model = Sequential("x, edge_index, batch", layers).eval()
batch = torch.repeat_interleave(torch.randint(20, 400, (32,)))  # 32 graphs of 20 to 400 nodes
x = torch.randn(batch.numel(), channels)
edge_index = torch.arange(batch.numel()).repeat(2, 1)

for name in ("PyG", "pyg_gt"):
    if name == "pyg_gt":
        pyg_gt.swap(model)
    with torch.no_grad():
        start = time.perf_counter()
        out = model(x, edge_index, batch)
    print(f"{name:<7} {1e3 * (time.perf_counter() - start):7.0f} ms   mean {out.mean():.6f}")
