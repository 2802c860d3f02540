"""Lowers FlexAttention for compute capability 9.0, on a machine that need not have a GPU.

``python -m tests.ops.backends.flex.lowers [--all]`` goes through inductor with tensors that only
say that they are on a GPU, forward and backward, and compiles what it writes. It prints what each
kernel takes of a multiprocessor, and fails where torch has no candidate for the tiles.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._inductor.config
from torch import Tensor
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
from torch._higher_order_ops.flex_attention import flex_attention_backward
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codecache import PyCodeCache
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention.flex_attention import BlockMask
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from pyg_gt.ops._backends.flex import compiled as _flex_compiled
from pyg_gt.ops._backends.flex.kernel_options import kernel_options

from ...cases import BIASES, Case, layout_of
from .captured import captured, handed_over, joint_graph, rebuilt, with_arguments

SHARED = 227 * 1024  # what a thread block of an H100 can have
CASES = [(torch.float32, 16, "everything"), (torch.bfloat16, 64, "mask")]
ALL = [
    (dtype, channels, bias)
    for dtype in (torch.float32, torch.bfloat16)
    for channels in (16, 32, 64, 128, 256)
    for bias in ("none", "mask", "everything")
]
H100 = SimpleNamespace(
    name="NVIDIA H100", major=9, minor=0, multi_processor_count=132, total_memory=80 * 2**30,
    warp_size=32, regs_per_multiprocessor=2**16, max_threads_per_multi_processor=2048,
    shared_memory_per_block=48 * 2**10, shared_memory_per_block_optin=SHARED,
    shared_memory_per_multiprocessor=228 * 2**10, L2_cache_size=50 * 2**20,
    max_threads_per_block=1024, gcnArchName="",
)  # fmt: skip


class NoDevice:
    """What triton and inductor ask of a driver before they compile."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


class Lowered(Exception):
    """Raised where the code that inductor wrote would begin to run."""


@contextmanager
def pretended_gpu(written: dict[str, str]) -> Iterator[None]:
    """Inductor lowers for an H100; the kernels that it writes are kept by name."""

    def keep(self: AsyncCompile, name: str, source: str, device_str: str = "cuda") -> None:
        written[name] = source

    def stop(device: int) -> None:
        raise Lowered

    replaced: dict[str, Any] = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.set_device": stop,
        "torch.cuda.is_current_stream_capturing": lambda: False,
        "torch.cuda.get_device_capability": lambda *device: (9, 0),
        "torch.cuda.get_device_properties": lambda *device: H100,
        "torch.cuda._get_device_properties": lambda *device: H100,
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda._exchange_device": lambda index: 0,
        "torch.cuda._maybe_exchange_device": lambda index: 0,
        "torch.cuda._DeviceGuard": nullcontext,
        "torch.cuda.get_rng_state": lambda *device: torch.zeros(16, dtype=torch.uint8),
        "torch.cuda.set_rng_state": lambda *state: None,
        "torch.cuda.synchronize": lambda *device: None,
        "torch.accelerator.is_available": lambda: False,
        "torch._inductor.runtime.triton_helpers.set_driver_to_gpu": lambda: None,
        "torch._subclasses.fake_tensor.init_gpu_context": lambda device: None,
        # patterns of attention written out are not looked for: that would run them
        "torch._inductor.fx_passes.joint_graph.lazy_init": lambda *device: None,
        "torch._inductor.fx_passes.post_grad.lazy_init": lambda *device: None,
    }
    driver.set_active(NoDevice())
    torch._C._ensureCUDADeviceGuardSet()
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch(name, value, create=True))
        stack.enter_context(patch.object(AsyncCompile, "triton", keep))
        settings = {"compile_threads": 1, "use_static_cuda_launcher": False}
        stack.enter_context(torch._inductor.config.patch(settings))
        yield


def case_of(dtype: torch.dtype, channels: int, bias: str) -> Case:
    """Graphs of several sizes; one with a table that stands twice, repeated edges, a function."""
    layout = layout_of([5, 20, 300, 100], "unsorted")
    case = Case(layout, layout, dtype, grad=False, channels=channels)
    if bias != "everything":
        BIASES[bias](case)
        return case
    BIASES["table-uint8"](case)
    (table,), case.biases = case.biases, ()
    BIASES["mod"](case)
    BIASES["mask-values-repeats"](case)
    case.biases += (table, table)
    return case


