"""Layers that were saved when their files had other names can be loaded."""

import importlib
import pickle

import pytest
import torch
from torch.utils._pytree import tree_leaves

from pyg_gt import nn
from pyg_gt.nn import FullTransformerConv, GatedGCNConv

# where pickles look for the classes of saved layers
PLACES = {
    "pyg_gt.nn.block": ["TransformerBlock"],
    "pyg_gt.nn.conv.full_transformer_conv": ["FullTransformerConv"],
    "pyg_gt.nn.conv.masked_transformer_conv": ["MaskedTransformerConv"],
    "pyg_gt.nn.conv.gps_conv": ["GPSConv"],
    "pyg_gt.nn.conv.gated_gcn_conv": ["GatedGCNConv", "_BatchNorm"],
    "pyg_gt.nn.node_encoding.degree_encoder": ["DegreeEncoder"],
    "pyg_gt.nn.node_encoding.laplacian_encoder": ["LaplacianEncoder"],
    "pyg_gt.nn.node_encoding.random_walk_encoder": ["RandomWalkEncoder"],
    "pyg_gt.nn.node_encoding.sign_net_encoder": ["SignNetEncoder"],
    "pyg_gt.nn.node_encoding.stable_encoder": ["StableEncoder"],
    "pyg_gt.nn.pair_encoding.edge_path_bias": ["EdgePathBias"],
    "pyg_gt.nn.pair_encoding.relative_walk_bias": ["RelativeWalkBias"],
    "pyg_gt.nn.pair_encoding.shortest_path_bias": ["ShortestPathBias"],
}


@pytest.mark.parametrize("module", PLACES)
def test_classes_are_found_where_they_were(module):
    for name in PLACES[module]:
        found = getattr(importlib.import_module(module), name)
        if not name.startswith("_"):
            assert found is getattr(nn, name)


# of a class that instances refer to: where it is, and where it was
MOVED = {
    "gated": (
        b"pyg_gt.nn.norm.batch_norm\nBatchNorm\n",
        b"pyg_gt.nn.conv.gated_gcn_conv\n_BatchNorm\n",
    ),
    "full": (
        b"pyg_gt.nn.message_passing.pair_messages\nPairMessages\n",
        b"pyg_gt.nn.conv._routes\nPairs\n",
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_layers_pickled_before_their_parts_moved(name):
    layer = {"gated": lambda: GatedGCNConv(4, 4), "full": lambda: FullTransformerConv(4, 4)}[
        name
    ]()
    is_now, was = MOVED[name]
    pickled = pickle.dumps(layer, protocol=0)  # which writes names as text
    assert is_now in pickled
    loaded = pickle.loads(pickled.replace(is_now, was))
    edges = torch.tensor([[0, 1], [1, 0]])
    given = (torch.ones(2, 4), edges) + ((torch.ones(2, 4),) if name == "gated" else ())
    for a, b in zip(tree_leaves(layer(*given)), tree_leaves(loaded(*given)), strict=True):
        assert torch.equal(a, b)
    hook = loaded.register_message_forward_hook(lambda *args: None)
    loaded(*given)
    hook.remove()
