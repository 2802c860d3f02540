# triton compiles these functions, Python never runs them
# mypy: ignore-errors
"""The gradients of attention along edges, by query nodes and by key nodes; no atomics."""

import triton
import triton.language as tl

from .device_functions import each_head, edges_of, kept, load_rows, nodes_of, scores_of, store_rows


@triton.jit(do_not_specialize=["count", "threshold"], do_not_specialize_on_alignment=["programs"])
def edge_backward_queries(
    programs, count, others, numbers, query, key, value, features, values, seed, stats, grad, out,
    deltas, query_grad, features_grad, values_grad, query_row, query_head, key_row, key_head,
    value_row, value_head, features_row, features_head, grad_row, grad_head, scale, threshold,
    factor, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, HB: tl.constexpr, BT: tl.constexpr,
    BE: tl.constexpr, ALIGN: tl.constexpr, NUMBERED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The gradients of queries and of what stands on edges, and ``deltas [Nq, H]``.

    With ``PARTS``, ``query_grad`` has a row a part.
    """
    place, here, node, begin, end, head = nodes_of(programs, count, H, HB, BT)
    own, nodes = here[:, None], node[:, None]
    g = load_rows(grad, nodes, own, grad_row * ALIGN, grad_head * ALIGN, head, H, HB, C, D)
    delta = tl.sum(g * load_rows(out, nodes, own, H * C, C, head, H, HB, C, D), 3)  # [BT, 1, HB]
    at, mask = each_head(nodes, own, head, H, HB)
    tl.store(deltas + at, delta, mask=mask)  # all parts of a node store the same
    if query_grad is not None or features_grad is not None or values_grad is not None:
        q = load_rows(query, nodes, own, query_row * ALIGN, query_head * ALIGN, head, H, HB, C, D)
        top = tl.load(stats + at * 2, mask=mask, other=0.0)
        inverse = tl.load(stats + at * 2 + 1, mask=mask, other=0.0)
        dq = tl.zeros([BT, HB, D], tl.float32)
        there, other, number = edges_of(others, numbers, begin, end, 0, BE, NUMBERED)
        for start in range(0, tl.max(end - begin, 0), BE):
            k = load_rows(key, other, there, key_row * ALIGN, key_head * ALIGN, head, H, HB, C, D)
            v = load_rows(
                value, other, there, value_row * ALIGN, value_head * ALIGN, head, H, HB, C, D
            )
            # on their way while these are computed
            next_there, next_other, next_number = edges_of(
                others, numbers, begin, end, start + BE, BE, NUMBERED
            )
            if features is not None:
                f = load_rows(
                    features, number, there, features_row * ALIGN, features_head * ALIGN, head,
                    H, HB, C, D,
                )  # fmt: skip
                k += f
                v += f
            scores = scores_of(q, k, values, number, there, head, scale, H, HB)
            weights = tl.exp(scores - top) * inverse
            slopes = tl.sum(g * v, 3)
            dropped = weights
            if seed is not None:
                keep = kept(seed, number, head, threshold, HB)
                dropped = tl.where(keep, weights * factor, 0.0)
                slopes = tl.where(keep, slopes * factor, 0.0)
            # what is no number must not leave its node through edges that are not there
            slopes = tl.where(there[:, :, None], weights * (slopes - delta), 0.0)
            if values_grad is not None:
                of_edge, has_edge = each_head(number, there, head, H, HB)
                made = slopes.to(values_grad.dtype.element_ty)
                tl.store(values_grad + of_edge, made, mask=has_edge)
            slopes *= scale
            if features_grad is not None:
                df = slopes[:, :, :, None] * q + dropped[:, :, :, None] * g
                store_rows(features_grad, number, there, head, df, H, HB, C, D)
            dq += tl.sum(slopes[:, :, :, None] * k, 1)
            there, other, number = next_there, next_other, next_number
        if query_grad is not None:
            rows = nodes
            if PARTS:
                rows = place[:, None]
            store_rows(query_grad, rows, own, head, dq[:, None, :, :], H, HB, C, D)


@triton.jit(do_not_specialize=["count", "threshold"], do_not_specialize_on_alignment=["programs"])
def edge_backward_keys(
    programs, count, others, numbers, query, key, value, features, values, seed, stats, grad,
    deltas, key_grad, value_grad, query_row, query_head, key_row, key_head, value_row, value_head,
    features_row, features_head, grad_row, grad_head, scale, threshold, factor, H: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, HB: tl.constexpr, BT: tl.constexpr, BE: tl.constexpr,
    ALIGN: tl.constexpr, NUMBERED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values. With ``PARTS`` they have a row a part."""
    place, here, node, begin, end, head = nodes_of(programs, count, H, HB, BT)
    own, nodes = here[:, None], node[:, None]
    k = load_rows(key, nodes, own, key_row * ALIGN, key_head * ALIGN, head, H, HB, C, D)
    if key_grad is not None:
        v = load_rows(value, nodes, own, value_row * ALIGN, value_head * ALIGN, head, H, HB, C, D)

    dk = tl.zeros([BT, HB, D], tl.float32)
    dv = tl.zeros([BT, HB, D], tl.float32)
    there, other, number = edges_of(others, numbers, begin, end, 0, BE, NUMBERED)
    for start in range(0, tl.max(end - begin, 0), BE):
        q = load_rows(
            query, other, there, query_row * ALIGN, query_head * ALIGN, head, H, HB, C, D
        )
        g = load_rows(grad, other, there, grad_row * ALIGN, grad_head * ALIGN, head, H, HB, C, D)
        at, mask = each_head(other, there, head, H, HB)
        top = tl.load(stats + at * 2, mask=mask, other=0.0)
        inverse = tl.load(stats + at * 2 + 1, mask=mask, other=0.0)
        # on their way while these are computed
        next_there, next_other, next_number = edges_of(
            others, numbers, begin, end, start + BE, BE, NUMBERED
        )
        keys = k
        if features is not None:
            f = load_rows(
                features, number, there, features_row * ALIGN, features_head * ALIGN, head,
                H, HB, C, D,
            )  # fmt: skip
            keys = k + f
        scores = scores_of(q, keys, values, number, there, head, scale, H, HB)
        weights = tl.exp(scores - top) * inverse
        dropped = weights
        if seed is not None:
            keep = kept(seed, number, head, threshold, HB)
            dropped = tl.where(keep, weights * factor, 0.0)
        if value_grad is not None:
            dv += tl.sum(dropped[:, :, :, None] * g, 1)
        if key_grad is not None:
            delta = tl.load(deltas + at, mask=mask, other=0.0)
            if features is not None:
                slopes = tl.sum(g * (v + f), 3)
            else:
                slopes = tl.sum(g * v, 3)
            if seed is not None:
                slopes = tl.where(keep, slopes * factor, 0.0)
            # what is no number must not leave its node through edges that are not there
            slopes = tl.where(there[:, :, None], weights * (slopes - delta), 0.0)
            dk += tl.sum(slopes[:, :, :, None] * q, 1)
        there, other, number = next_there, next_other, next_number
    rows = nodes
    if PARTS:
        rows = place[:, None]
    if key_grad is not None:
        store_rows(key_grad, rows, own, head, dk[:, None, :, :] * scale, H, HB, C, D)
    if value_grad is not None:
        store_rows(value_grad, rows, own, head, dv[:, None, :, :], H, HB, C, D)
