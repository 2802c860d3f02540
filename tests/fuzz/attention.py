"""Attention on random batches: every backend that takes a call, against the definition."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

import pyg_gt

from .definition import Biases, Sizes, define, kept_edges, kept_pairs
from .draws import Fault, Random, random_of
from .problems import Problem, pick, random_layout, random_problem
from .runner import told
from .tolerance import UNIT, Scales, tolerance

# a result beyond it is infinite in half precision
_LARGEST = 6e4


def draw(seed: int, number: int) -> Counter[str]:
    """One batch; raises ``Fault`` naming each backend and tensor that is wrong."""
    rng = random_of(seed, "attention", number)
    problem = random_problem(rng)
    wave = _wave(problem, rng)
    dropout_seed = int(rng.integers(2**62))
    expected, sizes = definition(problem, wave, dropout_seed)
    limits = _limits(problem, wave, expected, sizes)
    call = Caller(problem, rng)
    compared: Counter[str] = Counter()
    wrong = []
    for backend in call.backends():
        if backend == "sdpa" and 0 < problem.dropout_p < 1:
            continue  # it draws from torch's own generator on a CPU
        if backend == "flex":
            if number % 12:
                continue  # it is traced for a second at each call
            torch.compiler.reset()
        torch.manual_seed(dropout_seed)
        try:
            found = run(problem, call, backend, wave)
        except Exception as error:
            wrong.append(f"{backend}: {told(error)}")
            continue
        wrong += [f"{backend}: {line}" for line in differences(found, expected, limits)]
        compared[backend] += 1
    if wrong:
        raise Fault("\n".join([*wrong, problem.describe()]))
    compared[str(problem.dtype).removeprefix("torch.")] += 1
    return compared


class Caller:
    """A call of attention with the layouts and biases of a problem."""

    def __init__(self, problem: Problem, rng: Random) -> None:
        self.problem = problem
        self.layout = random_layout(rng, problem.keys, problem.num_graphs)
        self.query_layout = None
        # of unpacked tensors, which no type describes
        self.attend: Any = pyg_gt.attention
        self.explain: Any = pyg_gt.explain_choice
        if problem.queries is not problem.keys:
            self.query_layout = random_layout(rng, problem.queries, problem.num_graphs)

    def _arguments(self, leaves: dict[str, Tensor]) -> tuple[list[Tensor], dict[str, Any]]:
        problem = self.problem
        parts = problem.parts(leaves)
        # the keyword is left out where it says nothing
        scale = {} if problem.scale is None else {"scale": problem.scale}
        keywords = {
            "biases": tuple(make(parts) for make in problem.biases),
            "dropout_p": problem.dropout_p,
            **scale,
        }
        if problem.joined:
            return [parts["qkv"]], keywords
        query = parts["query"]
        return [query, parts.get("key", query), parts.get("value", query)], keywords

    def run(self, leaves: dict[str, Tensor], backend: str) -> Tensor:
        """The output."""
        tensors, keywords = self._arguments(leaves)
        if self.problem.joined:
            return pyg_gt.qkv_attention(tensors[0], self.layout, backend=backend, **keywords)
        out: Tensor = self.attend(
            *tensors, self.layout, query_layout=self.query_layout, backend=backend, **keywords
        )
        return out

    def backends(self) -> list[str]:
        """Those that do not object, and ``auto``'s choice first."""
        tensors, keywords = self._arguments(self.problem.leaves)
        if self.problem.joined:
            tensors = list(tensors[0].unbind(1))
        lines = self.explain(*tensors, self.layout, query_layout=self.query_layout, **keywords)
        return [name for name, line in lines.items() if line.startswith(("chosen", "could run"))]


