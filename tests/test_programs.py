"""The programs of examples/ learn as the same models in PyTorch do, and their gradients are right.

How far two float32 programs may come apart. A sum of n products is off by about sqrt(n) u, u = 2**-24: its n roundings
are as often up as down. So one step's scores and gradients are off by about sqrt(n) u of their norm, where n is the
longest sum of the model, and each parameter by u of its value when the step is added to it. What 50 such steps make of
it, the training itself decides: the next steps may damp an error or blow it up. Hence torch trains the same model in
float64, where rounding is no matter, once as it is and a few times with errors of just these sizes put in at random.
The furthest that these losses come from the undisturbed ones is what one float32 program may be off. Two are compared,
and the worst of a few random draws is allowed to be exceeded fourfold: hence TIMES = 2 * 4.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import digits_mlp
import lstm_layernorm
import training

from fastnorm.nn import BatchNorm1d, LayerNorm

STEPS = 50
ROUNDING = 2.0**-24
DRAWS, TIMES = 3, 2 * 4
MODELS = ["digits_mlp", "lstm_layernorm"]


def torch_mlp(torch):
    nn = torch.nn
    first, second = digits_mlp.HIDDEN
    return nn.Sequential(
        *(nn.Linear(64, first, bias=False), nn.BatchNorm1d(first), nn.ReLU()),
        *(nn.Linear(first, second, bias=False), nn.BatchNorm1d(second), nn.ReLU()),
        nn.Linear(second, digits_mlp.CLASSES),
    )


def torch_lstm(torch):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            units = lstm_layernorm.UNITS
            self.lstm = torch.nn.LSTM(8, units, batch_first=True)
            torch.nn.init.zeros_(self.lstm.bias_hh_l0).requires_grad_(False)  # a second bias, added to the first
            self.norm = torch.nn.LayerNorm(units)
            self.linear = torch.nn.Linear(units, lstm_layernorm.CLASSES)

        def forward(self, x):
            return self.linear(self.norm(self.lstm(x)[0]).mean(1))

    return Model()


@pytest.fixture(scope="module")
def torch():
    """Torch on one thread, and NumPy's matrix products too: threads that wait for each other take ten times as long."""
    module = pytest.importorskip("torch")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        yield module
    module.set_num_threads(threads)


@pytest.fixture(scope="module", params=MODELS)
def program(request):
    """One program: how to make its model here and in torch, first weights, batches, held-out pictures."""
    pytest.importorskip("sklearn")
    data = training.load_digits(0)
    rng = np.random.default_rng(0)
    if request.param == "digits_mlp":
        module, make_theirs, longest_sum = digits_mlp, torch_mlp, max(digits_mlp.HIDDEN)
        data.x, data.held_x = (x.reshape(len(x), 64) for x in (data.x, data.held_x))
    else:
        module, make_theirs = lstm_layernorm, torch_lstm
        longest_sum = lstm_layernorm.BATCH * 8  # of the weights' gradients: every step of every sequence
    rows = rng.integers(0, len(data.x), (STEPS, module.BATCH))
    return SimpleNamespace(
        make=lambda dtype=np.float32: module.network(data.x.shape[-1], np.random.default_rng(1), dtype=dtype),
        make_theirs=make_theirs,
        error=np.sqrt(longest_sum) * ROUNDING,
        rate=module.RATE,
        batches=[(data.x[some], data.labels[some]) for some in rows],
        held=(data.held_x, data.held_labels),
    )


def their_model(torch, program, dtype):
    """Return torch's model with the first weights of ours, and its parameters in the order of ours."""
    model = program.make_theirs(torch).to(dtype)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for theirs, (_, ours) in zip(parameters, program.make().named_parameters(), strict=True):
            theirs.copy_(torch.from_numpy(ours))
    return model, parameters


def our_losses(program, model):
    """Train for STEPS; return every loss, and last that of the held-out digits in evaluation."""
    model.train()
    optimizer = training.SGD(model, program.rate)
    losses = [training.train_step(model, optimizer, x, labels) for x, labels in program.batches]
    x, labels = program.held
    return np.array([*losses, training.cross_entropy(model.eval()(x), labels)[0]])


def undisturbed(*_):
    pass


