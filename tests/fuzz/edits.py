"""Numbers that change between calls: what is given must be read anew, what was made must stay."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

import pyg_gt
from pyg_gt import EdgeBias, EdgeLayout, EdgeMask, GraphLayout, TableBias
from pyg_gt.nn import FullTransformerConv, MaskedTransformerConv

from .draws import Fault, Random, random_of
from .problems import pick

attention: Any = pyg_gt.attention  # of unpacked tensors, which no type describes
_BACKENDS = ("auto", "auto", "cpu", "sdpa", "sparse", "reference")
_CLOSE = 2e-5


def draw(seed: int, number: int) -> Counter[str]:
    """One sequence of calls and edits."""
    rng = random_of(seed, "edits", number)
    scenario = pick(rng, _SCENARIOS)
    name = scenario.__name__.strip("_")
    try:
        scenario(rng)
    except Fault as fault:
        raise Fault(f"{name}\n{fault}") from fault
    return Counter([name])


def _edit(rng: Random, tensor: Tensor, numbers: Tensor) -> str:
    """Writes ``numbers`` into ``tensor`` by one of the ways to; says which."""
    how = pick(rng, ("copy_", "numpy", ".data", "set_", "index", "detach", "storage"))
    numbers, typed = numbers.to(tensor.dtype), cast(Any, tensor)
    if how == "copy_":
        tensor.copy_(numbers)
    elif how == "numpy":
        tensor.numpy()[...] = numbers.numpy()
    elif how == ".data":
        tensor.data.copy_(numbers)
    elif how == "set_":
        typed.set_(numbers.clone())
    elif how == "index":
        tensor[...] = numbers
    elif how == "detach":
        tensor.detach().copy_(numbers)
    else:
        flat: Any = torch.empty(0, dtype=tensor.dtype)
        flat.set_(tensor.untyped_storage())
        flat.copy_(numbers.flatten())
    return str(how)


def _batch(rng: Random, n: int) -> Tensor:
    numbers = torch.from_numpy(rng.integers(0, int(rng.integers(1, 5)), n))
    return numbers.sort().values if rng.random() < 0.6 else numbers


def _edges(rng: Random, batch: Tensor | None, n: int, count: int) -> Tensor:
    """``[2, count]`` inside graphs."""
    target = torch.from_numpy(rng.integers(0, n, count))
    if batch is None:
        return torch.stack([torch.from_numpy(rng.integers(0, n, count)), target])
    source = [int(pick(rng, (batch == batch[t]).nonzero().flatten())) for t in target]
    return torch.stack([torch.tensor(source, dtype=torch.int64), target])


def _check(found: Tensor, want: Tensor, what: str) -> None:
    if found.shape != want.shape:
        raise Fault(f"{what}: shape {[*found.shape]}, expected {[*want.shape]}")
    off = float((found - want).abs().max()) if want.numel() else 0.0
    if not off <= _CLOSE * max(1.0, float(want.abs().max()) if want.numel() else 0.0):
        raise Fault(f"{what}: off by {off:.3g}")


def _tensors(n: int, rng: Random) -> Tensor:
    return torch.randn(3, n, 2, int(pick(rng, (4, 7, 8))))


def _runs(qkv: Tensor, layout: Any, biases: Any, backend: str) -> Tensor | None:
    try:
        out: Tensor = attention(*qkv, layout, biases, backend=backend)
        return out
    except NotImplementedError:
        return None


def _batch_edited(rng: Random) -> None:
    n = int(rng.integers(1, 12))
    qkv, batch = _tensors(n, rng), _batch(rng, n).to(pick(rng, (torch.int64, torch.int32)))
    backend = pick(rng, _BACKENDS)
    _runs(qkv, GraphLayout.of(batch, n), (), backend)
    for _ in range(2):
        numbers = _batch(rng, n)
        how = _edit(rng, batch, numbers)
        want = attention(*qkv, GraphLayout.from_batch(numbers.clone()), backend="reference")
        found = _runs(qkv, GraphLayout.of(batch, n), (), backend)
        if found is not None:
            _check(found, want, f"'batch' edited by {how}, then GraphLayout.of, {backend}")


def _layout_is_frozen(rng: Random) -> None:
    n = int(rng.integers(1, 12))
    qkv, batch = _tensors(n, rng), _batch(rng, n)
    want = attention(*qkv, GraphLayout.from_batch(batch.clone()), backend="reference")
    makers: tuple[Callable[[], Any], ...] = (
        lambda: GraphLayout.from_batch(batch),
        lambda: GraphLayout.of(batch, n),
        lambda: pickle.loads(pickle.dumps(GraphLayout.from_batch(batch))),
    )
    which = int(rng.integers(len(makers)))
    layout = makers[which]()
    if rng.random() < 0.5:
        attention(*qkv, layout, backend=pick(rng, ("auto", "sdpa", "reference")))
    how = _edit(rng, batch, _batch(rng, n))
    for backend in ("cpu", "sdpa", "reference"):
        found = _runs(qkv, layout, (), backend)
        if found is not None:
            _check(found, want, f"a layout after its 'batch' was edited by {how}, {backend}")


def _edges_edited(rng: Random) -> None:
    n, count = int(rng.integers(1, 12)), int(rng.integers(0, 20))
    batch = _batch(rng, n) if rng.random() < 0.5 else None
    layout = GraphLayout.from_batch(batch) if batch is not None else GraphLayout.of(None, n)
    qkv, values = _tensors(n, rng), torch.randn(count, 2)
    edges, backend = _edges(rng, batch, n, count), pick(rng, _BACKENDS)
    kind = pick(rng, ("mask", "values", "bias", "both"))

    def biases(e: Tensor) -> tuple[Any, ...]:
        if kind == "bias":
            return (EdgeBias(e, values),)
        mask = EdgeMask(e, values if kind == "values" else None)
        return (mask, EdgeBias(e, values)) if kind == "both" else (mask,)

    _runs(qkv, layout, biases(edges), backend)
    for _ in range(2):
        numbers = _edges(rng, batch, n, count)
        how = _edit(rng, edges, numbers)
        want = attention(*qkv, layout, biases(numbers.clone()), backend="reference")
        found = _runs(qkv, layout, biases(edges), backend)
        if found is not None:
            _check(found, want, f"edges of {kind} edited by {how}, {backend}")


def _edge_layout_is_frozen(rng: Random) -> None:
    n, count = int(rng.integers(1, 12)), int(rng.integers(0, 20))
    qkv, layout = _tensors(n, rng), GraphLayout.of(None, n)
    edges = _edges(rng, None, n, count)
    want = attention(*qkv, layout, (EdgeMask(edges.clone()),), backend="reference")
    made = EdgeLayout.of(edges, n)
    if rng.random() < 0.5:
        attention(*qkv, layout, (EdgeMask(made),), backend=pick(rng, ("auto", "sparse", "sdpa")))
    how = _edit(rng, edges, _edges(rng, None, n, count))
    for backend in ("cpu", "sparse", "sdpa", "reference"):
        found = _runs(qkv, layout, (EdgeMask(made),), backend)
        if found is not None:
            _check(found, want, f"an edge layout after its edges were edited by {how}, {backend}")


def _edges_made_wrong(rng: Random) -> None:
    n, count = int(rng.integers(1, 12)), int(rng.integers(1, 20))
    qkv, layout, edges = _tensors(n, rng), GraphLayout.of(None, n), _edges(rng, None, n, count)
    backend = pick(rng, _BACKENDS)
    _runs(qkv, layout, (EdgeMask(edges),), backend)
    numbers = edges.clone()
    numbers[int(rng.integers(2)), int(rng.integers(count))] = pick(rng, (-1, n, n + 200, 2**40))
    how = _edit(rng, edges, numbers)
    try:
        found = _runs(qkv, layout, (EdgeMask(edges),), backend)
    except IndexError:
        return
    if found is not None:
        raise Fault(f"edges out of range, written by {how}, were taken by {backend}")


def _table_index_edited(rng: Random) -> None:
    n, rows = int(rng.integers(1, 9)), int(rng.integers(1, 6))
    qkv, layout, table = _tensors(n, rng), GraphLayout.of(None, n), torch.randn(rows, 2)
    dtype = pick(rng, (torch.uint8, torch.int16, torch.int32, torch.int64))
    index = torch.from_numpy(rng.integers(0, rows, n * n)).to(dtype)
    backend, bad = pick(rng, _BACKENDS), rng.random() < 0.4
    _runs(qkv, layout, (TableBias(table, index),), backend)
    numbers = torch.from_numpy(rng.integers(0, rows, n * n)).to(dtype)
    if bad:
        numbers[int(rng.integers(n * n))] = rows + pick(rng, (0, 1, 100))
    how = _edit(rng, index, numbers)
    try:
        found = _runs(qkv, layout, (TableBias(table, index),), backend)
    except IndexError:
        if bad:
            return
        raise
    if found is None:
        return
    if bad:
        raise Fault(f"an index of a table out of range, written by {how}, was taken by {backend}")
    want = attention(*qkv, layout, (TableBias(table, numbers.clone()),), backend="reference")
    _check(found, want, f"the index of a table edited by {how}, {backend}")


def _edited_before_backward(rng: Random) -> None:
    n, count = int(rng.integers(1, 12)), int(rng.integers(1, 20))
    dtype = pick(rng, (torch.float32, torch.float64))
    qkv, layout = _tensors(n, rng).to(dtype).requires_grad_(), GraphLayout.of(None, n)
    edges, backend = _edges(rng, None, n, count), pick(rng, _BACKENDS)
    out = attention(*qkv, layout, (EdgeMask(edges.clone()),), backend="reference")
    (want,) = torch.autograd.grad(out.square().sum(), qkv)
    try:
        out = attention(*qkv, layout, (EdgeMask(edges),), backend=backend)
    except NotImplementedError:
        return
    how = _edit(rng, edges, _edges(rng, None, n, count))
    try:
        (found,) = torch.autograd.grad(out.square().sum(), qkv)
    except RuntimeError as error:
        if "modified by an inplace operation" in str(error):
            return
        raise
    _check(found, want, f"edges edited by {how} before the backward pass, {backend}, {dtype}")


def _layers_after_an_edit(rng: Random) -> None:
    n, count = int(rng.integers(1, 12)), int(rng.integers(0, 20))
    x, edges, batch = torch.randn(n, 6), _edges(rng, None, n, count), _batch(rng, n)
    masked, full = MaskedTransformerConv(6, 4, heads=2), FullTransformerConv(6, 4, heads=2)
    masked(x, edges), full(x, batch=batch)
    numbers, graphs = _edges(rng, None, n, count), _batch(rng, n)
    how, other = _edit(rng, edges, numbers), _edit(rng, batch, graphs)
    _check(masked(x, edges), masked(x, numbers.clone()), f"a layer after edges edited by {how}")
    want = full(x, batch=graphs.clone())
    _check(full(x, batch=batch), want, f"a layer after 'batch' edited by {other}")


def _inference_first(rng: Random) -> None:
    n, count = int(rng.integers(1, 12)), int(rng.integers(0, 20))
    with torch.inference_mode():
        batch = _batch(rng, n).clone()
        edges = _edges(rng, batch, n, count).clone()
        qkv = _tensors(n, rng)
        layout = GraphLayout.of(batch, n)
        _runs(qkv, layout, (EdgeMask(edges),), pick(rng, _BACKENDS))
    qkv = qkv.clone().requires_grad_()
    backend = pick(rng, _BACKENDS)
    for biases in ((), (EdgeMask(edges),), (EdgeBias(edges, torch.randn(count, 2)),)):
        out = _runs(qkv, GraphLayout.of(batch, n), biases, backend)
        if out is None:
            continue
        (found,) = torch.autograd.grad(out.square().sum(), qkv)
        want = attention(*qkv, GraphLayout.from_batch(batch.clone()), biases, backend="reference")
        (right,) = torch.autograd.grad(want.square().sum(), qkv)
        _check(out, want, f"what inference mode made, trained on, {backend}")
        _check(found, right, f"gradients on what inference mode made, {backend}")


def _other_default_device(rng: Random) -> None:
    n, count = int(rng.integers(1, 12)), int(rng.integers(0, 20))
    qkv, batch = _tensors(n, rng), _batch(rng, n)
    edges, p = _edges(rng, batch, n, count), pick(rng, (0.0, 0.5))
    values = torch.randn(count, 2)
    backend = pick(rng, _BACKENDS)
    for biases in ((), (EdgeMask(edges, values),), (EdgeBias(edges, values),)):
        results = []
        for device in ("cpu", "meta"):
            torch.manual_seed(1)
            x = qkv.clone().requires_grad_()
            with torch.device(device):
                layout = GraphLayout.of(batch.clone(), n)
                try:
                    out = attention(*x, layout, biases, dropout_p=p, backend=backend)
                except NotImplementedError:
                    return
                out.square().sum().backward()
            assert x.grad is not None
            results += [out.detach(), x.grad]
        for got, want in zip(results[2:], results[:2], strict=True):
            _check(got, want, f"with default device 'meta', {backend}")


def _default_dtype(rng: Random) -> None:
    n = int(rng.integers(1, 12))
    qkv, batch = _tensors(n, rng), _batch(rng, n)
    edges = _edges(rng, batch, n, 5)
    backend = pick(rng, _BACKENDS)
    for biases in ((), (EdgeMask(edges),)):
        want = _runs(qkv, GraphLayout.of(batch.clone(), n), biases, backend)
        torch.set_default_dtype(torch.float64)
        try:
            found = _runs(qkv, GraphLayout.of(batch.clone(), n), biases, backend)
        finally:
            torch.set_default_dtype(torch.float32)
        if want is not None and found is not None:
            if found.dtype != want.dtype:
                raise Fault(f"default type float64 makes {found.dtype} of float32, {backend}")
            _check(found, want, f"with default type float64, {backend}")


def _shared_numbers(rng: Random) -> None:
    """One piece of memory behind several tensors."""
    n = int(rng.integers(2, 12))
    memory = np.zeros(2 * n, np.int64)
    qkv, backend = _tensors(n, rng), pick(rng, _BACKENDS)
    whole = torch.from_numpy(memory)
    for _ in range(3):
        first = int(rng.integers(n))
        part = whole[first : first + n]
        numbers = _batch(rng, n)
        memory[first : first + n] = numbers.numpy()
        want = attention(*qkv, GraphLayout.from_batch(numbers), backend="reference")
        found = _runs(qkv, GraphLayout.of(part, n), (), backend)
        if found is not None:
            _check(found, want, f"'batch' is a view of memory that others write, {backend}")


_SCENARIOS = (
    _batch_edited, _layout_is_frozen, _edges_edited, _edge_layout_is_frozen, _edges_made_wrong,
    _table_index_edited, _edited_before_backward, _layers_after_an_edit, _inference_first,
    _other_default_device, _default_dtype, _shared_numbers,
)  # fmt: skip
