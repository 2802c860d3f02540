"""The forms in which a caller gives a batch of graphs, read into the fields of a layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from .checks import (
    as_device,
    check_count,
    check_integers,
    check_not_recorded,
    check_num_nodes,
    check_values,
    shortened,
    whole_numbers,
)
from .values import check_not_mapped, in_numpy, is_readable, unwrapped

# graphs beyond this, and 16 times as many as there are nodes, are a mistake
_MANY_GRAPHS = 2**20


class GraphFields(NamedTuple):
    """The fields of a :class:`GraphLayout`, in its order."""

    ptr: Tensor
    batch: Tensor
    order: Tensor | None
    num_nodes: int
    num_graphs: int
    max_nodes: int
    sizes: tuple[int, ...]


def fields_of_sizes(
    sizes: Sequence[int] | Tensor, device: torch.device | str | None = None
) -> GraphFields:
    """The fields by the number of nodes of each graph, ``[B]``."""
    if isinstance(sizes, Tensor):
        check_integers("sizes", sizes)
        check_values("sizes", sizes)
        check_not_recorded("sizes")
        device = sizes.device if device is None else device
        sizes = sizes.tolist()
    host = tuple(whole_numbers("sizes", sizes))
    if any(n < 0 for n in host):
        raise ValueError(f"'sizes' must hold integers of at least 0 (got {shortened(host)})")
    return fields_of_counts(host, as_device(device))


def fields_of_ptr(ptr: Tensor, ptr_host: Sequence[int] | None = None) -> GraphFields:
    """The fields by ``ptr [B + 1]``; with ``ptr_host`` nothing is synced."""
    check_integers("ptr", ptr)
    check_not_recorded("ptr")
    if ptr.numel() == 0:
        raise ValueError("'ptr' must have shape [num_graphs + 1], so at least one element")
    if ptr_host is None:
        check_values("ptr", ptr)
    host = ptr.tolist() if ptr_host is None else whole_numbers("ptr_host", ptr_host)
    if len(host) != ptr.numel():
        raise ValueError(f"'ptr_host' has {len(host)} numbers, 'ptr' has {ptr.numel()}")
    if ptr_host is not None and ptr.is_cpu and ptr.tolist() != host:
        raise ValueError(
            f"'ptr_host' must hold the numbers of 'ptr' (got {shortened(host)} and "
            f"{shortened(ptr.tolist())})"
        )
    sizes = tuple(b - a for a, b in zip(host, host[1:], strict=False))
    if host[0] != 0 or any(n < 0 for n in sizes):
        raise ValueError(f"'ptr' must begin at 0 and never fall (got {shortened(host)})")
    return fields_of_counts(sizes, ptr.device)


@torch.inference_mode(False)
def fields_of_batch(batch: Tensor, num_graphs: int | None = None) -> GraphFields:
    """The fields by ``batch [N]``, sorted or not; one copy of it to the host."""
    check_integers("batch", batch)
    check_values("batch", batch)
    if num_graphs is not None:
        check_count("num_graphs", num_graphs)
    check_not_mapped("batch", batch, "the sizes of graphs, by which tensors are shaped")
    # copied: a layout owns its numbers, and training cannot save an inference tensor
    own = unwrapped(batch).to(torch.int64, copy=True)
    host = in_numpy(own)
    in_order = bool((host[1:] >= host[:-1]).all())
    low, high = 0, -1
    if host.size:
        low, high = map(int, (host[0], host[-1]) if in_order else (host.min(), host.max()))
    if low < 0:
        raise ValueError(f"'batch' must not hold negative numbers (got {low})")
    if num_graphs is None:
        num_graphs = high + 1
    elif high >= num_graphs:
        raise ValueError(
            f"'batch' names graph {high}, but there are only {num_graphs} graphs; "
            f"pass a larger 'num_graphs' or leave it out"
        )
    if num_graphs > max(_MANY_GRAPHS, 16 * host.size):
        raise ValueError(
            f"{host.size} nodes in {num_graphs} graphs (the largest number in 'batch' is "
            f"{high}, or 'num_graphs' says so): graphs are numbered from 0 without gaps, and "
            f"each takes memory. "
            f"Number them anew with 'batch.unique(return_inverse=True)[1]'"
        )
    sizes = np.bincount(host, minlength=num_graphs)
    order = None
    if not in_order:
        sorting = torch.from_numpy(host.argsort(kind="stable"))
        order = unwrapped(sorting.to(batch.device, non_blocking=True))
    return fields_of_counts(sizes, batch.device, own, order)


def fields_of_data(data: Data) -> GraphFields:
    """The fields of a PyG ``Data`` or ``Batch``, by its ``batch``, ``ptr`` or number of nodes."""
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a 'torch_geometric.data.Data' or 'Batch' (got '{type(data).__name__}')"
        )
    batch, ptr = data.get("batch"), data.get("ptr")
    num_nodes = int(data.num_nodes or 0)
    if batch is not None:
        check_integers("batch", batch)
        check_num_nodes(batch.numel(), num_nodes, "data.batch")
        if not is_readable(batch):
            raise ValueError(
                "the graphs of 'data.batch' are needed, and a tensor without values (meta, "
                "fake) does not tell them; make the layout before and use its '.to'"
            )
        known = data.num_graphs if isinstance(data, Batch) else None
        if known is None and isinstance(ptr, Tensor):
            known = ptr.numel() - 1
        fields = fields_of_batch(batch, known)
        if isinstance(ptr, Tensor) and ptr.is_cpu:
            _check_ptr(ptr, fields)
        return fields
    if ptr is not None:
        fields = fields_of_ptr(ptr)
        check_num_nodes(fields.num_nodes, num_nodes, "data.ptr")
        return fields
    if isinstance(data, Batch):
        raise ValueError(
            "this batch has neither 'batch' nor 'ptr', by which its nodes are told apart; "
            "keep one of them, or use 'GraphLayout.from_sizes'"
        )
    tensors = (value for value in data.to_dict().values() if isinstance(value, Tensor))
    first = next(tensors, None)
    return fields_of_sizes([num_nodes], None if first is None else first.device)


@torch.inference_mode(False)
def fields_of_counts(
    sizes: Sequence[int] | npt.NDArray[np.int64],
    device: torch.device,
    batch: Tensor | None = None,
    order: Tensor | None = None,
) -> GraphFields:
    """The fields by counts of nodes that need no check, and what is known of the rest."""
    host = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=host[1:])
    num_nodes = int(host[-1])
    if not 0 <= num_nodes < 2**40:  # or 'batch' alone would take eight terabytes
        raise ValueError(
            f"the sizes of these graphs add up to more nodes than a machine can hold (the "
            f"largest has {max(int(n) for n in sizes)})"
        )
    ptr = torch.from_numpy(host).to(device, non_blocking=True)
    if batch is None:
        batch = torch.repeat_interleave(ptr.diff(), output_size=num_nodes)
    known = tuple(np.diff(host).tolist())
    rest = num_nodes, len(known), max(known, default=0), known
    return GraphFields(unwrapped(ptr), unwrapped(batch), order, *rest)


def checked_fields(
    ptr: Any, batch: Any, order: Any, num_nodes: int, num_graphs: int, max_nodes: int, sizes: Any
) -> GraphFields:
    """Copies of fields that a caller gave by hand, if they describe one batch of graphs.

    Raises:
        ValueError: if they contradict each other.
    """
    given = {"ptr": ptr, "batch": batch, "order": order}
    copies = {name: _copy_of(name, tensor) for name, tensor in given.items()}
    ptr, batch, order = copies.values()
    sizes = tuple(whole_numbers("sizes", sizes))
    for name, tensor in copies.items():
        if tensor is not None:
            check_values(name, tensor)
    host = fields_of_sizes(sizes)
    counts = {
        "num_nodes": (num_nodes, host.num_nodes),
        "num_graphs": (num_graphs, host.num_graphs),
        "max_nodes": (max_nodes, host.max_nodes),
        "the length of 'batch'": (batch.numel(), host.num_nodes),
    }
    wrong = [f"{name} is {got}, not {want}" for name, (got, want) in counts.items() if got != want]
    if not wrong and is_readable(batch):
        graph = batch.cpu()
        if order is not None:
            if not torch.equal(order.cpu().sort().values, torch.arange(num_nodes, device="cpu")):
                wrong.append("'order' does not name each node once")
            else:
                graph = graph[order.cpu()]
        if not torch.equal(ptr.cpu(), host.ptr):
            wrong.append(f"'ptr' is {shortened(ptr.tolist())}, not {shortened(host.ptr.tolist())}")
        elif not wrong and not torch.equal(graph, host.batch):
            wrong.append("'batch', in that order, does not give graphs of these sizes")
    if wrong:
        raise ValueError(
            f"the fields of this 'GraphLayout' contradict 'sizes': {'; '.join(wrong)}. Make it "
            f"with 'GraphLayout.from_batch' or another of its constructors"
        )
    return GraphFields(ptr, batch, order, num_nodes, num_graphs, max_nodes, sizes)


def _copy_of(name: str, tensor: Any) -> Tensor | None:
    if name == "order" and tensor is None:
        return None
    check_integers(name, tensor)
    with torch.inference_mode(False):
        copy: Tensor = unwrapped(tensor).to(torch.int64, copy=True)
    return copy


def _check_ptr(ptr: Tensor, fields: GraphFields) -> None:
    # 'Data.subgraph' leaves the 'ptr' of before, which is seen by its end, and not used
    if int(ptr[-1]) == fields.num_nodes and not torch.equal(ptr.long(), fields.ptr.cpu()):
        raise ValueError(
            f"'data.batch' counts {shortened(list(fields.sizes))} nodes in its graphs, but "
            f"'data.ptr' {shortened(ptr.diff().tolist())}; drop the one that is wrong"
        )
