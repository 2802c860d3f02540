"""An epoch of ogbg-molhiv: ``python -m benchmarks.cpu.epoch --root DIR``.

GPS of 10 layers and 64 channels, GINE, attention dropout 0.5, Adam: a model of PyG's layers and
the same model after ``swap``, trained batch by batch in turn on two threads. The outputs of both
are checked equal without dropout first. Each time includes collating the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.nn import global_mean_pool

import pyg_gt
from benchmarks.record import RESULTS, environment, parser, write
from benchmarks.timing import interleaved, ratio
from pyg_gt.datasets import load_ogb

CHANNELS, HEADS, LAYERS, DROPOUT = 64, 4, 10, 0.5


class Model(torch.nn.Module):
    """GPS on molecules, of PyG's layers."""

    def __init__(self) -> None:
        super().__init__()
        # after load_ogb, which imports ogb without its check for updates
        from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder

        self.atoms, self.bonds = AtomEncoder(CHANNELS), BondEncoder(CHANNELS)
        self.layers = torch.nn.ModuleList(self._layer() for _ in range(LAYERS))
        self.head = torch.nn.Linear(CHANNELS, 1)

    @staticmethod
    def _layer() -> torch.nn.Module:
        mlp = torch.nn.Sequential(
            torch.nn.Linear(CHANNELS, CHANNELS),
            torch.nn.ReLU(),
            torch.nn.Linear(CHANNELS, CHANNELS),
        )
        local = pyg.GINEConv(mlp, edge_dim=CHANNELS)
        return pyg.GPSConv(CHANNELS, local, HEADS, attn_kwargs={"dropout": DROPOUT})

    def forward(self, batch: Batch) -> Tensor:
        x, edges = self.atoms(batch.x), self.bonds(batch.edge_attr)
        for layer in self.layers:
            x = layer(x, batch.edge_index, batch.batch, edge_attr=edges)
        return self.head(global_mean_pool(x, batch.batch, batch.num_graphs))


def step(model: Model, optimizer: torch.optim.Optimizer, batches: Iterator[list[Any]]) -> None:
    """One training step on the next batch, from its list of graphs on."""
    batch = Batch.from_data_list(next(batches))
    optimizer.zero_grad()
    logits = model(batch)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.y.float())
    loss.backward()
    optimizer.step()


def check_same(models: dict[str, Model], graphs: list[Any]) -> None:
    """Raises unless all give the same logits without dropout.

    In train mode: with the running statistics of a new BatchNorm, numbers double at every layer.
    """
    results = []
    for model in models.values():
        for layer in model.layers:
            layer.attn.dropout = 0.0
        with torch.no_grad():
            results.append(model(Batch.from_data_list(graphs)))
        for layer in model.layers:
            layer.attn.dropout = DROPOUT
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3)


def epoch(data: Any, batch_size: int, every: int) -> dict[str, Any]:
    """Seconds of an epoch by model, and the median of their ratios over batches."""
    torch.manual_seed(0)
    models = {"pyg": Model()}
    models["pyg_gt"] = pyg_gt.swap(copy.deepcopy(models["pyg"]))
    chosen = torch.randperm(len(data)).split(batch_size)[::every]
    batches = [[data[i] for i in indices.tolist()] for indices in chosen]
    check_same(models, batches[0])
    calls = {}
    for name, model in models.items():
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        # the first batch once more, since a first step warms up
        calls[name] = partial(step, model, optimizer, chain(batches[:1], batches))
    times = interleaved(calls, rounds=len(batches), warmup=1)
    scale = len(data) / sum(map(len, batches))
    return {
        "batch_size": batch_size,
        "batches": len(batches),
        "share_of_the_epoch": round(1 / scale, 3),
        "epoch_seconds": {name: round(scale * sum(x), 1) for name, x in times.items()},
        "ratio_of_sums": round(sum(times["pyg"]) / sum(times["pyg_gt"]), 2),
        "median_ratio": round(ratio(times, "pyg", "pyg_gt"), 2),
    }


def main() -> None:
    """Runs both batch sizes, prints them, writes JSON."""
    arguments = parser(__doc__, RESULTS / "epoch_cpu.json", threads=2)
    arguments.add_argument(
        "--root", type=Path, required=True, help="folder that holds ogbg_molhiv"
    )
    arguments.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 256])
    arguments.add_argument("--every", type=int, default=1, help="of so many batches, train on one")
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    dataset, split, _ = load_ogb("ogbg-molhiv", args.root)
    data = dataset[split["train"]]
    rows = []
    for batch_size in args.batch_sizes:
        rows.append(epoch(data, batch_size, args.every))
        print(rows[-1], flush=True)
    config = {"channels": CHANNELS, "heads": HEADS, "layers": LAYERS, "attention dropout": DROPOUT}
    write(args.out, {"environment": environment(), "config": config, "rows": rows})


if __name__ == "__main__":
    main()
