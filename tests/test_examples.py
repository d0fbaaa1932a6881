"""The examples run as a user runs them and show what they promise."""

import gzip
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import digits_mlp

EXAMPLES = Path(digits_mlp.__file__).parent
DEMO = EXAMPLES / "compare_with_numpy.py"
DEMO_JOBS = [
    "photos: mean and variance per channel",
    "photos: the same without clipped pixels",
    "photos: layer_norm of each photo",
    "digits: layer_norm of each row",
    "digits: layer_norm of a small batch",
    "breast cancer: standardize the columns",
    "breast cancer: min and max per column",
    "breast cancer: skewness and kurtosis",
    "breast cancer: streaming Moments of chunks",
]
RUN_WITHOUT_PACKAGES = """
import importlib.util, runpy, sys
import fastnorm
importlib.util.find_spec = lambda name: None
sys.argv.pop(0)
sys.path.insert(0, sys.argv.pop(0))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demo: what it printed, and the picture it drew in the current directory."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, str(DEMO), "--repeats", "1", "--threads", "1"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout, folder / "compare_with_numpy.png"


def rows(text):
    """Split the table into cells: columns stand two or more blanks apart."""
    return {
        cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in text.splitlines()) if len(cells) == 7
    }


@pytest.mark.slow
def test_the_demo_shows_every_job(demo):
    text, _ = demo
    assert [name for name in rows(text) if ":" in name] == DEMO_JOBS


@pytest.mark.slow
@pytest.mark.parametrize("job", DEMO_JOBS)
def test_the_demo_shows_fastnorm_at_rounding_error(demo, job):
    """Every answer is stored in float32, and is at most four roundings away from the exact one."""
    text, _ = demo
    shown = rows(text)[job][-1]
    error = 0 if shown == "exact" else float(shown)
    assert error <= 4 * np.finfo(np.float32).eps


@pytest.mark.slow
def test_the_demo_draws_its_picture_and_says_where(demo):
    text, picture = demo
    assert text.rstrip().endswith("Picture: compare_with_numpy.png")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ("compare_with_numpy", ["scikit-learn", "Pillow", "matplotlib"]),
        ("digits_mlp", ["scikit-learn", "matplotlib", "threadpoolctl", "tqdm"]),
        ("lstm_layernorm", ["scikit-learn", "matplotlib", "threadpoolctl", "tqdm"]),
        ("sklearn_pipeline", ["scikit-learn", "matplotlib", "threadpoolctl", "tqdm"]),
        ("photos", ["scikit-learn", "Pillow", "matplotlib"]),
    ],
)
def test_an_example_says_what_is_missing(program, missing):
    """In an interpreter without its packages it ends with one line instead of a traceback."""
    command = [sys.executable, "-c", RUN_WITHOUT_PACKAGES, str(EXAMPLES), str(EXAMPLES / f"{program}.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        f"This example also needs {', '.join(missing)}: python -m pip install {' '.join(missing)}"
    ]


def run_program(name, folder, *options):
    for package in ("sklearn", "matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(package)
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--threads", "1", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


# Every program: the accuracy it must reach on held-out digits, the names of its bars, a line that it prints.
PROGRAMS = {
    "digits_mlp": (97, ["with batch norm", "without batch norm"], "before them: 360 of 360 predictions unchanged"),
    "lstm_layernorm": (95, ["LSTM with layer norm"], "1437 pictures of 8x8 pixels to train with, 360 held out"),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request, tmp_path_factory):
    """Run a program: its name, the run, the folder."""
    folder = tmp_path_factory.mktemp(request.param)
    run = run_program(request.param, folder)
    assert run.returncode == 0, run.stderr
    return request.param, run, folder


@pytest.mark.slow
def test_a_program_learns_the_digits(program):
    name, run, _ = program
    least, _, line = PROGRAMS[name]
    percent, right, held_out = re.search(r"held-out accuracy ([\d.]+) % \((\d+) of (\d+)\)", run.stdout).groups()
    assert int(held_out) == 360
    assert float(percent) == pytest.approx(100 * int(right) / 360, abs=0.005)
    assert float(percent) >= least
    assert f"{line}\n" in run.stdout


@pytest.mark.slow
def test_a_program_shows_how_far_it_is(program):
    name, run, _ = program
    for bar in PROGRAMS[name][1]:
        assert re.search(rf"(^|[\r\n]){bar}: 100%.*loss=", run.stderr)
    assert "Warning" not in run.stderr


@pytest.mark.slow
def test_a_program_draws_its_loss_and_says_where(program):
    name, run, folder = program
    assert run.stdout.rstrip().endswith(f"Picture: {name}.png")
    picture = folder / f"{name}.png"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.stat().st_size > 10_000


@pytest.fixture
def mnist():
    """Pictures of 5x4 pixels, one of them white and telling the class, and labels: to train with and held out."""
    labels = np.arange(40, dtype=np.uint8) % 10
    images = np.zeros((40, 20), np.uint8)
    images[np.arange(40), labels] = 255
    images[:, 19] = np.arange(40)
    images = images.reshape(40, 5, 4)
    return {"train": (images[:30], labels[:30]), "t10k": (images[30:], labels[30:])}


def idx(array, first=None):
    """Return an array of bytes as an idx file: type and number of dimensions, the dimensions, the data."""
    first = 0x800 + array.ndim if first is None else first
    return struct.pack(f">{1 + array.ndim}I", first, *array.shape) + array.tobytes()


def write_mnist(folder, parts, *, gz=False):
    for part, (images, labels) in parts.items():
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{kind}-ubyte{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(idx(array)) if gz else idx(array))


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_mnists_files_are_read(tmp_path, mnist, gz):
    write_mnist(tmp_path, mnist, gz=gz)
    data = digits_mlp.load_mnist(tmp_path)
    for images, labels, part in ((data.x, data.labels, "train"), (data.held_x, data.held_labels, "t10k")):
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, mnist[part][0] / np.float32(255))
        np.testing.assert_array_equal(labels, mnist[part][1])


@pytest.mark.slow
def test_mnists_files_are_learnt(tmp_path, mnist):
    """Gzipped or not, the program prints the same; these pictures are so easy that it cannot fail on any."""
    shown = []
    for gz in (False, True):
        folder = tmp_path / f"gz{gz}"
        folder.mkdir()
        write_mnist(folder, mnist, gz=gz)
        options = ("--mnist", str(folder), "--epochs", "30", "--batch", "10", "--output", "curves.png")
        run = run_program("digits_mlp", tmp_path, *options)
        assert run.returncode == 0, run.stderr
        shown.append(run.stdout)
    assert shown[0] == shown[1]
    assert "MNIST: 30 pictures of 5x4 pixels to train with, 10 held out\n" in shown[0]
    assert "\nwith batch norm: held-out accuracy 100.00 % (10 of 10)\n" in shown[0]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def change(file, edit):
    def damage(folder):
        path = folder / file
        path.write_bytes(edit(path.read_bytes()))

    return damage


def compress_half(folder):
    path = folder / "train-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(packed[: len(packed) // 2])


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
DAMAGES = {
    "missing": (lambda folder: (folder / LABELS).unlink(), f"neither {LABELS} nor {LABELS}.gz is there"),
    "empty": (change(LABELS, lambda _: b""), f"{LABELS}: 0 bytes, shorter than the 8 bytes of its header"),
    "half_a_header": (change(IMAGES, lambda b: b[:10]), f"{IMAGES}: 10 bytes, shorter than the 16 bytes"),
    "text": (change(IMAGES, lambda _: b"<!DOCTYPE html><html>"), "begins with 0x3c21444f, expected 0x00000803"),
    "labels_for_pictures": (change(IMAGES, lambda b: idx(np.zeros(30, np.uint8)) + b[:8]), "expected 0x00000803"),
    "truncated": (change(IMAGES, lambda b: b[:-1]), "615 bytes, but 16 \\+ 30x5x4 are announced"),
    "too_long": (change(LABELS, lambda b: b + b"\0"), "39 bytes, but 8 \\+ 30 are announced"),
    "too_few_labels": (change(LABELS, lambda _: idx(np.zeros(29, np.uint8))), "30 pictures but 29 labels in train"),
    "label_10": (change(LABELS, lambda b: b[:-1] + b"\x0a"), "the label 10 in train-\\*, expected 0 to 9"),
    "other_size": (change(IMAGES, lambda _: idx(np.zeros((30, 4, 4), np.uint8))), "to train with, of .* to test"),
    "half_a_gz": (compress_half, f"{LABELS}.gz: damaged gzip file"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_of_mnist_are_refused(tmp_path, mnist, damage, message):
    write_mnist(tmp_path, mnist)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        digits_mlp.load_mnist(tmp_path)


def test_no_picture_is_refused(tmp_path, mnist):
    empty = (np.zeros((0, 5, 4), np.uint8), np.zeros(0, np.uint8))
    write_mnist(tmp_path, mnist | {"t10k": empty})
    with pytest.raises(ValueError, match=r"pictures of shape \(0, 5, 4\) in t10k"):
        digits_mlp.load_mnist(tmp_path)


def test_a_refused_folder_is_one_line(tmp_path):
    run = run_program("digits_mlp", tmp_path, "--mnist", "nowhere")
    assert run.returncode == 1
    assert run.stderr.splitlines() == ["digits_mlp.py: nowhere: no such folder"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_options_are_explained(tmp_path, name):
    shown = run_program(name, tmp_path, "--help").stdout
    for option in ("--epochs", "--batch", "--rate", "--seed", "--threads", "--output"):
        assert re.search(rf"{option} [A-Z]+ +[a-z]", shown)
    for options in (("--batch", "1"), ("--rate", "0"), ("--epochs", "none")):
        run = run_program(name, tmp_path, *options)
        assert run.returncode == 2
        assert f"error: argument {options[0]}: " in run.stderr


SCALERS = ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Normalizer"]
RUN_WITH_A_WRONG_SCALER = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import fastnorm.preprocessing
import sklearn_pipeline

class MinMaxScaler(fastnorm.preprocessing.Normalizer):
    pass

fastnorm.preprocessing.MinMaxScaler = MinMaxScaler
sklearn_pipeline.SCALERS = ("MinMaxScaler",)
sklearn_pipeline.main()
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Run the pipeline on small tables: the run, the folder."""
    folder = tmp_path_factory.mktemp("sklearn_pipeline")
    run = run_program("sklearn_pipeline", folder, "--repeats", "1", "--copies", "2")
    assert run.returncode == 0, run.stderr
    return run, folder


