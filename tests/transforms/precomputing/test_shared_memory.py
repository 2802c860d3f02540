"""Arrays from one process to another."""

import os
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from pyg_gt.transforms.precomputing.shared_memory import receive_arrays, send_arrays

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(4, 3),
    np.array([True, False, True]),
    np.empty((0, 5), dtype=np.float32),
    np.arange(20, dtype=np.int64)[::2],
    np.arange(6, dtype=np.uint8).reshape(2, 3).T,
    np.empty(0, dtype=np.bool_),
]


def check(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all()
        assert a.flags.writeable and a.ctypes.data % a.itemsize == 0


def send(queue: Any, done: Any) -> None:
    queue.put(send_arrays(ARRAYS))
    done.wait(60)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_gets_them(method: str) -> None:
    context = get_context(method)
    queue, done = context.Queue(), context.Event()
    process = context.Process(target=send, args=(queue, done))
    process.start()
    check(receive_arrays(queue.get(timeout=600)), ARRAYS)
    done.set()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize("arrays", [ARRAYS, ARRAYS[:1], ARRAYS[2:3], []])
def test_without_files_in_memory(
    arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(receive_arrays(send_arrays(arrays)), arrays)
    monkeypatch.delattr(os, "memfd_create", raising=False)
    sent = send_arrays(arrays)
    assert isinstance(sent, list)
    assert all(a is b for a, b in zip(receive_arrays(sent), arrays, strict=True))


def test_no_file_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    kept = [receive_arrays(send_arrays(ARRAYS)) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) < before + 10
    assert len(kept) == 50
