"""A default device other than the CPU changes nothing about attention on CPU tensors."""

from collections.abc import Iterator

import pytest
import torch

from pyg_gt.ops.dispatch import BACKENDS

from .cases import BIASES, CPU, dtype_of, make_case, unsupported
from .test_scales import results

RUN = [name for name in BACKENDS if name not in ("triton", "cpu")]


@pytest.fixture
def _set() -> Iterator[None]:
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize(
    ("how", "order"), [("with", "sorted"), ("with", "unsorted"), ("set", "sorted")]
)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("backend", [CPU, *RUN])
@pytest.mark.usefixtures("_set")
def test_the_default_device_is_no_matter(
    backend: str, bias: str, how: str, order: str, dropout_p: float
) -> None:
    """Whose result is made on it would have no numbers; an address of none kills the process."""
    case = make_case(bias, order, "cross", dtype_of(backend), grad=backend != "flex")
    reason = unsupported(case, backend, dropout_p)
    if reason is not None:
        pytest.skip(reason)
    want = results(case, backend, 0.7, dropout_p)
    # layouts remember what a backend made on them: these have nothing yet
    torch.manual_seed(0)
    fresh = make_case(bias, order, "cross", dtype_of(backend), grad=backend != "flex")
    if how == "set":
        torch.set_default_device("meta")
        got = results(fresh, backend, 0.7, dropout_p)
    else:
        with torch.device("meta"):
            got = results(fresh, backend, 0.7, dropout_p)
    torch.set_default_device(None)
    for a, b in zip(got, want, strict=True):
        assert a.device.type == "cpu" and torch.equal(a, b)
