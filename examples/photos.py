"""Two photos on their way into a network and back: the normalized channels as a picture, and the rivals' times.

scikit-learn's sample photos are normalized with ImageNet's mean and deviation, as most vision models expect it, and
restored. The picture shows each photo, its three normalized channels and the restored photo side by side; if that is
not the original byte for byte, the program says so and fails. The same work is then timed with NumPy and with PyTorch,
OpenCV and albumentations, if they are installed: each as its users write it.

    python photos.py [--repeats N] [--threads N] [--output PATH]
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from compare_with_numpy import (
    NEEDED,
    largest_error,
    median_seconds,
    plain_table,
    show_error,
    show_ratio,
    show_time,
    threads_in_use,
)
from training import at_least, require

import fastnorm
from fastnorm.image import IMAGENET_MEAN, IMAGENET_STD, Normalize, channel_stats

CHANNELS = ("red", "green", "blue")
TITLE_COLORS = ("#B2182B", "#1B7837", "#2166AC")
MEAN, STD = np.float32(IMAGENET_MEAN), np.float32(IMAGENET_STD)
CROPS, CROP = 64, 224
LIMIT = float(np.max(np.maximum(MEAN, 1 - MEAN) / STD))  # what black or white can become


@dataclass
class Library:
    """A library's way from a picture (H, W, C) to normalized planes (C, H, W), and to pixels (H, W, C)."""

    name: str
    version: str
    planes: Callable
    pixels: Callable

    def fill(self, batch, pictures):
        """Put the planes of each picture into its place in a batch."""
        for place, picture in zip(batch, pictures, strict=True):
            np.copyto(place, self.planes(picture))
        return batch


class FastNorm(Library):
    def fill(self, batch, pictures):
        for place, picture in zip(batch, pictures, strict=True):
            self.planes(picture, out=place)
        return batch


def with_fastnorm():
    planes, pixels = (Normalize(IMAGENET_MEAN, IMAGENET_STD, layout=layout) for layout in ("CHW", "HWC"))
    return FastNorm("fastnorm", f"{fastnorm.__version__} ({fastnorm.isa()})", planes, pixels)


def with_numpy():
    def pixels(x):
        return (x.astype(np.float32) / 255 - MEAN) / STD

    return Library("NumPy", np.__version__, lambda x: np.ascontiguousarray(pixels(x).transpose(2, 0, 1)), pixels)


def with_torch():
    """Do as torchvision's ToTensor and Normalize."""
    import torch

    torch.set_num_threads(fastnorm.get_num_threads())
    mean, std = torch.from_numpy(MEAN), torch.from_numpy(STD)
    plane_mean, plane_std = mean[:, None, None], std[:, None, None]

    def planes(x):
        y = torch.from_numpy(x).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        return y.sub_(plane_mean).div_(plane_std)

    def pixels(x):
        return torch.from_numpy(x).to(torch.float32).div_(255).sub_(mean).div_(std)

    return Library("PyTorch", torch.__version__, planes, pixels)


def with_opencv():
    import cv2

    cv2.setNumThreads(fastnorm.get_num_threads())
    plane_std, mean = STD[:, None, None], (255 * MEAN).tolist()
    difference, factor = (np.append(numbers, 0.0) for numbers in (255.0 * MEAN, 1 / (255.0 * STD)))  # of 4 channels

    def planes(x):
        y = cv2.dnn.blobFromImage(x, 1 / 255, mean=mean)[0]
        y /= plane_std
        return y

    def pixels(x):
        y = x.astype(np.float32)
        cv2.subtract(y, difference, y)
        return cv2.multiply(y, factor, y)

    return Library("OpenCV", cv2.__version__, planes, pixels)


def with_albumentations():
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would look for a newer version of itself
    import albumentations

    transform = albumentations.Normalize(IMAGENET_MEAN, IMAGENET_STD)

    def pixels(x):
        return transform(image=x)["image"]

    def planes(x):
        return np.ascontiguousarray(pixels(x).transpose(2, 0, 1))

    return Library("albumentations", albumentations.__version__, planes, pixels)


def libraries():
    """Return fastnorm and those of its rivals that are installed."""
    found = []
    for make in (with_fastnorm, with_numpy, with_torch, with_opencv, with_albumentations):
        try:
            found.append(make())
        except ImportError:
            continue
    return found


def load_photos():
    """Return the sample photos by name, copied because PyTorch warns of read-only arrays."""
    from sklearn.datasets import load_sample_images

    data = load_sample_images()
    return {Path(name).name: image.copy() for name, image in zip(data.filenames, data.images, strict=True)}


def cut_crops(photos):
    """Cut square views at random places: data loaders copy nothing here, and need not."""
    rng = np.random.default_rng(0)
    crops = []
    for number in range(CROPS):
        photo = photos[number % len(photos)]
        top, left = (rng.integers(0, size - CROP + 1) for size in photo.shape[:2])
        crops.append(photo[top : top + CROP, left : left + CROP])
    return crops


def normalized(x):
    """Compute in float64: (..., C)."""
    return (x / 255 - np.float64(IMAGENET_MEAN)) / np.float64(IMAGENET_STD)