@pytest.mark.slow
def test_a_pipeline_scores_alike_with_either_scalers(pipeline):
    run, _ = pipeline
    shown = re.findall(r"^(\w+) +(LogisticRegression|SVC) +[\d.]+ +(0\.\d{6}) +(0\.\d{6})$", run.stdout, re.MULTILINE)
    assert [(scaler, model) for scaler, model, *_ in shown] == [
        (scaler, model) for scaler in SCALERS for model in ("LogisticRegression", "SVC")
    ]
    assert all(theirs == ours for *_, theirs, ours in shown)
    assert max(float(ours) for *_, ours in shown) > 0.97
    assert "\nAll 150 cross-validated scores are equal (30 candidates, 5 folds).\n" in run.stdout


@pytest.mark.slow
def test_every_step_of_a_pipeline_is_timed(pipeline):
    run, folder = pipeline
    alone = [f"{name}.{method}" for name in SCALERS for method in ("fit", "transform")]
    alone.remove("Normalizer.fit")
    steps = {
        "the table, 569x30": [*alone, "pipeline: fit", "pipeline: predict", "grid search"],
        "2 copies, 1138x30": alone,
    }
    for table, names in steps.items():
        found = re.findall(
            rf"^(.+?) +{table} +([\d.e+]+ [um]?s) +([\d.e+]+ [um]?s) +([\d.]+x)$", run.stdout, re.MULTILINE
        )
        assert [name for name, *_ in found] == names
        assert re.search(rf"(^|[\r\n]){table}: 100%", run.stderr)
    assert "Warning" not in run.stderr
    assert run.stdout.rstrip().endswith("Picture: sklearn_pipeline.png")
    picture = folder / "sklearn_pipeline.png"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_a_pipeline_with_other_scores_fails(tmp_path):
    """The program is run with a scaler that does another's work."""
    for package in ("sklearn", "matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(package)
    command = [sys.executable, "-c", RUN_WITH_A_WRONG_SCALER, str(EXAMPLES)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert re.match("sklearn_pipeline.py: scores differ: MinMaxScaler, (LogisticRegression|SVC), C = ", run.stderr)
    assert not list(tmp_path.iterdir())


def test_the_options_of_the_pipeline_are_explained(tmp_path):
    shown = run_program("sklearn_pipeline", tmp_path, "--help").stdout
    for option in ("--jobs", "--copies", "--repeats", "--threads", "--output"):
        assert re.search(rf"{option} [A-Z]+ +[a-z]", shown)
    run = run_program("sklearn_pipeline", tmp_path, "--copies", "1")
    assert run.returncode == 2
    assert "error: argument --copies: " in run.stderr


PEERS = ("torch", "cv2", "albumentations")
RUN_PHOTOS = """
import sys

class Hidden:
    def find_spec(name, *_):
        if name in {hidden}:
            raise ImportError(name)

sys.meta_path.insert(0, Hidden)
sys.path.insert(0, sys.argv.pop(1))
import fastnorm.image
{change}
import photos
photos.main()
"""
WRONG_INVERSE = """
right = fastnorm.image.Normalize.inverse

def wrong(self, x):
    picture = right(self, x)
    picture[0, :2, 0] ^= 1
    return picture

fastnorm.image.Normalize.inverse = wrong
"""


def run_photos(folder, hidden=PEERS, change=""):
    """Run the program, with a change of fastnorm, in an interpreter from which some packages are hidden."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    code = RUN_PHOTOS.format(hidden=hidden, change=change)
    command = [sys.executable, "-c", code, str(EXAMPLES), "--repeats", "1", "--threads", "1"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def errors_of_libraries(text):
    """Return the largest error of each library in the table of times, whose rows tell a time and ratios."""
    table = [re.split(r" {2,}", line) for line in text.partition("\nwork ")[2].splitlines()]
    names, _, *work, errors = table[: [row[0] for row in table].index("largest error") + 1]
    assert [name for name, *_ in work] == [
        "china.jpg, 427x640x3, to CHW",
        "china.jpg, 427x640x3, to HWC",
        "64 crops of 224x224 into a batch",
    ]
    for _, seconds, *ratios in work:
        assert re.fullmatch(r"[\d.]+ [mu]s", seconds)
        assert all(re.fullmatch(r"[\d.]+x", ratio) for ratio in ratios)
        assert len(ratios) == len(names) - 2
    return dict(zip(names[1:], map(float, errors[1:]), strict=True))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Run the photos with what the group `demo` installs: the run, the folder."""
    folder = tmp_path_factory.mktemp("photos")
    run = run_photos(folder)
    assert run.returncode == 0, run.stderr
    return run, folder


@pytest.mark.slow
def test_photos_are_restored_and_described(photos):
    run, _ = photos
    from sklearn.datasets import load_sample_images

    pictures = [image / 255 for image in load_sample_images().images]
    described = dict(zip(["china.jpg", "flower.jpg"], pictures, strict=True)) | {"both photos": np.stack(pictures)}
    for name in ("china.jpg", "flower.jpg"):
        assert f"{name}: all 819840 bytes are restored\n" in run.stdout
    for name, values in described.items():
        pixels = values.reshape(-1, 3)
        shown = "  ".join(f"{m:.3f} {s:.3f}" for m, s in zip(pixels.mean(0), pixels.std(0), strict=True))
        assert re.search(rf"^{name} +{shown}$", run.stdout, re.MULTILINE)


@pytest.mark.slow
def test_photos_are_raced_and_drawn_without_peers(photos):
    """Normalized values lie within +-2.7, and errors are relative to at least 1: a few roundings, ours fewer."""
    run, folder = photos
    eps = np.finfo(np.float32).eps
    errors = errors_of_libraries(run.stdout)
    assert list(errors) == ["fastnorm", "NumPy"]
    assert errors["fastnorm"] <= 3 * eps
    assert errors["NumPy"] <= 8 * eps
    assert "Warning" not in run.stderr
    assert run.stdout.rstrip().endswith("Picture: photos.png")
    picture = (folder / "photos.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert 2 < width / height < 4


@pytest.mark.slow
def test_photos_that_are_not_restored_fail(tmp_path):
    run = run_photos(tmp_path, change=WRONG_INVERSE)
    assert run.returncode == 1
    assert run.stderr.splitlines() == ["photos.py: china.jpg: 2 of 819840 restored bytes differ"]
    assert not list(tmp_path.iterdir())


@pytest.mark.peers
def test_photos_are_raced_against_the_peers(tmp_path):
    for package in PEERS:
        pytest.importorskip(package)
    run = run_photos(tmp_path, hidden=())
    assert run.returncode == 0, run.stderr
    errors = errors_of_libraries(run.stdout)
    assert list(errors) == ["fastnorm", "NumPy", "PyTorch", "OpenCV", "albumentations"]
    assert max(errors.values()) <= 8 * np.finfo(np.float32).eps
    assert "Warning" not in run.stderr


def test_the_options_of_the_photos_are_explained(tmp_path):
    shown = run_program("photos", tmp_path, "--help").stdout
    for option in ("--repeats", "--threads", "--output"):
        assert re.search(rf"{option} [A-Z]+ +[a-z]", shown)
    run = run_program("photos", tmp_path, "--repeats", "0")
    assert run.returncode == 2
    assert "error: argument --repeats: " in run.stderr
