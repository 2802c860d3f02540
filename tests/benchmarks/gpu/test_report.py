"""The GPU benchmark's report: the order of the backends, and the goals."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import order, report
from benchmarks.gpu.peers import PEERS


def test_the_order_of_backends_is_that_of_their_slowdown() -> None:
    def row(mode: str, bias: str | None = None, **ms: float) -> dict[str, Any]:
        times = {name.replace("_", " "): t for name, t in ms.items()}
        ours = {n: t for n, t in times.items() if n not in PEERS}
        return {"dtype": "float32", "dropout": 0.0, "bias": bias, "mode": mode, "ms": times,
                "fastest": min(ours, key=lambda n: ours[n])}  # fmt: skip

    rows = [
        row("train", sdpa=8.0, triton=2.0, pyg_padded=1.0),
        row("train", sdpa=1.0, triton=2.0, flex=2.0),
        row("forward", sdpa=1.0),
        row("train", "EdgeMask", sparse=1.0),
    ]
    made = order.order(rows)
    assert [(g["kind"], g["mode"], g["rows"]) for g in made] == [
        ("full", "train", 2), ("full", "forward", 1), ("edges", "train", 1),
    ]  # fmt: skip
    places = [(b["backend"], b["slowdown"], b["wins"], b["rows"]) for b in made[0]["backends"]]
    # by hand: sqrt(1 * 2), sqrt(4 * 1), and 2 in its only row
    assert places == [("triton", 1.414, 1, 2), ("flex", 2.0, 0, 1), ("sdpa", 2.0, 1, 2)]
    assert order.text(made)[0].endswith("triton 1.41, flex 2.00, sdpa 2.00")


def test_goals_are_read_from_the_rows() -> None:
    row = {
        "shape": "molecules x 128", "channels": 16, "scores": 10**9, "dtype": "float32",
        "bias": None, "dropout": 0.0,
        "candidates": {"triton": {"forward_ms": 1.0}, "pyg padded": {"forward_ms": 9.0}},
        "peer_over": {"forward": {"triton": 9.0}, "train in one thread": {"triton": 5.5}},
    }  # fmt: skip
    layer = {
        "layer": "GPSConv", "shape": "molecules", "mode": "train, attention dropout 0.5",
        "pyg_over": {"pyg_gt": 1.5}, "one_thread_over": 2.5,
    }  # fmt: skip
    ceiling = {"ceiling": "exp", "value": 4e12}
    memory = [
        {"nodes": 200_000, "candidate": name, "peak_mib": 1024.0 * gib}
        for name, gib in (("sdpa", 21.0), ("triton", 3.0), ("pyg padded", 1.0))
    ]
    parts = {
        name: {"rows": rows, "errors": [], "left_out": []}
        for name, rows in (
            ("ceilings", [ceiling]),
            ("operators", [row]),
            ("memory", memory),
            ("layers", [layer]),
        )
    }
    made = report.summary({"parts": parts, "device": "cuda"})
    goals = {g["goal"]: (g["measured"], g["met"]) for g in made["goals"]}
    assert goals["PyG padded / ours, molecules x 128, float32, forward"] == (9.0, "yes")
    assert goals["PyG padded / ours, molecules x 128, float32, train"] == (None, "not measured")
    one_thread = "PyG padded / ours, molecules x 128, float32, train in one thread"
    assert goals[one_thread] == (5.5, "yes")
    step = "PyG / pyg_gt, GPSConv step, dropout 0.5"
    assert (goals[step], goals[f"{step}, both in one thread"]) == ((1.5, "no"), (2.5, "no"))
    assert goals["share of the exp rate at C = 16"] == (0.25, "no")  # 1e12 of 4e12
    assert goals["200,000 nodes, forward and backward, GiB"] == (3.0, "yes")
    assert made["fastest"][0]["fastest"] == "triton"
