"""Layers and swapped models in two processes (gloo): DDP and FSDP."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.nn import GINConv, TransformerConv
from torch_geometric.nn import GPSConv as PyGGPSConv

import pyg_gt
from pyg_gt.nn import FullTransformerConv, GPSConv, MaskedTransformerConv

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")

F, H = 8, 2


class Pyg(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gps = PyGGPSConv(F, GINConv(torch.nn.Linear(F, F)), heads=H, norm="layer_norm")
        self.attn = TransformerConv(F, F, heads=H, concat=False)

    def forward(self, x, edge_index, batch):
        return self.attn(self.gps(x, edge_index, batch), edge_index)


class Ours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gps = GPSConv(F, GINConv(torch.nn.Linear(F, F)), heads=H, norm="layer_norm")
        self.attn = MaskedTransformerConv(F, F, heads=H, concat=False)
        self.full = FullTransformerConv(F, F, edge_dim=F)

    def forward(self, x, edge_index, batch):
        x = self.attn(self.gps(x, edge_index, batch), edge_index)
        return self.full(x, edge_index, x[edge_index[0]], batch)


def shard(rank):
    """Other graphs on each rank."""
    generator = torch.Generator().manual_seed(rank)
    sizes = torch.tensor([4, 6 + rank])
    n = int(sizes.sum())
    edge_index = torch.cat(
        [torch.randint(4, (2, 9), generator=generator),
         4 + torch.randint(n - 4, (2, 12), generator=generator)], dim=1
    )  # fmt: skip
    x = torch.randn(n, F, generator=generator, dtype=torch.float64)
    return x, edge_index, torch.arange(2).repeat_interleave(sizes)


def loss_of(model, rank):
    return model(*shard(rank)).square().mean()


def plain(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def worker(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}

    torch.manual_seed(0)
    model = DistributedDataParallel(Ours().double())
    loss_of(model, rank).backward()
    found["ddp"] = {name: p.grad for name, p in model.module.named_parameters()}

    # wrapped, with an optimizer, and only then swapped
    torch.manual_seed(0)
    model = DistributedDataParallel(Pyg().double())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = plain(model.module)
    assert pyg_gt.swap(model) is model
    kinds = [type(model.module.gps).__module__, type(model.module.attn).__module__]
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = loss_of(model, rank)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found["swap"] = {"before": before, "after": plain(model.module), "kinds": kinds}
    found["swap"]["losses"] = losses

    # trained, wrapped and swapped between two steps
    torch.manual_seed(0)
    model = DistributedDataParallel(Pyg().double())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, rank).backward()
        optimizer.step()
        if step == 0:
            pyg_gt.swap(model)
    found["between"] = plain(model.module)

    torch.manual_seed(0)
    model = Ours().double()
    mesh = dist.init_device_mesh("cpu", (2,))
    for layer in (model.gps, model.attn, model.full, model):
        fully_shard(layer, mesh=mesh)
    loss_of(model, rank).backward()
    found["fsdp"] = {name: p.grad.full_tensor() for name, p in model.named_parameters()}

    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both ranks saw."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def mean_gradients(make):
    """In one process: the mean over both shards."""
    torch.manual_seed(0)
    model = make().double()
    (0.5 * (loss_of(model, 0) + loss_of(model, 1))).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_gradients_are_the_mean_over_both_processes(kind, found):
    want = mean_gradients(Ours)
    for rank in range(2):
        mine = found[rank][kind]
        assert mine.keys() == want.keys()
        for name, grad in mine.items():
            torch.testing.assert_close(grad, want[name], msg=lambda m, n=name: f"{n}: {m}")


def train(optimizer_of, steps):
    """PyG's own model in one process, on both shards."""
    torch.manual_seed(0)
    model = Pyg().double()
    optimizer = optimizer_of(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (loss_of(model, 0) + loss_of(model, 1))).backward()
        optimizer.step()
    return plain(model)


def test_a_wrapped_model_that_is_swapped_trains_as_pygs(found):
    want = train(lambda p: torch.optim.Adam(p, lr=0.01), 2)
    for rank in range(2):
        swapped = found[rank]["swap"]
        assert swapped["kinds"] == [
            "pyg_gt.nn.conv.gps_conv", "pyg_gt.nn.conv.masked_transformer_conv"
        ]  # fmt: skip
        assert swapped["losses"][1] != swapped["losses"][0]
        for name, weight in swapped["after"].items():
            assert not weight.equal(swapped["before"][name]), name
            assert weight.equal(found[0]["swap"]["after"][name]), name
            torch.testing.assert_close(weight, want[name], rtol=1e-6, atol=1e-8)


def test_a_swap_between_two_steps_changes_no_number(found):
    want = train(lambda p: torch.optim.SGD(p, lr=0.01), 3)
    for rank in range(2):
        for name, weight in found[rank]["between"].items():
            torch.testing.assert_close(weight, want[name])
