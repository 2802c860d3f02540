"""What a killed process left is deleted, and what a living one is at is not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyg_gt.datasets import _staging
from pyg_gt.datasets._staging import remove_stale, staging

if os.name != "posix":
    pytest.skip("there are no such locks", allow_module_level=True)

# Without the package, which takes seconds to import.
FILLS = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("staging", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.staging(pathlib.Path(sys.argv[2]), "processed") as content:
    (content / "data").write_text("half")
    print(content, flush=True)
    time.sleep(300)
"""


def test_killed_and_living(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILLS, _staging.__file__, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        contents = []
        for process in processes:
            assert process.stdout is not None
            contents.append(Path(process.stdout.readline().strip()))
        remove_stale(tmp_path, "processed")
        assert all((content / "data").exists() for content in contents)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert contents[0].exists()
        remove_stale(tmp_path, "processed")
        assert os.listdir(tmp_path) == [contents[1].parent.name]
        assert (contents[1] / "data").exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    remove_stale(tmp_path, "processed")
    assert os.listdir(tmp_path) == []


def test_nothing_stays_and_nothing_else_goes(tmp_path: Path) -> None:
    for name in (".processed-mine", "processed", ".processed", f".other-{'0' * 32}"):
        (tmp_path / name).mkdir()
    before = sorted(os.listdir(tmp_path))
    (tmp_path / f".processed-{'0' * 32}").mkdir()  # Killed before it had its lock.
    with pytest.raises(KeyboardInterrupt), staging(tmp_path, "processed") as content:
        (content / "data").touch()
        remove_stale(tmp_path, "processed")
        assert (content / "data").exists()
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_folder_taken_for_stale_before_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Another process deletes the new folder in the moment between its two steps."""
    opened: list[Path] = []
    open_lock = _staging._open_lock

    def slow(folder: Path) -> int:
        opened.append(folder)
        if len(opened) == 1 and when == "before":
            remove_stale(tmp_path, "processed")
        lock = open_lock(folder)
        if len(opened) == 1:
            remove_stale(tmp_path, "processed")
        return lock

    monkeypatch.setattr(_staging, "_open_lock", slow)
    with staging(tmp_path, "processed") as content:
        assert content.parent != opened[0] and not opened[0].exists()
        remove_stale(tmp_path, "processed")
        assert content.exists()
    assert os.listdir(tmp_path) == []
