"""The graphs that encodings are timed on."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from pyg_gt.datasets import load_ogb


def superpixels(num_graphs: int, num_nodes: int = 480) -> list[Data]:
    """Graphs as of image regions: random points, each joined to its 6 nearest."""
    random, graphs = np.random.default_rng(0), []
    for _ in range(num_graphs):
        points = torch.from_numpy(random.random((num_nodes, 2)))
        near = torch.cdist(points, points).topk(6, largest=False).indices[:, 1:]
        edge_index = torch.stack([torch.arange(num_nodes).repeat_interleave(5), near.flatten()])
        graphs.append(Data(edge_index=to_undirected(edge_index), num_nodes=num_nodes))
    return graphs


def citation_graph(num_nodes: int = 169_343, num_edges: int = 1_166_243) -> Data:
    """A connected graph of ogbn-arxiv's size: most edges within a field, popular papers."""
    random = np.random.default_rng(0)
    field = random.integers(0, 40, num_nodes)
    by_field = np.argsort(field, kind="stable")
    first = np.searchsorted(field[by_field], np.arange(41))
    paper = np.arange(1, num_nodes)
    tree = np.stack([paper, (random.random(paper.size) ** 2 * paper).astype(np.int64)])
    source = random.integers(0, num_nodes, num_edges - num_nodes + 1)
    popular = random.random(source.size) ** 3
    start, stop = first[field[source]], first[field[source] + 1]
    inside = by_field[start + (popular * (stop - start)).astype(np.int64)]
    target = np.where(random.random(source.size) < 0.8, inside, (popular * num_nodes).astype(int))
    edges = np.concatenate([tree, np.stack([source, target])], axis=1)
    edges = edges[:, edges[0] != edges[1]]
    return Data(edge_index=to_undirected(torch.from_numpy(edges)), num_nodes=num_nodes)


def grid_graph(side: int = 412) -> Data:
    """A mesh of 169,744 nodes."""
    place = torch.arange(side * side).view(side, side)
    right = torch.stack([place[:, :-1].flatten(), place[:, 1:].flatten()])
    down = torch.stack([place[:-1].flatten(), place[1:].flatten()])
    return Data(edge_index=to_undirected(torch.cat([right, down], 1)), num_nodes=side * side)


def molhiv(root: Path) -> list[Data]:
    dataset, _, _ = load_ogb("ogbg-molhiv", root)
    return [dataset[i] for i in range(len(dataset))]


def peptides(folder: Path) -> list[Data]:
    """The graphs of Peptides-func, from their SMILES."""
    # After load_ogb, which imports ogb without its check for updates.
    from ogb.utils import smiles2graph
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")
    graphs = []
    for path in sorted(folder.glob("*.csv.gz")):
        with gzip.open(path, "rt", newline="") as file:
            for line in csv.DictReader(file):
                graph = smiles2graph(line["smiles"])
                edge_index = torch.from_numpy(graph["edge_index"]).long()
                graphs.append(Data(edge_index=edge_index, num_nodes=int(graph["num_nodes"])))
    return graphs