def work(photos):
    """List the work that is timed: a name, how a library does it, and the exact answer."""
    name, photo = next(iter(photos.items()))
    size = "x".join(map(str, photo.shape))
    crops = cut_crops(list(photos.values()))
    batch = np.zeros((CROPS, 3, CROP, CROP), np.float32)
    exact, exact_crops = normalized(photo), normalized(np.stack(crops))
    return [
        (f"{name}, {size}, to CHW", lambda library: partial(library.planes, photo), np.moveaxis(exact, -1, 0)),
        (f"{name}, {size}, to HWC", lambda library: partial(library.pixels, photo), exact),
        (
            f"{CROPS} crops of {CROP}x{CROP} into a batch",
            lambda library: partial(library.fill, batch, crops),
            np.moveaxis(exact_crops, -1, 1),
        ),
    ]


def race(photos, repeats):
    """Time fastnorm against each rival by turns; return a table of ratios and of errors."""
    ours, *rivals = libraries()
    rows = [["work", "fastnorm", *[rival.name for rival in rivals]]]
    errors = dict.fromkeys([ours.name, *[rival.name for rival in rivals]], 0.0)
    for name, call, exact in work(photos):
        for library in (ours, *rivals):
            error = largest_error(np.asarray(call(library)()), exact, 1)
            errors[library.name] = max(errors[library.name], error)
        times = [median_seconds(call(ours), call(rival), repeats) for rival in rivals]
        rows.append([name, show_time(times[0][0]), *[show_ratio(theirs / mine) for mine, theirs in times]])
    rows.append(["largest error", *map(show_error, errors.values())])
    return plain_table(rows), ", ".join(f"{library.name} {library.version}" for library in (ours, *rivals))


def statistics_table(photos):
    """Show mean and deviation of each channel, in units of the brightest: of the photos and of ImageNet."""
    sources = {name: channel_stats([photo], progress=False) for name, photo in photos.items()}
    sources |= {
        "both photos": channel_stats(photos.values(), progress=False),
        "ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    }
    rows = [["mean and std of", *CHANNELS]]
    rows += [
        [name, *[f"{m:.3f} {s:.3f}" for m, s in zip(mean, std, strict=True)]] for name, (mean, std) in sources.items()
    ]
    return plain_table(rows)


def draw(photos, planes, restored, path):
    """Draw a row for each photo: original, channels under one scale of colours, restored."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(photos), 5, figsize=(17, 2.35 * len(photos) + 1.75), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    for panels, (name, photo) in zip(rows, photos.items(), strict=True):
        draw_row(panels, photo, planes[name], restored[name])
        panels[0].set_xlabel(f"{name}: {'x'.join(map(str, photo.shape))} {photo.dtype}")
    write_titles(rows[0])
    bar = figure.colorbar(rows[0, 1].images[0], ax=rows[:, 1:4], location="bottom", aspect=60, pad=0.03)
    bar.set_label("normalized value: ImageNet's standard deviations from ImageNet's mean")
    bar.outline.set_visible(False)
    title = "fastnorm.image: two photos, normalized for a network and restored\n"
    figure.suptitle(title, x=0.006, ha="left", weight="bold", size=15, linespacing=0.6)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_row(panels, photo, planes, restored):
    panels[0].imshow(photo)
    for panel, plane in zip(panels[1:4], planes, strict=True):
        panel.imshow(plane, cmap="PuOr_r", vmin=-LIMIT, vmax=LIMIT)
        panel.set_xlabel(f"mean {plane.mean():.2f}, std {plane.std():.2f}".replace("-", "\N{MINUS SIGN}"))
    panels[4].imshow(restored)
    panels[4].set_xlabel("equal to the original byte for byte")
    for panel in panels:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_color("0.6")


def write_titles(panels):
    panels[0].set_title("original", loc="left")
    for panel, name, color, mean, std in zip(
        panels[1:4], CHANNELS, TITLE_COLORS, IMAGENET_MEAN, IMAGENET_STD, strict=True
    ):
        panel.set_title(name, loc="left", color=color, weight="bold")
        panel.set_title(f"(x / 255 \N{MINUS SIGN} {mean:g}) / {std:g}", loc="right", size=10)
    panels[4].set_title("restored", loc="left")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default, what in (
        ("repeats", 9, "timings per rival and piece of work (default: %(default)s)"),
        ("threads", None, "of every library but NumPy (default: what this process may use)"),
    ):
        parser.add_argument(f"--{name}", type=at_least(1), default=default, metavar="N", help=what)
    parser.add_argument("--output", default="photos.png", metavar="PATH", help="the picture (default: %(default)s)")
    return parser.parse_args()


def main():
    args = arguments()
    require(NEEDED)
    fastnorm.set_num_threads(args.threads)
    photos = load_photos()
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    planes = {name: normalize(photo) for name, photo in photos.items()}
    restored = {name: normalize.inverse(plane) for name, plane in planes.items()}
    for name, photo in photos.items():
        wrong = np.count_nonzero(restored[name] != photo)
        if wrong:
            sys.exit(f"photos.py: {name}: {wrong} of {photo.size} restored bytes differ")
        print(f"{name}: all {photo.size} bytes are restored")
    print(f"\n{statistics_table(photos)}\n")
    table, versions = race(photos, args.repeats)
    print(table)
    print(
        f"\nfastnorm's median time, and how many times as long a rival takes; timed by turns, {threads_in_use()}.\n"
        f"Errors are the largest against float64, relative to at least 1.\n{versions}"
    )
    draw(photos, planes, restored, args.output)
    print(f"\nPicture: {args.output}")


if __name__ == "__main__":
    main()
