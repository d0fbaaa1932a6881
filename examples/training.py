"""What the programs that train a network share: layers, loss, optimizer, the digits, the loop and the picture.

A layer is called on x, then `backward(dy)` returns dx and leaves the gradients of its parameters in `grads`, under the
names of `named_parameters()`. The layers here keep to that interface of fastnorm.nn, so both kinds stand in one model.
In shapes N is the batch, C the classes.
"""

import argparse
import importlib.util
import sys
from dataclasses import dataclass

import numpy as np

import fastnorm

NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "threadpoolctl": "threadpoolctl", "tqdm": "tqdm"}
COLORS = ("#0072B2", "#E69F00")  # told apart by colour-blind readers and in grey
HELD_OUT = 360  # of the 1797 digits


def require(needed):
    """End with one line if a module is missing, whose package is what it leads to."""
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"This example also needs {', '.join(missing)}: python -m pip install {' '.join(missing)}")


class Layer:
    """What a layer without parameters and without a mode has."""

    def __init__(self):
        self.grads = {}

    def named_parameters(self):
        yield from ()

    def train(self, mode=True):
        del mode
        return self

    def eval(self):
        return self.train(False)


class Linear(Layer):
    """y = x @ weight.T + bias, over the last axis of x."""

    def __init__(self, weight, bias=None):  # (outputs, inputs), (outputs,)
        super().__init__()
        self.weight, self.bias = weight, bias

    @classmethod
    def random(cls, inputs, outputs, rng, *, bias=True, dtype=np.float32):
        scale = np.sqrt(2 / inputs)  # He et al., arXiv:1502.01852 (2015), section 2.2: ReLU keeps the scale
        weight = rng.normal(0, scale, (outputs, inputs)).astype(dtype)
        return cls(weight, np.zeros(outputs, dtype) if bias else None)

    def named_parameters(self):
        yield "weight", self.weight
        if self.bias is not None:
            yield "bias", self.bias

    def __call__(self, x):  # (N, inputs) -> (N, outputs)
        self.x = x
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias

    def backward(self, dy):  # (N, outputs) -> (N, inputs)
        self.grads = {"weight": dy.T @ self.x}
        if self.bias is not None:
            self.grads["bias"] = dy.sum(0)
        return dy @ self.weight


class ReLU(Layer):
    def __call__(self, x):
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy):
        return np.where(self.y > 0, dy, 0)


class Sequential(Layer):
    """Layers one after the other; the third one's weight is called "2.weight"."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = layers

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy):
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        self.grads = {f"{i}.{name}": g for i, layer in enumerate(self.layers) for name, g in layer.grads.items()}
        return dy

    def named_parameters(self):
        for i, layer in enumerate(self.layers):
            for name, parameter in layer.named_parameters():
                yield f"{i}.{name}", parameter

    def train(self, mode=True):
        for layer in self.layers:
            layer.train(mode)
        return self


class SGD:
    """Gradient descent with momentum: velocity = momentum * velocity + gradient; parameter -= rate * velocity."""

    def __init__(self, model, rate, momentum=0.9):
        self.model, self.rate, self.momentum = model, rate, momentum
        self.velocities = {name: np.zeros_like(parameter) for name, parameter in model.named_parameters()}

    def step(self):
        """Change the parameters in place."""
        for name, parameter in self.model.named_parameters():
            velocity = self.velocities[name]
            velocity *= self.momentum
            velocity += self.model.grads[name]
            parameter[...] -= self.rate * velocity


def cross_entropy(scores, labels):
    """Return the mean of -log softmax(scores)[label], and its gradient with respect to the scores."""
    scores = scores - scores.max(1, keepdims=True)  # (N, C): exp cannot overflow
    exps = np.exp(scores)
    sums = exps.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = (np.log(sums[:, 0]) - scores[rows, labels]).mean()
    dscores = exps / sums  # softmax, less 1 at the label, averaged over the batch
    dscores[rows, labels] -= 1
    return float(loss), dscores / len(labels)


def train_step(model, optimizer, x, labels):
    """Learn from one batch; return its loss before the step."""
    loss, dscores = cross_entropy(model(x), labels)
    model.backward(dscores)
    optimizer.step()
    return loss


@dataclass
class Data:
    """Pictures and labels, to train with and held out; pixels from 0 to 1."""

    name: str
    x: np.ndarray  # (N, ...) float32
    labels: np.ndarray  # (N,) int64, 0 to 9
    held_x: np.ndarray
    held_labels: np.ndarray

    def __str__(self):
        pixels = "x".join(map(str, self.x.shape[1:]))
        return f"{self.name}: {len(self.x)} pictures of {pixels} pixels to train with, {len(self.held_x)} held out"


def load_digits(seed):
    """Return scikit-learn's 1797 handwritten digits as (N, 8, 8), every class split alike."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8)
    x, held_x, known, held = train_test_split(images, labels, test_size=HELD_OUT, random_state=seed, stratify=labels)
    return Data("digits", x, known, held_x, held)


