"""What one graph gets does not depend on its companions, nor on how nodes and graphs stand."""

import pytest
import torch
from torch import Tensor

from pyg_gt import EdgeBias, EdgeLayout, EdgeMask, GraphLayout, PairBias, ScoreMod, TableBias
from pyg_gt.ops.pairs import num_pairs, pair_ptr

from .cases import BIASES, CPU, Case, dtype_of, layout_of, make_case, tolerance_of, unsupported

BACKENDS = ["reference", "sdpa", "sparse", CPU]
NAMES = ["none", "pair", "table-int32", "edge-repeats", "additive-mask-values"]
MASKS = ["mask", "mask-values-repeats", "mask-features", "edge-on-mask"]
SIZES = [6, 5, 11, 0, 40]


def outputs_and_gradients(case: Case, backend: str) -> list[Tensor]:
    out = case.attention(backend)
    leaves = list(case.leaves.values())
    wave = torch.arange(out.numel(), dtype=out.dtype).view(out.shape).cos()
    return [out.detach(), *torch.autograd.grad(out, leaves, wave)]


def owner(case: Case) -> list[Tensor | None]:
    """For the output and each leaf: the graph of each row; None for a shared table."""
    q, k = case.query_layout.batch, case.layout.batch
    of_pair = torch.repeat_interleave(pair_ptr(case.query_layout, case.layout).diff())
    owners: list[Tensor | None] = [q, q, k, k]
    for bias in case.biases:
        if isinstance(bias, PairBias):
            owners.append(of_pair)
        elif isinstance(bias, TableBias):
            owners.append(None)
        elif isinstance(bias, (EdgeBias, EdgeMask)):
            edges = bias.edges
            target = edges.target if isinstance(edges, EdgeLayout) else edges[1]
            owners += [q[target]] * sum(x is not None for x in list(vars(bias).values())[1:])
    return owners + [None] * len(case.captured)


