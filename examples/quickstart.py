"""The swap: an existing PyG model keeps its weights and its outputs, and stops padding."""

import time

import torch
from torch_geometric.nn import GINConv, GPSConv, Linear, Sequential

import pyg_gt

torch.manual_seed(0)
step = "x, edge_index, batch -> x"
layers = [(GPSConv(64, GINConv(Linear(64, 64)), heads=4), step) for _ in range(4)]
model = Sequential("x, edge_index, batch", layers).eval()
batch = torch.repeat_interleave(torch.randint(20, 400, (32,)))  # 32 graphs of 20 to 400 nodes
x = torch.randn(batch.numel(), 64)
edge_index = torch.arange(batch.numel()).repeat(2, 1)


@torch.no_grad()
def run(name: str) -> None:
    """Prints the time of a forward pass and the mean of what it gives."""
    start = time.perf_counter()
    out = model(x, edge_index, batch)
    print(f"{name:<7} {1e3 * (time.perf_counter() - start):6.0f} ms   mean {out.mean():.6f}")


run("PyG")
pyg_gt.swap(model)  # the same objects, the same weights
run("pyg_gt")
print(pyg_gt.explain(model, x, edge_index, batch))  # what computes the attention, and why