def train(model, data, args, rng, label):
    """Train with shuffled batches under a progress bar; return the loss of every step."""
    from tqdm import tqdm

    model.train()
    optimizer = SGD(model, args.rate)
    batch = min(args.batch, len(data.x))
    steps = len(data.x) // batch  # an incomplete last batch is left out; the next epoch shuffles anew
    losses = []
    with tqdm(total=args.epochs * steps, desc=label, unit="step") as bar:
        for _ in range(args.epochs):
            order = rng.permutation(len(data.x))
            for rows in order[: steps * batch].reshape(steps, batch):
                losses.append(train_step(model, optimizer, data.x[rows], data.labels[rows]))
                bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
                bar.update()
    return losses


def predict(model, x, rows=1000):
    """Return the classes of x, in evaluation mode and a part at a time, so that memory stays small."""
    model.eval()
    return np.concatenate([model(x[start : start + rows]).argmax(1) for start in range(0, len(x), rows)])


def held_out_accuracy(model, data):
    right = int((predict(model, data.held_x) == data.held_labels).sum())
    return f"held-out accuracy {100 * right / len(data.held_x):.2f} % ({right} of {len(data.held_x)})"


def draw(curves, epochs, title, path):
    """Draw the loss of every step, faint, and its mean over each epoch."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panel = plt.subplots(figsize=(8, 4.8))
    for (label, losses), color in zip(curves.items(), COLORS, strict=False):
        per_epoch = np.reshape(losses, (epochs, -1))
        panel.plot(
            epochs * (np.arange(len(losses)) + 0.5) / len(losses), losses, color=color, alpha=0.25, linewidth=0.8
        )
        panel.plot(
            np.arange(epochs) + 0.5, per_epoch.mean(1), "o-", color=color, linewidth=2, markersize=3.5, label=label
        )
    panel.set_yscale("log")
    panel.set_xlim(0, epochs)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set_xlabel("epoch")
    panel.set_ylabel("cross-entropy of the batch (log scale)")
    panel.set_title(title, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="0.92")
    panel.set_axisbelow(True)
    panel.legend(frameon=False, title="mean of each epoch; faint: each step", alignment="left")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parser(description, *, epochs, batch, rate, output):
    """Return the options that every program has."""
    options = argparse.ArgumentParser(description=description)
    for name, kind, default, what in (
        ("epochs", at_least(1), epochs, "passes over the training data"),
        ("batch", at_least(2), batch, "pictures per step"),
        ("rate", positive, rate, "learning rate"),
        ("seed", at_least(0), 0, "of the split, the weights and the order of the pictures"),
    ):
        options.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{what} (default: %(default)s)"
        )
    options.add_argument("--threads", type=at_least(1), metavar="N", help="of fastnorm and of NumPy (default: all)")
    options.add_argument("--output", default=output, metavar="PATH", help="the picture (default: %(default)s)")
    return options


def at_least(low):
    """Return a converter for argparse."""

    def count(text):
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"{text}, expected {low} or more")
        return int(text)

    return count


def positive(text):
    number = float(text)
    if not 0 < number < np.inf:
        raise argparse.ArgumentTypeError(f"{text}, expected more than 0")
    return number


def start(args):
    """End with one line if a package is missing; else set the threads and say what is used."""
    require(NEEDED)
    from threadpoolctl import threadpool_limits

    threadpool_limits(args.threads)  # NumPy's matrix products; threads that wait on a busy machine take long
    fastnorm.set_num_threads(args.threads)
    threads = fastnorm.get_num_threads()
    print(
        f"fastnorm {fastnorm.__version__} ({fastnorm.isa()}, {threads} thread{'s' if threads > 1 else ''}), "
        f"NumPy {np.__version__}, float32"
    )