@pytest.mark.parametrize("poison", [3.5, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("bias", [*NAMES, *MASKS, "mod", "everything"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_another_graphs_values_change_nothing(backend: str, bias: str, poison: float) -> None:
    """Bit for bit, also where the other graph is full of NaN."""
    layout = layout_of(SIZES, "unsorted")
    case = Case(layout, layout, torch.float32)
    BIASES[bias](case)
    if (reason := unsupported(case, backend)) is not None:
        pytest.skip(reason)
    before = outputs_and_gradients(case, backend)
    owners = owner(case)
    assert len(owners) == len(before)
    # graph 0 has pair 0 and node 0 of the sorted order: what padding would read by mistake
    for mine in (0, 4):
        with torch.no_grad():
            for leaf, graph in zip(case.leaves.values(), owners[1:], strict=True):
                if graph is not None:
                    leaf[graph == mine] = poison
        after = outputs_and_gradients(case, backend)
        for a, b, graph in zip(after, before, owners, strict=True):
            if graph is not None:
                spared = ~torch.isin(graph, torch.tensor([0, mine]))
                assert torch.equal(a[spared], b[spared])
                assert spared.any()
        assert not torch.equal(after[0][layout.batch == mine], before[0][layout.batch == mine])


@pytest.mark.parametrize("bias", ["none", "pair", "mask-values-repeats", "mask-features"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_companions_change_nothing(backend: str, bias: str, dtype: torch.dtype) -> None:
    """Bit for bit on the reference and on 'cpu'; 4 eps where products come from a library."""
    sizes = [3, 9, 70, 150]
    alone = [layout_of([n]) for n in sizes]
    cases = []
    for layout in alone:
        case = Case(layout, layout, dtype)
        if "mask" in bias and layout.num_nodes > 20:  # a few edges are enough
            edges = torch.randint(layout.num_nodes, (2, 500))
            e, h, c = 500, case.heads, case.channels
            values = case.leaf(e, h) if "values" in bias else None
            features = case.leaf(e, h, c) if "features" in bias else None
            case.biases = (EdgeMask(edges, values, features),)
        else:
            BIASES[bias](case)
        cases.append(case)
    if (reason := unsupported(cases[0], backend)) is not None:
        pytest.skip(reason)
    tolerance = 0.0 if backend in ("reference", "cpu") else 4 * torch.finfo(dtype).eps
    # one of them twice, so that buckets hold other numbers of graphs
    for group in ([0, 1, 2, 3], [3, 0], [2, 2, 1], [1, 0, 0, 1, 3, 2, 3]):
        together = join([cases[i] for i in group])
        found = outputs_and_gradients_by_graph(together, backend, [cases[i] for i in group])
        for i, results in zip(group, found, strict=True):
            own = outputs_and_gradients_by_graph(cases[i], backend, [cases[i]])[0]
            for a, b in zip(results, own, strict=True):
                assert (a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max()))


def join(cases: list[Case]) -> Case:
    """One batch of several; each is one graph."""
    layout = GraphLayout.from_sizes([case.layout.num_nodes for case in cases])
    whole = Case(layout, layout, cases[0].dtype)
    for name in ("query", "key", "value"):
        joined = torch.cat([getattr(case, name).detach() for case in cases])
        setattr(whole, name, joined.requires_grad_())
    first = cases[0].biases[0] if cases[0].biases else None
    if isinstance(first, PairBias):
        values = torch.cat([case.biases[0].values.detach() for case in cases])
        whole.biases = (PairBias(values.requires_grad_()),)
    elif isinstance(first, EdgeMask):
        starts = layout.ptr.tolist()
        edges = [c.biases[0].edges + s for c, s in zip(cases, starts, strict=False)]
        fields = []
        for name in ("values", "features"):
            parts = [getattr(case.biases[0], name) for case in cases]
            joined = None if parts[0] is None else torch.cat(parts).detach().requires_grad_()
            fields.append(joined)
        whole.biases = (EdgeMask(torch.cat(edges, 1), *fields),)
    return whole


def outputs_and_gradients_by_graph(
    case: Case, backend: str, parts: list[Case]
) -> list[list[Tensor]]:
    """Output and gradients, cut into the parts; the cotangent of a part is the same anywhere."""
    out = case.attention(backend)
    wave = torch.cat(
        [torch.arange(p.query.numel(), dtype=p.dtype).view(p.query.shape).cos() for p in parts]
    )
    gradients = torch.autograd.grad(out, list(case.leaves.values()), wave)
    results: list[list[Tensor]] = []
    sizes = [[p.query.size(0) for p in parts]] + [
        [list(p.leaves.values())[i].size(0) for p in parts] for i in range(len(gradients))
    ]
    split = [x.split(n) for x, n in zip([out.detach(), *gradients], sizes, strict=True)]
    for i in range(len(parts)):
        results.append([x[i] for x in split])
    return results


@pytest.mark.parametrize("bias", [*NAMES, *MASKS])
@pytest.mark.parametrize("backend", BACKENDS)
def test_permuting_nodes_permutes_the_result(backend: str, bias: str) -> None:
    """Also across graphs, so that the batch becomes unsorted; pairs move with their nodes."""
    case = make_case(bias, dtype=dtype_of(backend))
    if (reason := unsupported(case, backend)) is not None:
        pytest.skip(reason)
    old, n = case.layout, case.layout.num_nodes
    perm = torch.randperm(n)  # new node i is old node perm[i]
    new_of_old = perm.argsort()
    layout = GraphLayout.from_batch(old.batch[perm], old.num_graphs)
    assert layout.order is not None
    moved = Case(layout, layout, case.dtype)
    # the pair (i, j) of new nodes is the pair (perm[i], perm[j]) of old ones
    pairs = []
    old_start = pair_ptr(old, old)
    for graph in range(old.num_graphs):
        nodes = (layout.batch == graph).nonzero().flatten()
        size = old.sizes[graph]
        for i in old.pos[perm[nodes]].tolist():
            for j in old.pos[perm[nodes]].tolist():
                pairs.append(int(old_start[graph]) + i * size + j)
    pair_of = torch.tensor(pairs)
    assert pair_of.sort().values.equal(torch.arange(num_pairs(old, old)))
    moved.query, moved.key, moved.value = (
        x.detach()[perm].requires_grad_() for x in (case.query, case.key, case.value)
    )
    rows: list[Tensor | None] = [perm, perm, perm, perm]
    made: dict[int, Tensor | EdgeLayout] = {}
    for b in case.biases:
        if isinstance(b, PairBias):
            moved.biases += (PairBias(b.values.detach()[pair_of].requires_grad_()),)
            rows.append(pair_of)
        elif isinstance(b, TableBias):
            table = b.table.detach().clone().requires_grad_()
            moved.biases += (TableBias(table, b.index[pair_of]),)
            rows.append(None)
        else:
            assert isinstance(b, (EdgeBias, EdgeMask))
            given = b.edges
            index = given.edge_index if isinstance(given, EdgeLayout) else given
            if id(given) not in made:
                new = new_of_old[index]
                made[id(given)] = EdgeLayout.of(new, n) if given is not index else new
            rest = [
                None if x is None else x.detach().clone().requires_grad_()
                for x in list(vars(b).values())[1:]
            ]
            moved.biases += (type(b)(made[id(given)], *rest),)
            rows += [None for x in rest if x is not None]
    wave = torch.randn(n, 2, 3, dtype=case.dtype)
    want, got = case.attention(backend), moved.attention(backend)
    wanted = [want, *torch.autograd.grad(want, list(case.leaves.values()), wave)]
    results = [got, *torch.autograd.grad(got, list(moved.leaves.values()), wave[perm])]
    for a, b, row in zip(results, wanted, rows, strict=True):
        want = b if row is None else b[row]
        torch.testing.assert_close(a, want, rtol=0, atol=tolerance_of(backend))


@pytest.mark.parametrize("backend", ["reference", "sdpa", CPU])
def test_permuting_graphs_permutes_the_result(backend: str) -> None:
    case = make_case("none", dtype=dtype_of(backend))
    order = [4, 2, 3, 0, 1]
    nodes = torch.cat([(case.layout.batch == g).nonzero().flatten() for g in order])
    layout = GraphLayout.from_sizes([case.layout.sizes[g] for g in order])
    moved = Case(layout, layout, case.dtype)
    moved.query, moved.key, moved.value = (
        x.detach()[nodes].requires_grad_() for x in (case.query, case.key, case.value)
    )
    tolerance = 1e-14 if backend == "sdpa" else 0
    got, want = moved.attention(backend), case.attention(backend)
    torch.testing.assert_close(got, want[nodes], rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", ["reference", "sdpa", CPU])
def test_one_graph_without_a_batch_vector(backend: str) -> None:
    case = Case(GraphLayout.of(None, 9), GraphLayout.of(None, 9), dtype_of(backend))
    same = Case(layout_of([9]), layout_of([9]), case.dtype)
    same.query, same.key, same.value = case.query, case.key, case.value
    assert torch.equal(case.attention(backend), same.attention(backend))


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_numbers_that_a_function_is_given(backend: str) -> None:
    """Graph, head, query and key are numbered as in the caller's batch."""
    layout = layout_of([2, 0, 3], "unsorted")
    query_layout = layout_of([1, 2, 2], "unsorted")
    case = Case(query_layout, layout)
    seen = torch.zeros(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    case.biases = (ScoreMod(lambda score, graph, head, q, k: score + seen[graph, head, q, k]),)
    (gradient,) = torch.autograd.grad(case.attention(backend).square().sum(), seen)
    want = torch.zeros(3, 2, 5, 5, dtype=torch.bool)
    for q, graph in enumerate(query_layout.batch.tolist()):
        for k, other in enumerate(layout.batch.tolist()):
            want[graph, :, q, k] = graph == other
    assert torch.equal(gradient != 0, want)
