"""The swap: an existing PyG model keeps its weights and its outputs, and stops padding."""

import time

import torch
from torch_geometric.nn import GINConv, GPSConv, Linear

import pyg_gt


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [GPSConv(64, GINConv(Linear(64, 64)), heads=4) for _ in range(4)]
        self.layers = torch.nn.ModuleList(layers)

    def forward(
        self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor
    ) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, edge_index, batch)
        return x


torch.manual_seed(0)
model = Model().eval()
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
