"""Read handwritten digits row by row: an LSTM whose outputs pass a layer norm, averaged over the rows and classified.

Each of scikit-learn's digits is a sequence of 8 steps of 8 pixels. Back-propagation through time is written out in
NumPy; the layer norm and its gradients are fastnorm.nn.LayerNorm.

    python lstm_layernorm.py [--epochs N] [--batch N] [--rate R] [--seed N] [--threads N] [--output PATH]
"""

import numpy as np
from training import Layer, Linear, Sequential, draw, held_out_accuracy, load_digits, parser, start, train

from fastnorm.nn import LayerNorm

UNITS = 64
CLASSES = 10
EPOCHS, BATCH, RATE = 30, 32, 0.1


def sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * z))  # cannot overflow


class LSTM(Layer):
    """A long short-term memory: sequences (N, T, inputs) -> outputs of every step (N, T, H).

    With the gates i, f, g, o stacked in this order along 4H, and h and c zero before the first step::

        z = x[t] @ weight_x.T + h @ weight_h.T + bias
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)
        c = f * c + i * g
        h = o * tanh(c)

    Hochreiter, Schmidhuber (1997), with the forget gate of Gers, Schmidhuber, Cummins (2000).
    """

    def __init__(self, inputs, units, rng, *, dtype=np.float32):
        super().__init__()
        limit_x, limit_h = 1 / np.sqrt((inputs, units))  # of the uniform weights, so that no sum of a gate is large
        self.weight_x = rng.uniform(-limit_x, limit_x, (4 * units, inputs)).astype(dtype)
        self.weight_h = rng.uniform(-limit_h, limit_h, (4 * units, units)).astype(dtype)
        self.bias = np.zeros(4 * units, dtype)
        self.bias[units : 2 * units] = 1  # at first nothing is forgotten

    def named_parameters(self):
        yield "weight_x", self.weight_x
        yield "weight_h", self.weight_h
        yield "bias", self.bias

    def __call__(self, x):
        (n, steps, _), units = x.shape, self.weight_h.shape[1]
        self.x = x
        self.h = np.zeros((n, steps + 1, units), x.dtype)  # h[:, t] and c[:, t] are those before step t
        self.c = np.zeros_like(self.h)
        self.tanh_c = np.empty((n, steps, units), x.dtype)
        self.gates = x @ self.weight_x.T + self.bias  # (N, T, 4H), the part that does not wait for h
        for t in range(steps):
            gates = self.gates[:, t]
            gates += self.h[:, t] @ self.weight_h.T
            i, f, g, o = np.split(gates, 4, axis=1)  # views (N, H)
            for gate in (i, f, o):
                gate[...] = sigmoid(gate)
            np.tanh(g, out=g)
            self.c[:, t + 1] = f * self.c[:, t] + i * g
            self.tanh_c[:, t] = np.tanh(self.c[:, t + 1])
            self.h[:, t + 1] = o * self.tanh_c[:, t]
        return self.h[:, 1:]

    def backward(self, dy):  # (N, T, H) -> (N, T, inputs)
        dz = np.empty_like(self.gates)
        dh = np.zeros_like(dy[:, 0])  # what later steps ask of h and c
        dc = np.zeros_like(dh)
        for t in reversed(range(dy.shape[1])):
            i, f, g, o = np.split(self.gates[:, t], 4, axis=1)
            tanh_c = self.tanh_c[:, t]
            dh = dh + dy[:, t]
            dc = dc + dh * o * (1 - tanh_c * tanh_c)
            dz_i, dz_f, dz_g, dz_o = np.split(dz[:, t], 4, axis=1)
            dz_i[...] = dc * g * i * (1 - i)  # sigmoid' = sigmoid (1 - sigmoid)
            dz_f[...] = dc * self.c[:, t] * f * (1 - f)
            dz_g[...] = dc * i * (1 - g * g)  # tanh' = 1 - tanh^2
            dz_o[...] = dh * tanh_c * o * (1 - o)
            dh = dz[:, t] @ self.weight_h
            dc = dc * f
        rows = dz.reshape(-1, dz.shape[2]).T  # (4H, N * T): every step of every sequence adds to the weights
        self.grads = {
            "weight_x": rows @ self.x.reshape(rows.shape[1], -1),
            "weight_h": rows @ self.h[:, :-1].reshape(rows.shape[1], -1),
            "bias": rows.sum(1),
        }
        return dz @ self.weight_x


class MeanOverSteps(Layer):
    """(N, T, H) -> (N, H)."""

    def __call__(self, x):
        self.shape = x.shape
        return x.mean(1)

    def backward(self, dy):
        return np.broadcast_to(dy[:, None] / self.shape[1], self.shape)


def network(inputs, rng, *, units=UNITS, dtype=np.float32):
    """Return the model (N, T, inputs) -> (N, classes)."""
    return Sequential(
        LSTM(inputs, units, rng, dtype=dtype),
        LayerNorm(units, dtype=dtype),
        MeanOverSteps(),
        Linear.random(units, CLASSES, rng, dtype=dtype),
    )


def main():
    args = parser(
        __doc__.partition("\n")[0], epochs=EPOCHS, batch=BATCH, rate=RATE, output="lstm_layernorm.png"
    ).parse_args()
    start(args)
    data = load_digits(args.seed)
    print(data)
    rng = np.random.default_rng(args.seed)
    model = network(data.x.shape[2], rng)
    label = "LSTM with layer norm"
    losses = train(model, data, args, rng, label)
    result = f"{label}: {held_out_accuracy(model, data)}"
    print(result)
    draw({result: losses}, args.epochs, f"{data.name} read row by row: training loss", args.output)
    print(f"Picture: {args.output}")


if __name__ == "__main__":
    main()
