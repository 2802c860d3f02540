"""No worker of `precompute` is left when the process that called it is killed."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pyg_gt.transforms import AddRandomWalkPE, precompute
from pyg_gt.transforms.graph_encoding import GraphEncoding
from pyg_gt.transforms.graphs.attributes import Attribute
from pyg_gt.transforms.graphs.graphs import Graphs
from pyg_gt.transforms.precomputing import chunks, worker_exit

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
    pytest.mark.filterwarnings(
        "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
    ),
]
WORKERS = 2


class Long(GraphEncoding):
    """Its results are sent in messages longer than a pipe holds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def encode(self, graphs: Graphs) -> list[Attribute]:
        # compiled code that keeps all threads of Python waiting
        ctypes.PyDLL(None).usleep(int(self.seconds * 1e6))
        ones = np.ones(graphs.num_nodes)
        return [Attribute(f"ones_{i}", ones, graphs.ptr) for i in range(20)]


def some_graphs(count: int) -> list[Data]:
    return [Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)] * count


def status(process: int) -> str:
    """One letter, or nothing if there is none of that number."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(process: int) -> list[int]:
    try:
        return [
            int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def assert_all_end(
    encoding: GraphEncoding, moment: float, *, stopped: bool = False, seconds: float = 4.0
) -> None:
    """Kills a process ``moment`` seconds after it has workers, and waits for these."""
    context = multiprocessing.get_context("fork")
    process = context.Process(
        target=precompute,
        args=(some_graphs(6000), encoding),
        kwargs={"num_workers": WORKERS, "progress": False},
    )
    process.start()
    assert process.pid is not None
    pid: int = process.pid
    there = wait_for(lambda: len(children(pid)) == WORKERS or not process.is_alive(), 60)
    assert there
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(moment)
    workers = children(pid)
    os.kill(pid, signal.SIGKILL)
    process.join()
    try:
        assert not moment or not stopped or len(workers) == WORKERS
        ended = wait_for(lambda: all(status(each) in ("", "Z") for each in workers), seconds)
        assert ended, [(each, status(each)) for each in workers]
    finally:
        for each in workers:
            if status(each) not in ("", "Z"):
                os.kill(each, signal.SIGKILL)


@pytest.fixture(autouse=True)
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_NODES", 1500)


@pytest.mark.parametrize("by_kernel", [True, False])
def test_workers_end_whose_results_nobody_reads(
    by_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes them waits for a pipe whose other end the worker itself holds."""
    if not by_kernel:
        monkeypatch.setattr(worker_exit, "_ask_kernel", lambda: None)
    assert_all_end(Long(), 1.0, stopped=True)


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("stopped", [True, False])
def test_workers_end_at_any_moment(moment: float, stopped: bool) -> None:
    assert_all_end(Long(0.01), moment, stopped=stopped)
    assert_all_end(AddRandomWalkPE(4), moment, stopped=stopped)


def test_workers_end_in_the_middle_of_compiled_code() -> None:
    assert_all_end(Long(600.0), 0.5)


def test_a_worker_that_starts_when_its_parent_is_gone() -> None:
    def orphan() -> None:
        worker_exit.ExitWithParent(parent=os.getppid() + 1)(0)
        time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=orphan)
    process.start()
    process.join(20)
    assert process.exitcode == 1


def test_workers_stay_as_long_as_their_parent() -> None:
    found = precompute(some_graphs(6000), Long(0.01), num_workers=2, progress=False)
    assert len(found) == 6000 and "ones_19" in found[-1]


def test_workers_of_a_thread() -> None:
    """For the kernel the parent is the thread that forked, which waits for them."""
    found: list[int] = []

    def run() -> None:
        out = precompute(some_graphs(6000), Long(0.01), num_workers=2, progress=False)
        found.append(len(out))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [6000]
