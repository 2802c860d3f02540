"""The gradients of attention along edges, by query nodes and by key nodes; no atomics."""

# triton compiles these functions, Python never runs them
# mypy: ignore-errors

import triton
import triton.language as tl

from .device_functions import (
    compute_scores,
    dropout_mask,
    head_offsets,
    load_edges,
    load_keys_values,
    load_nodes,
    load_rows,
    store_rows,
)


@triton.jit(do_not_specialize=["count", "threshold"], do_not_specialize_on_alignment=["programs"])
def edge_backward_queries(
    programs, count, neighbors, edge_ids, query, key, value, features, values, seed, stats, grad,
    out, deltas, query_grad, features_grad, values_grad, query_row, query_head, key_row, key_head,
    value_row, value_head, features_row, features_head, grad_row, grad_head, scale, threshold,
    factor, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, HB: tl.constexpr, BT: tl.constexpr,
    BE: tl.constexpr, ALIGN: tl.constexpr, NUMBERED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The gradients of queries and of what stands on edges, and ``deltas [Nq, H]``.

    With ``PARTS``, ``query_grad`` has a row a part.
    """
    row, row_mask, node, begin, end, head = load_nodes(programs, count, H, HB, BT)
    node_mask, nodes = row_mask[:, None], node[:, None]
    g = load_rows(grad, nodes, node_mask, grad_row * ALIGN, grad_head * ALIGN, head, H, HB, C, D)
    o = load_rows(out, nodes, node_mask, H * C, C, head, H, HB, C, D)
    delta = tl.sum(g * o, 3)  # [BT, 1, HB]
    at, head_mask = head_offsets(nodes, node_mask, head, H, HB)
    tl.store(deltas + at, delta, mask=head_mask)  # all parts of a node store the same
    if query_grad is not None or features_grad is not None or values_grad is not None:
        q = load_rows(
            query, nodes, node_mask, query_row * ALIGN, query_head * ALIGN, head, H, HB, C, D
        )
        row_max = tl.load(stats + at * 2, mask=head_mask, other=0.0)
        inverse_sum = tl.load(stats + at * 2 + 1, mask=head_mask, other=0.0)
        dq = tl.zeros([BT, HB, D], tl.float32)
        mask, neighbor, edge = load_edges(neighbors, edge_ids, begin, end, 0, BE, NUMBERED)
        for start in range(0, tl.max(end - begin, 0), BE):
            k, v, next_mask, next_neighbor, next_edge = load_keys_values(
                key, value, features, neighbors, edge_ids, mask, neighbor, edge, begin, end, start,
                key_row, key_head, value_row, value_head, features_row, features_head, head, H, HB,
                C, D, BE, ALIGN, NUMBERED,
            )  # fmt: skip
            scores = compute_scores(q, k, values, edge, mask, head, scale, H, HB)
            weights = tl.exp(scores - row_max) * inverse_sum
            grad_scores = tl.sum(g * v, 3)
            dropped = weights
            if seed is not None:
                keep = dropout_mask(seed, edge, head, threshold, HB)
                dropped = tl.where(keep, weights * factor, 0.0)
                grad_scores = tl.where(keep, grad_scores * factor, 0.0)
            # what is no number must not leave its node through edges that are not there
            grad_scores = tl.where(mask[:, :, None], weights * (grad_scores - delta), 0.0)
            if values_grad is not None:
                of_edge, has_edge = head_offsets(edge, mask, head, H, HB)
                made = grad_scores.to(values_grad.dtype.element_ty)
                tl.store(values_grad + of_edge, made, mask=has_edge)
            grad_scores *= scale
            if features_grad is not None:
                df = grad_scores[:, :, :, None] * q + dropped[:, :, :, None] * g
                store_rows(features_grad, edge, mask, head, df, H, HB, C, D)
            dq += tl.sum(grad_scores[:, :, :, None] * k, 1)
            mask, neighbor, edge = next_mask, next_neighbor, next_edge
        if query_grad is not None:
            rows = nodes
            if PARTS:
                rows = row[:, None]
            store_rows(query_grad, rows, node_mask, head, dq[:, None, :, :], H, HB, C, D)


@triton.jit(do_not_specialize=["count", "threshold"], do_not_specialize_on_alignment=["programs"])
def edge_backward_keys(
    programs, count, neighbors, edge_ids, query, key, value, features, values, seed, stats, grad,
    deltas, key_grad, value_grad, query_row, query_head, key_row, key_head, value_row, value_head,
    features_row, features_head, grad_row, grad_head, scale, threshold, factor, H: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, HB: tl.constexpr, BT: tl.constexpr, BE: tl.constexpr,
    ALIGN: tl.constexpr, NUMBERED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values. With ``PARTS`` they have a row a part."""
    row, row_mask, node, begin, end, head = load_nodes(programs, count, H, HB, BT)
    node_mask, nodes = row_mask[:, None], node[:, None]
    k = load_rows(key, nodes, node_mask, key_row * ALIGN, key_head * ALIGN, head, H, HB, C, D)
    if key_grad is not None:
        v = load_rows(
            value, nodes, node_mask, value_row * ALIGN, value_head * ALIGN, head, H, HB, C, D
        )

    dk = tl.zeros([BT, HB, D], tl.float32)
    dv = tl.zeros([BT, HB, D], tl.float32)
    mask, neighbor, edge = load_edges(neighbors, edge_ids, begin, end, 0, BE, NUMBERED)
    for start in range(0, tl.max(end - begin, 0), BE):
        q = load_rows(
            query, neighbor, mask, query_row * ALIGN, query_head * ALIGN, head, H, HB, C, D
        )
        g = load_rows(grad, neighbor, mask, grad_row * ALIGN, grad_head * ALIGN, head, H, HB, C, D)
        at, head_mask = head_offsets(neighbor, mask, head, H, HB)
        row_max = tl.load(stats + at * 2, mask=head_mask, other=0.0)
        inverse_sum = tl.load(stats + at * 2 + 1, mask=head_mask, other=0.0)
        # on their way while these are computed
        next_mask, next_neighbor, next_edge = load_edges(
            neighbors, edge_ids, begin, end, start + BE, BE, NUMBERED
        )
        keys = k
        if features is not None:
            f = load_rows(
                features, edge, mask, features_row * ALIGN, features_head * ALIGN, head,
                H, HB, C, D,
            )  # fmt: skip
            keys = k + f
        scores = compute_scores(q, keys, values, edge, mask, head, scale, H, HB)
        weights = tl.exp(scores - row_max) * inverse_sum
        dropped = weights
        if seed is not None:
            keep = dropout_mask(seed, edge, head, threshold, HB)
            dropped = tl.where(keep, weights * factor, 0.0)
        if value_grad is not None:
            dv += tl.sum(dropped[:, :, :, None] * g, 1)
        if key_grad is not None:
            delta = tl.load(deltas + at, mask=head_mask, other=0.0)
            if features is not None:
                grad_scores = tl.sum(g * (v + f), 3)
            else:
                grad_scores = tl.sum(g * v, 3)
            if seed is not None:
                grad_scores = tl.where(keep, grad_scores * factor, 0.0)
            # what is no number must not leave its node through edges that are not there
            grad_scores = tl.where(mask[:, :, None], weights * (grad_scores - delta), 0.0)
            dk += tl.sum(grad_scores[:, :, :, None] * q, 1)
        mask, neighbor, edge = next_mask, next_neighbor, next_edge
    rows = nodes
    if PARTS:
        rows = row[:, None]
    if key_grad is not None:
        store_rows(key_grad, rows, node_mask, head, dk[:, None, :, :] * scale, H, HB, C, D)
    if value_grad is not None:
        store_rows(value_grad, rows, node_mask, head, dv[:, None, :, :], H, HB, C, D)
