"""GRIT: counts, presets, and the checks of every model."""

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import from_smiles

from pyg_gt.models import GRIT, FeatureEncoder
from pyg_gt.transforms import AddRelativeRandomWalkPE
from tests.models.checks import check_compiled, check_model, ring

OLD = {"atom_rows": 173}
COUNTS = [
    (GRIT.zinc, {}, 473_473),
    (GRIT.peptides_func, OLD, 443_338),
    (GRIT.peptides_func, {}, 443_434),
    (GRIT.peptides_struct, OLD, 449_483),
    (GRIT.peptides_struct, {}, 449_579),
    (GRIT.peptides_struct, {"variant": "paper", **OLD}, 438_827),
    (GRIT.pcqm4mv2, OLD, 11_832_065),
    (GRIT.pcqm4mv2, {}, 11_832_321),
]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("preset", "arguments", "published"), COUNTS)
def test_published_counts(preset, arguments, published) -> None:
    model = preset(**arguments)
    assert count(model) == published
    if arguments.get("atom_rows") == 173 or preset is GRIT.zinc:
        assert model.recipe.parameters == published


def test_counts_that_do_not_match() -> None:
    """The paper has 16.6 million parameters for PCQM4Mv2; its own settings give 11.8."""
    model = GRIT.pcqm4mv2(173)
    assert abs(count(model) - 16.6e6) > 4e6
    assert "16.6 million" in model.recipe.notes


def test_lean_has_no_parameter_without_a_gradient() -> None:
    batch = Batch.from_data_list([graph(n, n) for n in (5, 8)])
    for lean in (False, True):
        model = GRIT(5, 16, 2, 1, 4, 6, lean=lean)
        model(batch).sum().backward()
        idle = {name for name, p in model.named_parameters() if p.grad is None}
        assert all(name.startswith(("layers.1.O_e", "layers.1.batch_norm1_e")) for name in idle)
        assert lean == (not idle)


@pytest.mark.parametrize(
    "preset", [GRIT.zinc, GRIT.peptides_func, GRIT.peptides_struct, GRIT.pcqm4mv2]
)
def test_presets_run_on_what_their_transforms_add(preset) -> None:
    model = preset(hidden_channels=16, num_layers=2)
    graphs = [from_smiles(s) for s in ("CCO", "c1ccccc1O", "C")]
    for data in graphs:  # PyG's numbers of atoms and bonds are others than ogb's
        data.x, data.edge_attr = data.x % 2, data.edge_attr % 2
        if preset == GRIT.zinc:
            data.x, data.edge_attr = data.x[:, :1], data.edge_attr[:, 0]
    for transform in model.recipe.transforms:
        graphs = [transform(data) for data in graphs]
    batch = Batch.from_data_list(graphs)
    out = model(batch)
    assert out.size(0) == 3 and bool(out.isfinite().all())
    out.sum().backward()
    del batch.pair_walk
    with pytest.raises(ValueError, match=r"AddRelativeRandomWalkPE\((16|17|21|24)"):
        model(batch)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="did you mean 'paper'"):
        GRIT.peptides_struct("papr")
    with pytest.raises(ValueError, match="'in_channels', the width of 'data.x', or by a"):
        GRIT(None, 8, 1, 1)
    with pytest.raises(ValueError, match="divisible by 'heads'"):
        GRIT(4, 10, 1, 1)
    model = GRIT(5, 16, 1, 1, 4, 6)
    with pytest.raises(ValueError, match="'walk_length'.*AddRelativeRandomWalkPE.6."):
        model(AddRelativeRandomWalkPE(5)(graph(4, 0)))
    data = graph(4, 0)
    data.pair_walk = graph(5, 0).pair_walk
    with pytest.raises(ValueError, match="16 in all .got 25 rows."):
        model(data)


def again(data: Data) -> Data:
    return AddRelativeRandomWalkPE(6)(data)


def graph(num_nodes: int, seed: int) -> Data:
    edge_index = ring(num_nodes, seed)
    generator = torch.Generator().manual_seed(num_nodes + 77 * seed)
    x = torch.randn(num_nodes, 5, generator=generator)
    edge_attr = torch.randn(edge_index.size(1), 3, generator=generator)
    return again(Data(x, edge_index, edge_attr))


def make_model() -> GRIT:
    return GRIT(5, 16, 2, 1, 4, 6, edge_encoder=FeatureEncoder(3, 16, "edge_attr"))


def test_model() -> None:
    check_model(make_model, graph, again)


def test_compiled() -> None:
    check_compiled(make_model, graph)
