"""Random inputs against oracles from outside the library: ``python -m tests.fuzz``.

Every draw is made from (seed, part, number) alone, so a failure prints one line that repeats it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from .parts import PARTS
from .runner import Finding, kinds, run, run_one


def main(arguments: list[str] | None = None) -> int:
    """Runs what was asked for; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--what", choices=[*PARTS, "all"], default="all")
    parser.add_argument(
        "--batches", type=int, default=1000, help="draws of each part (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="at most, for each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--only", type=int, help="this draw alone, in this process")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--report", type=Path, help="a file for all findings, one a line")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts = PARTS if options.what == "all" else {options.what: PARTS[options.what]}

    findings: list[Finding] = []
    for name, part in parts.items():
        if options.only is not None:
            compared, finding = run_one(name, part, options.seed, options.only)
            print(f"{name} {options.only}: {finding.message if finding else dict(compared)}")
            findings += [] if finding is None else [finding]
            continue
        began = time.monotonic()
        result = run(
            name, part, options.seed, options.batches, options.seconds, options.jobs, options.first
        )
        taken = time.monotonic() - began
        print(f"{name}: {result.draws} draws in {taken:.0f} s, {len(result.findings)} failed")
        print("  " + ", ".join(f"{k} {n}" for k, n in sorted(result.compared.items())))
        findings += result.findings
        for first, count in kinds(result.findings):
            print(f"  {count} x {first.message[:1500]}\n      {command(first, options.seed)}")
        sys.stdout.flush()
    if options.report is not None:
        _write(options.report, findings, options.seed)
    return int(bool(findings))


def command(finding: Finding, seed: int) -> str:
    """What repeats a finding."""
    return (
        f"python -m tests.fuzz --what {finding.part} --seed {seed} "
        f"--only {finding.number}"
    )


def _write(path: Path, findings: list[Finding], seed: int) -> None:
    lines = [f"{' | '.join(f.message.splitlines())}\t{command(f, seed)}\n" for f in findings]
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text("".join(lines), encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
