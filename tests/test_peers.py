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


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm_is_torchs(torch, shape, dtype):
    x = uniform(shape, dtype, 1) + dtype.type(0.5)
    for normalized in (shape[-1:], shape[-2:]):
        weight = uniform(normalized, dtype, 2) + dtype.type(1)
        for w, eps in ((None, None), (weight, None), (weight, 1e-2)):
            taken = None if w is None else torch.from_numpy(w)
            want = torch.nn.functional.rms_norm(torch.from_numpy(x), normalized, taken, eps).numpy()
            got = fastnorm.rms_norm(x, normalized, w, eps)
            assert got.dtype == want.dtype
            # Both within some eps of exact; theirs sums up to 4097 squares in its own precision.
            np.testing.assert_allclose(got, want, rtol=0, atol=32 * reference.eps_of(dtype) * (np.abs(want).max() + 1))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_torchs(torch, half):
    kind = np.float16 if half == "float16" else pytest.importorskip("ml_dtypes").bfloat16

    def tensor(a):  # no bfloat16 passes between NumPy and torch but as its bits
        return torch.from_numpy(a.view(np.int16)).view(getattr(torch, half))

    for shape in ((8, 64), (5, 33), (16, 768)):
        x, weight, bias = uniform(shape, kind, 1), uniform(shape[-1], kind, 2), uniform(shape[-1], kind, 3)
        want = torch.nn.functional.layer_norm(tensor(x), shape[-1:], tensor(weight), tensor(bias), 1e-5)
        got = fastnorm.layer_norm(x, weight=weight, bias=bias)
        assert got.dtype == kind
        # One rounding of the same value each; theirs may also round in between.
        apart = np.abs(got.astype(np.float64) - want.double().numpy())
        assert (apart <= 2 * reference.eps_of(kind) * (1 + np.abs(got.astype(np.float64)))).all()


def test_min_max_scale_is_min_max_scaler(dtype):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    for shape in ((2, 3), (70, 8), (1000, 30), (500, 1)):
        x = uniform(shape, dtype) + dtype.type(2)
        x[:, 0] = 14.62
        for feature_range in ((0, 1), (-2, 5)):
            want = preprocessing.MinMaxScaler(feature_range).fit_transform(x)
            got = fastnorm.min_max_scale(x, 0, feature_range)
            # They compute x * scale + offset: a few eps of max|x| * scale, at most 3 spans of 1 in 2 here.
            np.testing.assert_allclose(got, want, rtol=0, atol=200 * reference.eps_of(dtype) * np.ptp(feature_range))


def test_saved_statistics_are_torchs(torch, dtype):
    x = uniform((30, 200), dtype) + dtype.type(0.5)
    want = torch.native_layer_norm(torch.from_numpy(x), (200,), None, None, 1e-5)
    for got, theirs in zip(fastnorm.layer_norm(x, return_stats=True)[1:], want[1:], strict=True):
        np.testing.assert_allclose(got, theirs.numpy()[:, 0], rtol=32 * reference.eps_of(dtype))


def test_cpu_tensors_are_taken(torch):
    x = uniform((6, 5), np.float32)
    tensor = torch.from_numpy(x)
    for call in (fastnorm.layer_norm, fastnorm.rms_norm, fastnorm.standardize, fastnorm.min_max_scale):
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
