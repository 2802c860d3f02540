"""Public names are found where users of earlier versions import them from."""

import importlib
import pickle

import pytest

from pyg_gt import EdgeLayout, GraphLayout

NAMES = {
    "pyg_gt": "EdgeBias EdgeLayout EdgeMask GraphLayout PairBias ScoreMod TableBias __version__ "
    "attention explain explain_choice qkv_attention swap",
    "pyg_gt.layout": "GraphLayout EdgeLayout DeferredLayout",
    "pyg_gt.edge_layout": "EdgeLayout DeferredEdges",
    "pyg_gt.ops": "AttentionBias EdgeBias EdgeMask PairBias ScoreMod TableBias attention "
    "explain_choice qkv_attention",
    "pyg_gt.ops.bias": "EdgeBias EdgeMask PairBias ScoreMod TableBias",
    "pyg_gt.models": "ASTNodeEncoder AtomEncoder BondEncoder CatEncoder CategoryEncoder "
    "CodeHead EGT Exphormer ExphormerLayer FeatureEncoder GNNPlus GPS GRIT GraphHead "
    "Graphormer JointTableEncoder NodeHead Recipe SharedVector SumEncoder Transformer "
    "TunedGNN",
    "pyg_gt.nn": "DegreeEncoder EGTConv EdgePathBias ExphormerConv FullTransformerConv "
    "GCNEConv GNNPlusBlock GPSConv GRITConv GatedGCNConv GraphToken InteractionGraph "
    "LaplacianEncoder LatentTransformerConv MaskedTransformerConv RandomWalkEncoder "
    "RelativeWalkBias RelativeWalkEncoder ShortestPathBias SignNetEncoder StableEncoder "
    "TransformerBlock TransformerConv",
    "pyg_gt.nn.block": "TransformerBlock",
    "pyg_gt.nn.conv": "EGTConv ExphormerConv FullTransformerConv GCNEConv GPSConv GRITConv "
    "GatedGCNConv LatentTransformerConv MaskedTransformerConv",
    "pyg_gt.nn.conv.exphormer_conv": "ExphormerConv",
    "pyg_gt.nn.conv.full_transformer_conv": "FullTransformerConv",
    "pyg_gt.nn.conv.gated_gcn_conv": "GatedGCNConv",
    "pyg_gt.nn.conv.gps_conv": "GPSConv",
    "pyg_gt.nn.conv.latent_transformer_conv": "LatentTransformerConv",
    "pyg_gt.nn.conv.masked_transformer_conv": "MaskedTransformerConv",
    "pyg_gt.nn.interaction_graph": "InteractionGraph Interactions",
    "pyg_gt.nn.node_encoding": "DegreeEncoder LaplacianEncoder RandomWalkEncoder SignNetEncoder "
    "StableEncoder",
    "pyg_gt.nn.node_encoding.degree_encoder": "DegreeEncoder",
    "pyg_gt.nn.node_encoding.laplacian_encoder": "LaplacianEncoder",
    "pyg_gt.nn.node_encoding.random_walk_encoder": "RandomWalkEncoder",
    "pyg_gt.nn.node_encoding.sign_net_encoder": "SignNetEncoder",
    "pyg_gt.nn.node_encoding.stable_encoder": "StableEncoder",
    "pyg_gt.nn.pair_encoding": "EdgePathBias RelativeWalkBias ShortestPathBias",
    "pyg_gt.nn.pair_encoding.edge_path_bias": "EdgePathBias",
    "pyg_gt.nn.pair_encoding.relative_walk_bias": "RelativeWalkBias",
    "pyg_gt.nn.pair_encoding.shortest_path_bias": "ShortestPathBias",
    "pyg_gt.transforms": "AddDegree AddElectrostaticSE AddExpanderEdges AddHeatKernelSE "
    "AddKHopEdges AddLaplacianEigenvectorPE AddRandomWalkPE AddRelativeRandomWalkPE "
    "AddShortestPathDistance Attribute BlockDensity EncodeAndCollate GraphEncoding Graphs "
    "PrecomputedDataset ReorderNodes ReorderReport block_density precompute",
    "pyg_gt.transforms.add_degree": "AddDegree",
    "pyg_gt.transforms.add_electrostatic": "AddElectrostaticSE",
    "pyg_gt.transforms.add_expander_edges": "AddExpanderEdges",
    "pyg_gt.transforms.add_heat_kernel": "AddHeatKernelSE",
    "pyg_gt.transforms.add_k_hop_edges": "AddKHopEdges",
    "pyg_gt.transforms.add_laplacian": "AddLaplacianEigenvectorPE",
    "pyg_gt.transforms.add_random_walk": "AddRandomWalkPE",
    "pyg_gt.transforms.add_relative_random_walk": "AddRelativeRandomWalkPE",
    "pyg_gt.transforms.add_shortest_path": "AddShortestPathDistance",
    "pyg_gt.transforms.reorder_nodes": "ReorderNodes ReorderReport",
    "pyg_gt.datasets": "LongRange OGBTask load_ogb",
    "pyg_gt.datasets.long_range": "LongRange",
    "pyg_gt.datasets.ogb": "OGBTask load_ogb",
    "pyg_gt.testing": "assert_same_attention",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_importable(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize(
    "name", ["pyg_gt", "pyg_gt.ops", "pyg_gt.nn", "pyg_gt.transforms", "pyg_gt.models"]
)
def test_what_a_package_exports_is_listed(name: str) -> None:
    assert set(importlib.import_module(name).__all__) <= set(NAMES[name].split())


def test_pickles_name_classes_by_their_former_places() -> None:
    old = b"cpyg_gt.edge_layout\nEdgeLayout\n.", b"cpyg_gt.layout\nGraphLayout\n."
    assert [pickle.loads(x) for x in old] == [EdgeLayout, GraphLayout]