# what torch itself adds to the options before it lowers
KNOWN = {
    "PRESCALE_QK": False, "ROWS_GUARANTEED_SAFE": False, "BLOCKS_ARE_CONTIGUOUS": False,
    "WRITE_DQ": True, "OUTPUT_LOGSUMEXP": True, "OUTPUT_MAX": False,
}  # fmt: skip


def no_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    """What torch takes for no function of scores."""
    return score


def lower(dtype: torch.dtype, channels: int, bias: str) -> dict[str, str]:
    """The source of each kernel, forward and backward."""
    call = handed_over(case_of(dtype, channels, bias))
    score_mod, mask = call["score_mod"] or no_mod, call["mask"]
    buffers, mask_buffers = captured(score_mod), captured(mask.mask_mod)
    joint = joint_graph(score_mod, dtype)
    written: dict[str, str] = {}
    with pretended_gpu(written), FakeTensorMode(allow_non_fake_inputs=True):
        moved: dict[int, Tensor] = {}

        def on_gpu(x: Tensor) -> Tensor:
            like = dict(dtype=x.dtype, device="cuda")
            return moved.setdefault(id(x), torch.empty_strided(x.shape, x.stride(), **like))

        tuple_of = mask.as_tuple()
        there = BlockMask(
            mask.seq_lengths, *map(on_gpu, tuple_of[2:10]), mask.BLOCK_SIZE,
            rebuilt(mask.mask_mod, on_gpu),
        )  # fmt: skip
        q, k, v = (on_gpu(call[name]) for name in ("query", "key", "value"))
        options = kernel_options(dtype, q.size(-1), call["reads"])
        kernel = _flex_compiled._compiled("inductor", call["kind"])
        mod = None if call["score_mod"] is None else rebuilt(score_mod, on_gpu)
        with suppress(Lowered):
            kernel(q, k, v, mod, there, call["scale"], options)

        def backward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor,
                     *rest: Tensor) -> Any:  # fmt: skip
            blocks, rest = rest[:8], rest[8:]
            *grads, of_captured = flex_attention_backward(
                q, k, v, out, lse, grad, None, with_arguments(score_mod, 5), joint,
                (*tuple_of[:2], *blocks, *tuple_of[10:-1], with_arguments(mask.mask_mod, 4)),
                call["scale"], {**KNOWN, **options}, rest[: len(buffers)], rest[len(buffers) :],
            )  # fmt: skip
            return *grads, *(x for x in of_captured if x is not None and x.is_floating_point())

        out, lse = torch.empty_like(q), torch.empty(q.shape[:-1], device="cuda")
        inputs = [q, k, v, out, lse, torch.empty_like(out), *map(on_gpu, tuple_of[2:10])]
        inputs += [on_gpu(x) for x in (*buffers, *mask_buffers)]
        with TransformGetItemToIndex():
            graph = make_fx(backward, select_decomp_table())(*inputs)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        compile_fx_inner(graph, inputs)
    return written


def compiled(name: str, source: str) -> Any:
    """The binary of a kernel that inductor wrote."""
    tuner = getattr(PyCodeCache.load(source), name)
    (config,) = tuner.configs
    return tuner._precompile_config(config).kernel


def main() -> None:
    for case in ALL if "--all" in sys.argv[1:] else CASES:
        print(*case, flush=True)
        lowered = lower(*case)
        kernels = {k: v for k, v in lowered.items() if "triton_tem" in k}
        assert len(kernels) == 2, list(lowered)
        with pretended_gpu({}):
            for name, source in kernels.items():
                kernel = compiled(name, source)
                shared = kernel.metadata.shared
                print(f"  {name}: {shared} bytes of shared memory")
                assert "cubin" in kernel.asm
                assert shared <= SHARED, f"{shared} bytes of shared memory"


if __name__ == "__main__":
    main()
