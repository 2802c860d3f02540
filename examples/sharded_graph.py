"""Full attention over one graph whose nodes are shared out among processes.

    torchrun --nproc-per-node 2 examples/sharded_graph.py

Each process holds a part of the nodes, with their features, activations and gradients; keys and
values are gathered where a layer attends, by torch's `DTensor`, whose backward pass sends their
gradients to the processes they came from. The first process then computes the same without
sharing, and compares loss and gradients.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from pyg_gt import GraphLayout, attention


class ShardedBlock(nn.Module):
    """A pre-norm Transformer block on the nodes of this process."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, num_nodes: int, mesh: DeviceMesh | None) -> Tensor:
        """``[n, F]`` of this process's nodes, which are all without a mesh."""
        qkv = self.qkv(self.norm1(x)).view(x.size(0), 3, self.heads, -1)
        query, key, value = qkv.unbind(1)
        if mesh is not None:
            key, value = gather(qkv[:, 1:], num_nodes, mesh).unbind(1)
        layout = GraphLayout.from_sizes([key.size(0)], device=x.device)
        queries = GraphLayout.from_sizes([x.size(0)], device=x.device)
        attended = attention(query, key, value, layout, query_layout=queries)
        x = x + self.out(attended.flatten(1))
        return x + self.mlp(self.norm2(x))


def gather(part: Tensor, num_nodes: int, mesh: DeviceMesh) -> Tensor:
    """The rows of all processes, in their order; gradients go back to where rows came from."""
    shape = torch.Size([num_nodes, *part.shape[1:]])
    stride = torch.empty(shape, device="meta").stride()
    sharded = DTensor.from_local(part, mesh, [Shard(0)], shape=shape, stride=stride)
    # each process has a gradient of all rows, of its own queries: they are summed
    return sharded.redistribute(mesh, [Replicate()]).to_local(grad_placements=[Partial()])


def loss_of(
    model: nn.ModuleList, x: Tensor, y: Tensor, num_nodes: int, mesh: DeviceMesh | None
) -> Tensor:
    """The sum over this process's nodes: those of all processes add up to the loss."""
    for block in model:
        x = block(x, num_nodes, mesh)
    return (x - y).square().sum()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=3001)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    args = parser.parse_args()

    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    mesh = init_device_mesh(device.type, (world,))

    torch.manual_seed(0)  # the same weights and features in all processes
    model = nn.ModuleList(ShardedBlock(args.channels, 4) for _ in range(args.layers)).to(device)
    x, y = torch.randn(2, args.nodes, args.channels, device=device)

    mine = x.chunk(world)[rank], y.chunk(world)[rank]  # as DTensor shares rows out
    loss = loss_of(model, *mine, args.nodes, mesh)
    loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total)
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)

    if rank == 0:
        shared = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        alone = loss_of(model, x, y, args.nodes, None)
        alone.backward()
        worst = max(
            float((a - p.grad).norm() / p.grad.norm())
            for a, p in zip(shared, model.parameters(), strict=True)
        )
        print(
            f"{world} processes, {args.nodes} nodes: loss {float(total):.6g}, of one process "
            f"{float(alone.detach()):.6g}; gradients differ by {worst:.1e} of their norm"
        )
        torch.testing.assert_close(total, alone.detach(), rtol=1e-5, atol=0)
        assert worst < 1e-4
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
