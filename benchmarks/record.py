"""Where results go, and what must stand beside a figure: versions, processor, threads, card."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import date
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch_geometric

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def parser(
    description: str | None, out: Path | None = None, rounds: int | None = None, threads: int = 1
) -> argparse.ArgumentParser:
    """``--threads``, ``--out`` and, where calls are interleaved, ``--rounds``."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--threads", type=int, default=threads)
    result.add_argument("--out", type=Path, default=out, help="a JSON file")
    if rounds is not None:
        result.add_argument("--rounds", type=int, default=rounds)
    return result


def environment() -> dict[str, Any]:
    """Date, versions, processor, threads and load."""
    return {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def card() -> dict[str, Any]:
    """The GPU, its driver and its clocks as ``nvidia-smi`` gives them, where there is one."""
    if not torch.cuda.is_available():
        return {}
    found: dict[str, Any] = {
        "name": torch.cuda.get_device_name(),
        "capability": list(torch.cuda.get_device_capability()),
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        "processors": torch.cuda.get_device_properties(0).multi_processor_count,
        "cuda": torch.version.cuda,
        "triton": metadata.version("triton") if find_spec("triton") else None,
    }
    if (program := shutil.which("nvidia-smi")) is not None:
        fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
        command = [program, f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired) as error:
            return found | {"nvidia-smi": str(error)}
        values = done.stdout.strip().split(", ")
        found["nvidia-smi"] = dict(zip(fields.split(","), values, strict=False))
    return found


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes JSON to a temporary name and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    Path(file.name).replace(path)