def their_losses(torch, program, dtype, disturb=undisturbed):
    """Do the same in torch; `disturb(tensor, size)` puts errors of this relative size into a tensor."""
    model, parameters = their_model(torch, program, dtype)
    optimizer = torch.optim.SGD(parameters, lr=program.rate, momentum=0.9)
    losses = []

    def loss_of(x, labels):
        scores = model(torch.from_numpy(x).to(dtype))
        disturb(scores.data, program.error)
        return torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))

    for x, labels in program.batches:
        loss = loss_of(x, labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for parameter in parameters:
            disturb(parameter.grad, program.error)
        optimizer.step()
        for parameter in parameters:
            disturb(parameter.data, ROUNDING)
    with torch.no_grad():
        model.eval()
        return np.array([*losses, loss_of(*program.held).item()])


def disturber(torch, seed):
    rng = np.random.default_rng(seed)

    def disturb(tensor, size):
        error = torch.from_numpy(rng.standard_normal(tensor.shape))
        tensor.add_(error, alpha=(size * tensor.norm() / error.norm()).item())

    return disturb


@pytest.fixture(scope="module")
def reference(torch, program):
    """Torch's losses in float32, and how far from them ours may be."""
    exact = their_losses(torch, program, torch.float64)
    draws = [their_losses(torch, program, torch.float64, disturber(torch, seed)) for seed in range(DRAWS)]
    return their_losses(torch, program, torch.float32), TIMES * np.abs(np.array(draws) - exact).max()


@pytest.mark.peers
@pytest.mark.slow
def test_the_loss_follows_torchs_for_50_steps(program, reference):
    want, tolerance = reference
    losses = our_losses(program, program.make())
    assert losses[STEPS - 10 : STEPS].mean() < 0.7 * losses[:10].mean()  # it learns, so that errors could grow
    np.testing.assert_allclose(losses, want, rtol=0, atol=tolerance)


class Mistaken:
    """A norm with a mistake; the rest is as it was."""

    def __init__(self, norm):
        self.norm = norm

    def __getattr__(self, name):
        return getattr(self.norm, name)

    def __call__(self, x):
        self.x, self.y = x, self.norm(x)
        return self.y


class NoShift(Mistaken):
    """Its gradient lacks the term that makes it sum to 0 over the normalized values."""

    def backward(self, dy):
        if isinstance(self.norm, BatchNorm1d):
            g, axis = np.where(self.y > 0, dy, 0) * self.weight, 0
        else:
            g, axis = dy * self.weight, -1
        rstd = 1 / np.sqrt(self.x.var(axis, keepdims=True) + self.eps)
        return self.norm.backward(dy) + rstd * g.mean(axis, keepdims=True)


class WeightGradient(Mistaken):
    """The gradient of its weight is a hundredth too large."""

    def backward(self, dy):
        dx = self.norm.backward(dy)
        self.norm.grads["weight"] = self.norm.grads["weight"] * np.float32(1.01)
        return dx


class BiasedVariance(Mistaken):
    """Evaluation finds the variances of the batches biased."""

    def train(self, mode=True):
        if not mode:
            self.norm.running_var[...] *= 1 - 1 / digits_mlp.BATCH
        return self.norm.train(mode)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "mistake"),
    [
        *[(name, mistake) for name in MODELS for mistake in (NoShift, WeightGradient)],
        ("digits_mlp", BiasedVariance),
    ],
    indirect=["program"],
)
def test_a_small_mistake_leaves_torchs_losses(program, reference, mistake):
    """The tolerance is narrow enough to be worth something."""
    want, tolerance = reference
    model = program.make()
    norms = (BatchNorm1d, LayerNorm)
    model.layers = [mistake(layer) if isinstance(layer, norms) else layer for layer in model.layers]
    assert np.abs(our_losses(program, model) - want).max() > 5 * tolerance


@pytest.mark.peers
def test_gradients_are_torchs(torch, program):
    """In float64, where both are sums of at most some thousand products: 1e-12 of the largest gradient is ample."""
    model = program.make(np.float64)
    theirs, parameters = their_model(torch, program, torch.float64)
    for (_, ours), parameter in zip(model.named_parameters(), parameters, strict=True):
        ours[...] = parameter.detach().numpy()  # both began in float32
    x, labels = program.batches[0]
    x = x.astype(np.float64)
    want_x = torch.from_numpy(x).requires_grad_()
    want = torch.nn.functional.cross_entropy(theirs(want_x), torch.from_numpy(labels))
    want.backward()
    loss, dscores = training.cross_entropy(model(x), labels)
    assert loss == pytest.approx(want.item(), rel=1e-13)
    pairs = [(model.backward(dscores), want_x.grad)]
    pairs += [(model.grads[name], p.grad) for (name, _), p in zip(model.named_parameters(), parameters, strict=True)]
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda rng: digits_mlp.network(6, rng, hidden=(7, 5), dtype=np.float64), (9, 6)),
        (lambda rng: digits_mlp.network(6, rng, hidden=(7, 5), batch_norm=False, dtype=np.float64), (9, 6)),
        (lambda rng: lstm_layernorm.network(3, rng, units=5, dtype=np.float64), (4, 6, 3)),
    ],
    ids=["digits_mlp", "without_norms", "lstm_layernorm"],
)
def test_gradients_are_central_differences(make, shape):
    """Every derivative of the loss with respect to a parameter or a pixel.

    With a step of 1e-5 a difference is off by the rounding of two losses near 3, 3e-16 / 1e-5 = 3e-11, and by 1e-10 / 6
    third derivatives, which are below 100 here.
    """
    rng = np.random.default_rng(3)
    model = make(rng)
    x, labels = rng.random(shape), rng.integers(0, 10, shape[0])
    for name, parameter in model.named_parameters():
        if "bias" in name or parameter.ndim == 1:
            parameter[...] += rng.uniform(-0.3, 0.3, parameter.shape)  # away from where they begin, at 0 and 1

    def loss():
        return training.cross_entropy(model(x), labels)[0]

    _, dscores = training.cross_entropy(model(x), labels)
    dx = model.backward(dscores)
    for array, gradient in [(x, dx), *((p, model.grads[name]) for name, p in model.named_parameters())]:
        assert gradient.shape == array.shape
        differences = np.empty_like(array)
        for place in np.ndindex(array.shape):
            value = array[place]
            array[place] = value + 1e-5
            above = loss()
            array[place] = value - 1e-5
            differences[place] = (above - loss()) / 2e-5
            array[place] = value
        print(np.abs(gradient - differences).max())
        np.testing.assert_allclose(gradient, differences, rtol=0, atol=2e-9)
