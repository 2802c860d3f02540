"""The example of one graph shared out among processes: equal to one process, gradients too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sharded_graph.py"


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_agree_with_one(processes: int) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launch, str(EXAMPLE), "--nodes", "500"],
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1]), "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d) processes, 500 nodes: .* differ by (\S+) of", done.stdout)
    assert found and int(found[1]) == processes and 0 <= float(found[2]) < 1e-4, done.stdout
