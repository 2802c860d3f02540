"""All measurements that need a GPU, in one run: ``bash benchmarks/gpu/run.sh``.

Tests, the card's ceilings, operators, layers, compilations and memory, each part in a process of
its own with a share of the time: what a part had no time for is listed, and a part that dies takes
no other along. Every candidate is compared with the ``reference`` backend before it is timed.

All tests without a limit of their own: ``--parts tests --seconds 3600``. Without a GPU the script
itself is tried: ``python -m benchmarks.gpu.run --device cpu --tiny --out FOLDER``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu import (
    ceilings,
    cuda_graphs,
    edges,
    layers,
    memory,
    operators,
    plots,
    report,
    suite,
)
from benchmarks.gpu.part_process import (
    COMMAND,
    UNFINISHED,
    PartProcess,
    read_seconds,
    run_in_process,
)
from benchmarks.gpu.section import Row, Section, one_line
from benchmarks.record import RESULTS, card, environment, write

# the parts in their order, with their shares of the time
PARTS: dict[str, tuple[Callable[[Section], None], int]] = {
    "ceilings": (ceilings.run, 20),
    "operators": (operators.run, 115),
    "edges": (edges.run, 60),
    "layers": (layers.run, 40),
    "graphs": (cuda_graphs.run, 25),
    "memory": (memory.run, 25),
    "flex": (operators.run_flex, 50),
    "flex edges": (edges.run_flex, 25),
    "recompiles": (layers.recompiles, 55),
}
TESTS_SHARE = 220
WARM_PROCESSES = 6
ONLY_CUDA = ("graphs", "flex", "flex edges")


def main() -> int:
    """Runs the parts, writes one JSON and plots, prints a table; 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a test of the benchmark itself")
    parser.add_argument("--seconds", type=float, default=510.0, help="for all parts together")
    parser.add_argument("--out", type=Path, default=RESULTS, help="a folder")
    parser.add_argument("--parts", nargs="+", default=["tests", *PARTS])
    parser.add_argument("--one-process", action="store_true", help="for a debugger")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # what such a process is told
    parser.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.parts) - {"tests", *PARTS}:
        parser.error(f"--parts: unknown {sorted(unknown)}; expected tests, {', '.join(PARTS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU that torch can use; '--device cpu --tiny' tries the benchmark itself")
    if args.device == "cpu":
        torch.set_num_threads(1)
    if args.warm is not None:
        operators.warm(args.warm, WARM_PROCESSES, args.device, args.tiny)
        return 0
    if args.part:
        torch.zeros(1, device=args.device)  # what a first tensor takes, like the imports
        part(Section(args.part, read_seconds(), args.device, args.tiny, args.out))
        return 0
    return everything(args)


def part(section: Section) -> None:
    """Runs one part to its end; its error is a line of the result."""
    try:
        PARTS[section.name][0](section)
    except Exception as error:
        section.errors.append(one_line(error))
        section.left_out.append(UNFINISHED)
    section.save()


def everything(args: argparse.Namespace) -> int:
    """All parts; each gets its share of the time that is left, so that no remainder is lost."""
    end = time.monotonic() + args.seconds
    found: dict[str, Row] = {}
    chosen = [
        n for n in PARTS if n in args.parts and (args.device == "cuda" or n not in ONLY_CUDA)
    ]
    shares = {"tests": TESTS_SHARE} if "tests" in args.parts else {}
    shares |= {name: PARTS[name][1] for name in chosen}
    result: Row = {
        "environment": environment(), "card": card(), "device": args.device, "tiny": args.tiny,
        "seconds_given": args.seconds, "parts": found,
    }  # fmt: skip
    name = torch.cuda.get_device_name() if args.device == "cuda" else "no_gpu"
    stem = args.out / f"cuda_{'_'.join(name.lower().split())}"
    waiting: dict[str, PartProcess] = {}
    with TemporaryDirectory() as folder, ending(waiting):
        for name in shares:
            rest = sum(share for other, share in shares.items() if other not in found)
            seconds = max(0.0, end - time.monotonic()) * shares[name] / rest
            section = Section(name, seconds, args.device, args.tiny, Path(folder) / f"{name}.json")
            if not in_process(args):
                for other in [n for n in chosen if n not in found and n != name][:1]:
                    path = Path(folder) / f"{other}.json"
                    waiting[other] = PartProcess(other, args.device, args.tiny, path)
            if name == "tests":
                suite.run(section, warming_commands(args))
                found[name] = section.result()
            elif in_process(args):
                part(section)
                found[name] = section.result()
            else:
                left = max(0.0, end - time.monotonic())
                found[name] = run_in_process(section, left, waiting.pop(name, None))
            counts = len(found[name]["rows"]), len(found[name]["left_out"])
            print(
                f"{name}: {found[name]['seconds']} s, {counts[0]} rows, {counts[1]} left out",
                *found[name]["errors"], sep="\n  ", flush=True,
            )  # fmt: skip
            write(stem.with_suffix(".json"), result)
    result["summary"] = report.summary(result)
    write(stem.with_suffix(".json"), result)
    try:
        plots.draw(result, stem)
    except Exception as error:  # what was measured is written
        result["summary"]["wrong"].append(f"plots: {one_line(error)}")
        write(stem.with_suffix(".json"), result)
    print(report.text(result["summary"]))
    return 1 if result["summary"]["wrong"] else 0


def in_process(args: argparse.Namespace) -> bool:
    """Whether all parts run in this one."""
    return args.one_process or args.device == "cpu"


@contextmanager
def ending(waiting: dict[str, PartProcess]) -> Iterator[None]:
    """Ends all processes that still wait, whatever happens inside."""
    try:
        yield
    finally:
        for each in waiting.values():
            each.end()


def warming_commands(args: argparse.Namespace) -> list[list[str]]:
    """Commands that fill the caches of compiled kernels, side by side."""
    if args.device == "cpu" or "operators" not in args.parts:
        return []
    command = [*COMMAND, "--device", args.device, *["--tiny"] * args.tiny]
    return [[*command, "--warm", str(number)] for number in range(WARM_PROCESSES)]


if __name__ == "__main__":
    sys.exit(main())
