"""The same answers as the libraries that users come from, and peace with them in one process."""

import numpy as np
import pytest
import reference
from cases import FLOATS, OPS, SMALL, digest, uniform
from memory import run_fresh

import fastnorm

pytestmark = pytest.mark.peers

SHAPES = [(1, 1), (8, 64), (5, 1), (3, 7), (70, 33), (16, 768), (4, 1024), (2, 4097), (3, 5, 31), (2, 3, 4, 65)]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("trailing", [1, 2])
def test_layer_norm_is_torchs(torch, shape, trailing, dtype):
    x = uniform(shape, dtype, 1) + dtype.type(0.5)
    normalized = shape[-trailing:]
    weight, bias = uniform(normalized, dtype, 2) + dtype.type(1), uniform(normalized, dtype, 3)
    # Ours is within NORM_EPS; theirs sums in its own precision: some eps times mean / std, at most 4 here.
    c = (reference.NORM_EPS[dtype] + 16) * reference.eps_of(dtype)
    for parameters in ((None, None), (weight, None), (None, bias), (weight, bias)):
        for eps in (1e-5, 1e-2):
            got = fastnorm.layer_norm(x, normalized, *parameters, eps)
            taken = [None if p is None else torch.from_numpy(p) for p in parameters]
            want = torch.nn.functional.layer_norm(torch.from_numpy(x), normalized, *taken, eps).numpy()
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            z = np.abs(fastnorm.layer_norm(x, normalized, eps=eps))
            np.testing.assert_array_less(np.abs(got - want), c * (2 * np.maximum(z, 1) + 2))


def test_saved_statistics_are_torchs(torch, dtype):
    x = uniform((30, 200), dtype) + dtype.type(0.5)
    want = torch.native_layer_norm(torch.from_numpy(x), (200,), None, None, 1e-5)
    for got, theirs in zip(fastnorm.layer_norm(x, return_stats=True)[1:], want[1:], strict=True):
        np.testing.assert_allclose(got, theirs.numpy()[:, 0], rtol=32 * reference.eps_of(dtype))


def test_cpu_tensors_are_taken(torch):
    x = uniform((6, 5), np.float32)
    tensor = torch.from_numpy(x)
    for call in (fastnorm.layer_norm, fastnorm.standardize):
        assert type(call(tensor)) is np.ndarray
        np.testing.assert_array_equal(call(tensor), call(x))
    np.testing.assert_array_equal(fastnorm.mean(tensor.T, 1), fastnorm.mean(x.T, 1))
    weight = torch.ones(5, dtype=torch.float64)
    np.testing.assert_array_equal(fastnorm.layer_norm(tensor, 5, weight), fastnorm.layer_norm(x))


def test_standardize_is_standard_scaler(dtype):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    for shape in ((2, 3), (70, 8), (1000, 30), (500, 1)):
        x = uniform(shape, dtype) + dtype.type(2)
        x[:, 0] = 14.62
        scaler = preprocessing.StandardScaler().fit(x)
        y, mean, std = fastnorm.standardize(x, return_stats=True)
        # Their mean and variance are float64 sums of n terms; both roundings to x's dtype count.
        n = len(x) * 2.0**-52
        np.testing.assert_allclose(mean, scaler.mean_, rtol=reference.eps_of(dtype) + n)
        np.testing.assert_allclose(std, np.sqrt(scaler.var_), rtol=33 * reference.eps_of(dtype) + n, atol=1e-14)
        c = (reference.NORM_EPS[dtype] + 16) * reference.eps_of(dtype) + 8 * n
        np.testing.assert_allclose(y, scaler.transform(x), rtol=0, atol=4 * c)
        assert not y[:, 0].any()


_ORDER = """
import numpy as np
{imports}
from fastnorm import _ops
_ops.set_work_threshold(0)
x = np.arange(300000, dtype=np.float32).reshape(300, 1000) % 17
with fastnorm.threads(3):
    a = fastnorm.layer_norm(x).tobytes()
torch.nn.functional.layer_norm(torch.from_numpy(x), (1000,)); (torch.from_numpy(x) @ torch.ones(1000, 50)).sum()
with fastnorm.threads(3):
    assert fastnorm.layer_norm(x).tobytes() == a
    print(fastnorm.mean_var(x))
"""


@pytest.mark.usefixtures("torch")
def test_either_may_be_imported_first():
    said = set()
    for imports in ("import torch, fastnorm", "import fastnorm, torch"):
        said.add(run_fresh(_ORDER.format(imports=imports)))
    assert len(said) == 1


@pytest.mark.usefixtures("num_threads")
def test_torchs_flush_to_zero_changes_no_bits(torch):
    jobs = [(op, x) for op in OPS for _label, x in op.cases(FLOATS, [*SMALL, (3, 40001)], ["subnormal"])]
    want = digest([result for op, x in jobs for result in op(x)])
    if not torch.set_flush_denormal(True):
        pytest.skip("torch cannot flush denormals on this CPU")
    try:
        flushed = float(torch.tensor([1e-310], dtype=torch.float64)[0] * 1)
        got = digest([result for op, x in jobs for result in op(x)])
    finally:
        torch.set_flush_denormal(False)
    assert flushed == 0
    assert got == want