def run(problem: Problem, call: Caller, backend: str, wave: Tensor) -> dict[str, Tensor]:
    """The output (named ``""``) and the gradient of each leaf that wants one."""
    leaves = {k: v for k, v in problem.leaves.items() if v.requires_grad}
    if not leaves:
        with torch.inference_mode(bool(len(problem.keys) % 2)):
            return {"": call.run(problem.leaves, backend)}
    out = call.run(problem.leaves, backend)
    if (
        not out.requires_grad
        and not set(problem.queries) & set(problem.keys)
        and all("mod" in name for name in leaves)
    ):
        # nobody knows what a function captures that was never called
        return {"": out, **{name: torch.zeros_like(leaf) for name, leaf in leaves.items()}}
    gradients = torch.autograd.grad(
        out, list(leaves.values()), wave, allow_unused=True, materialize_grads=True
    )
    return {"": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def definition(
    problem: Problem, wave: Tensor, dropout_seed: int
) -> tuple[dict[str, Tensor], Sizes]:
    """The same in float64, by the definition."""
    leaves = {
        name: leaf.detach().double().requires_grad_(leaf.requires_grad)
        for name, leaf in problem.leaves.items()
    }
    parts, biases, sizes = problem.parts(leaves), Biases(), Sizes()
    for add in problem.plain:
        add(parts, biases)
    if problem.joined:
        query, key, value = parts["qkv"].unbind(1)
    else:
        query = parts["query"]
        key, value = parts.get("key", query), parts.get("value", query)
    keep = None
    p = problem.dropout_p
    if p > 0:
        torch.manual_seed(dropout_seed)
        drawn = int(torch.randint(0, 2**63 - 1, (1,)))

        def keep() -> Tensor:
            if biases.mask is not None:
                return kept_edges(drawn, p, biases.mask.size(1), problem.heads)
            return kept_pairs(drawn, p, problem.queries, problem.keys, problem.heads)

    scale = problem.channels**-0.5 if problem.scale is None else problem.scale
    out = define(query, key, value, problem.queries, problem.keys, biases, scale, keep, sizes)
    wanted = {k: v for k, v in leaves.items() if v.requires_grad}
    if not wanted:
        return {"": out.detach()}, sizes
    if not out.requires_grad:
        out = out + sum(v.flatten()[:0].sum() for v in wanted.values())
    gradients = torch.autograd.grad(
        out, list(wanted.values()), wave.double(), allow_unused=True, materialize_grads=True
    )
    return {"": out.detach(), **dict(zip(wanted, gradients, strict=True))}, sizes


def differences(
    found: dict[str, Tensor], expected: dict[str, Tensor], limits: dict[str, float]
) -> list[str]:
    """What differs by more than it may, a line each."""
    lines = []
    for name, want in expected.items():
        got, what = found[name], f"the gradient of {name}" if name else "the output"
        if got.shape != want.shape:
            lines.append(f"{what} has shape {[*got.shape]}, expected {[*want.shape]}")
        elif want.numel():
            off = float((got.double() - want).abs().max())
            if not off <= limits[name]:
                lines.append(
                    f"{what} is off by {off:.3g} (allowed {limits[name]:.3g}, largest "
                    f"{float(want.abs().max()):.3g})"
                )
    return lines


def _limits(
    problem: Problem, wave: Tensor, expected: dict[str, Tensor], sizes: Sizes
) -> dict[str, float]:
    def largest(name: str) -> float:
        leaf = problem.leaves.get(name, problem.leaves.get("qkv", problem.leaves.get("query")))
        return float(leaf.detach().abs().max()) if leaf is not None and leaf.numel() else 0.0

    features = [k for k in problem.leaves if "features" in k]
    more = max((largest(k) for k in features), default=0.0)
    scale = problem.channels**-0.5 if problem.scale is None else abs(problem.scale)
    mods = sum("mod" in name for name in problem.leaves)
    sizes.score += mods * (2 + len(problem.queries))
    scales = Scales(
        largest("query"), largest("key") + more, largest("value") + more,
        float(wave.abs().max()) if wave.numel() else 0.0, scale, problem.channels,
        len(problem.queries), all(x.dtype == torch.float64 for x in problem.leaves.values()),
    )  # fmt: skip
    limits = {}
    shared = "value" not in problem.leaves and not problem.joined
    for name, want in expected.items():
        known = "qkv" if shared and name == "query" else name
        limit = tolerance(known, problem.dtype, sizes, scales, problem.dropout_p)
        copies = 1.0
        leaf = problem.leaves.get(name)
        if leaf is not None and name in problem.views:  # an expanded leaf adds up
            copies = max(1.0, problem.parts({name: leaf})[name].numel() / max(leaf.numel(), 1))
        size = float(want.abs().max()) if want.numel() else 0.0
        dtype = problem.dtype if leaf is None else leaf.dtype
        limit = copies * limit + 2 * copies * UNIT[dtype] * size
        if dtype == torch.float16:  # whose numbers are coarse near zero, and few
            limit = float("inf") if size > _LARGEST else 2 * limit + 2.0**-24
        limits[name] = limit + 1e-37
    return limits


def _wave(problem: Problem, rng: Random) -> Tensor:
    """The slope of something by the output, of any strides."""
    shape = (len(problem.queries), problem.heads, problem.channels)
    how = pick(rng, ("plain", "plain", "expanded", "transposed", "negated", "zero"))
    if how == "expanded":
        return torch.ones((), dtype=problem.dtype).expand(shape)
    if how == "zero":
        return torch.zeros(shape, dtype=problem.dtype)
    wave = torch.randn(shape).to(problem.dtype)
    if how == "negated":
        return torch._neg_view(wave)
    return wave.transpose(0, 1).contiguous().transpose(0, 1) if how == "transposed" else wave
