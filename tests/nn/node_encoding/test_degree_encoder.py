"""`DegreeEncoder` looks up rows."""

import pytest
import torch

from pyg_gt.nn import DegreeEncoder

F = 6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_is_the_sum_of_two_rows(dtype):
    ours = DegreeEncoder(3, F)
    degree = torch.tensor([[0, 0], [1, 3], [3, 4], [200, 2]])
    into, out = ours.in_degree.weight, ours.out_degree.weight
    assert into.shape == out.shape == (4, F)
    want = torch.stack([into[0] + out[0], into[1] + out[3], into[3] + out[3], into[3] + out[2]])
    torch.testing.assert_close(ours(degree.to(dtype)), want)


def test_one_table_without_direction():
    ours = DegreeEncoder(3, F, directed=False)
    assert len(list(ours.parameters())) == 1
    out = ours(torch.tensor([0, 9, 2]))
    torch.testing.assert_close(out, ours.in_degree.weight[[0, 3, 2]])


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 0 \\(got -1\\)"):
        DegreeEncoder(-1, F)
    degree = torch.ones(4, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\[N, 2\] with directed=True \(got \[4\]\)"):
        DegreeEncoder(3, F)(degree[:, 0])
    for wrong in (degree, degree[0, 0]):
        with pytest.raises(ValueError, match=r"\[N\] with directed=False \(got \["):
            DegreeEncoder(3, F, directed=False)(wrong)
    for wrong in (degree.float(), degree.bool()):
        with pytest.raises(ValueError, match="integers .*convert it with '.long"):
            DegreeEncoder(3, F)(wrong)
    with pytest.raises(IndexError):
        DegreeEncoder(3, F)(-degree)
