"""Classify handwritten digits: three fully connected layers, batch norm and ReLU after the first two.

Training is written out in NumPy, the batch norms are fastnorm.nn.BatchNorm1d with the ReLU fused into them. The same
network is trained without batch norms beside it: same first weights, same batches, same learning rate. The digits are
scikit-learn's (8x8 pixels, network 64-512-256-10) or, from their original files, MNIST's (28x28, 784-512-256-10).

    python digits_mlp.py [--mnist DIR] [--epochs N] [--batch N] [--rate R] [--seed N] [--threads N] [--output PATH]
"""

import gzip
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from training import Data, Linear, ReLU, Sequential, draw, held_out_accuracy, load_digits, parser, predict, start, train

import fastnorm
from fastnorm.nn import BatchNorm1d

HIDDEN = (512, 256)
CLASSES = 10
EPOCHS, BATCH, RATE = 20, 64, 0.05
IMAGES, LABELS = 0x803, 0x801  # first word of an idx file: unsigned bytes in 3 dimensions, in 1 dimension


def network(pixels, rng, *, hidden=HIDDEN, batch_norm=True, dtype=np.float32):
    """Return the model (N, pixels) -> (N, classes); the shift of a batch norm takes the place of a bias."""
    layers = []
    for inputs, outputs in zip((pixels, *hidden), hidden, strict=False):
        layers.append(Linear.random(inputs, outputs, rng, bias=not batch_norm, dtype=dtype))
        layers.append(BatchNorm1d(outputs, activation="relu", dtype=dtype) if batch_norm else ReLU())
    return Sequential(*layers, Linear.random(hidden[-1], CLASSES, rng, dtype=dtype))


def folded(model):
    """Return a model without batch norms that computes what this one computes in evaluation."""
    layers = []
    for linear, norm in zip(model.layers[0:-1:2], model.layers[1::2], strict=True):
        running = norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps
        layers += [Linear(*fastnorm.fold_batch_norm(linear.weight, linear.bias, *running)), ReLU()]
    return Sequential(*layers, model.layers[-1])


def load_mnist(folder):
    """Read the four original files, gzipped or not."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: no such folder")
    parts = []
    for part in ("train", "t10k"):
        images = read_idx(folder, f"{part}-images-idx3-ubyte", IMAGES)
        labels = read_idx(folder, f"{part}-labels-idx1-ubyte", LABELS)
        if len(images) != len(labels):
            raise ValueError(f"{folder}: {len(images)} pictures but {len(labels)} labels in {part}-*")
        if len(images) < 2 or not images.size:
            raise ValueError(f"{folder}: pictures of shape {images.shape} in {part}-*, expected 2 or more, not empty")
        if labels.max() >= CLASSES:
            raise ValueError(f"{folder}: the label {labels.max()} in {part}-*, expected 0 to {CLASSES - 1}")
        parts += [images / np.float32(255), labels.astype(np.int64)]
    x, labels, held_x, held_labels = parts
    if x.shape[1:] != held_x.shape[1:]:
        raise ValueError(f"{folder}: pictures of {x.shape[1:]} pixels to train with, of {held_x.shape[1:]} to test")
    return Data("MNIST", x, labels, held_x, held_labels)


def read_idx(folder, name, magic):
    """Read an idx file of bytes: a word that tells type and dimensions, a word per dimension, the data."""
    path = next((p for p in (Path(folder, name), Path(folder, f"{name}.gz")) if p.is_file()), None)
    if path is None:
        raise ValueError(f"{folder}: neither {name} nor {name}.gz is there")
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file ({error})") from None
    dims = magic & 0xFF
    header = 4 + 4 * dims
    if len(content) < header:
        raise ValueError(f"{path}: {len(content)} bytes, shorter than the {header} bytes of its header")
    found, *shape = struct.unpack(f">{1 + dims}I", content[:header])
    if found != magic:
        raise ValueError(f"{path}: begins with {found:#010x}, expected {magic:#010x}")
    if len(content) != header + math.prod(shape):
        raise ValueError(f"{path}: {len(content)} bytes, but {header} + {'x'.join(map(str, shape))} are announced")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def main():
    options = parser(__doc__.partition("\n")[0], epochs=EPOCHS, batch=BATCH, rate=RATE, output="digits_mlp.png")
    options.add_argument("--mnist", metavar="DIR", help="folder of MNIST's four idx files, gzipped or not")
    args = options.parse_args()
    start(args)
    try:
        data = load_mnist(args.mnist) if args.mnist else load_digits(args.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"digits_mlp.py: {error}")
    print(data)
    data.x, data.held_x = (x.reshape(len(x), -1) for x in (data.x, data.held_x))

    curves = {}
    for label, batch_norm in (("with batch norm", True), ("without batch norm", False)):
        rng = np.random.default_rng(args.seed)
        model = network(data.x.shape[1], rng, batch_norm=batch_norm)
        losses = train(model, data, args, rng, label)
        result = f"{label}: {held_out_accuracy(model, data)}"
        curves[result] = losses
        print(result)
        if batch_norm:
            same = int((predict(model, data.held_x) == predict(folded(model), data.held_x)).sum())
            print(f"batch norms folded into the layers before them: {same} of {len(data.held_x)} predictions unchanged")
    sizes = "-".join(map(str, (data.x.shape[1], *HIDDEN, CLASSES)))
    draw(curves, args.epochs, f"{data.name}: training loss of a {sizes} network", args.output)
    print(f"Picture: {args.output}")


if __name__ == "__main__":
    main()
