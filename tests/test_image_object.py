"""`Normalize` keeps what it was given: through copies, pickles and its repr; `normalize` is the same."""

import copy
import pickle

import numpy as np
import pytest
from cases import HALVES, uniform
from pictures import IMAGENET, UINT8, UINT16, levels, same_bytes

from fastnorm import image


def attributes(norm):
    values = {name: getattr(norm, name) for name in image.Normalize.__annotations__ if not name.startswith("_")}
    return {name: (v.shape, v.dtype, v.tobytes()) if isinstance(v, np.ndarray) else v for name, v in values.items()}


def test_an_object_keeps_what_it_was_given():
    mean, std = np.array(IMAGENET[0]), np.array(IMAGENET[1], np.float32)
    how = {"scale": 1 / 1023, "layout": "HWC", "input_layout": "CHW", "swap_channels": True, "dtype": np.float16}
    img = uniform((3, 9, 11), UINT16)
    for given in ({}, how):
        norm = image.Normalize(mean, std, **given)
        want = norm(img)
        for other in (pickle.loads(pickle.dumps(norm)), copy.deepcopy(norm)):
            assert type(other) is image.Normalize
            same_bytes(other(img), want)
            same_bytes(other.inverse(want, dtype=UINT16), norm.inverse(want, dtype=UINT16))
            assert attributes(other) == attributes(norm)
        for name, value in (("mean", mean), ("std", std)):
            kept = getattr(norm, name)
            assert (kept.dtype, kept.tolist()) == (np.float64, value.tolist())
            with pytest.raises(ValueError, match="read-only"):
                kept[0] = 1
    norm = image.Normalize(mean, std)
    want = norm(img)
    mean[:], std[:] = 7, 9
    same_bytes(norm(img), want, "changed from outside")
    assert (norm.scale, norm.layout, norm.input_layout, norm.swap_channels) == (None, "CHW", None, False)
    assert norm.dtype == np.float32


def test_its_repr_makes_the_same_object():
    for constants in (IMAGENET, (0.5, 0.25), ([0.1], [1 / 3]), (0.1, (1e-30, 1 / 3, -7e300)), (1 / 3, np.float32(0.1))):
        for how in (
            {},
            {"scale": 1 / 1023, "layout": "HWC"},
            {"input_layout": "CHW", "swap_channels": True},
            {"input_layout": "HWC", "dtype": np.float16},
            {"scale": -3, "dtype": HALVES[-1]},
        ):
            norm = image.Normalize(*constants, **how)
            made = eval(repr(norm), {"Normalize": image.Normalize})
            assert attributes(made) == attributes(norm), repr(norm)
            assert repr(made) == repr(norm)
    assert repr(image.Normalize(0.5, 0.25)) == "Normalize(mean=0.5, std=0.25)"


class Named(image.Normalize):
    """A subclass with an argument, an attribute and a method of its own."""

    def __init__(self, name, **how):
        super().__init__(*IMAGENET, **how)
        vars(self)["name"] = name

    def channels(self):
        return self.mean.size


def copies(norm):
    yield from (pickle.loads(pickle.dumps(norm, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))
    yield from (copy.copy(norm), copy.deepcopy(norm))


def test_what_is_derived_from_it_survives_copies():
    img = uniform((5, 7, 3), UINT16)
    for how in ({}, {"swap_channels": True, "layout": "HWC", "dtype": np.float16}):
        norm = Named("photos", **how)
        want = norm(img)
        assert repr(norm).startswith("Named(")
        for other in copies(norm):
            assert (type(other), other.name, other.channels()) == (Named, "photos", 3)
            assert attributes(other) == attributes(norm)
            same_bytes(other(img), want)
            for kept in (other.mean, other.std):
                assert not kept.flags.writeable


def test_the_function_is_the_object_however_constants_are_given():
    img = np.pad(levels(UINT8, 3), [(1, 0), (0, 0), (0, 0)])
    mean, std = IMAGENET
    want = image.Normalize(*IMAGENET)
    for x in (img, img.astype(np.uint16), img / np.float32(255), img[:, ::-1], want(img)):
        for given in (
            IMAGENET,
            map(list, IMAGENET),
            map(np.array, IMAGENET),
            (mean, list(std)),
            map(np.float16, IMAGENET),
        ):
            m, s = given
            exact = want if np.asarray(m).dtype != np.float16 else image.Normalize(m, s)
            same_bytes(image.normalize(x, m, s), exact(x), (x.dtype, type(m)))
        same_bytes(image.normalize(x, mean, std, layout="HWC"), image.Normalize(mean, std, layout="HWC")(x))
        same_bytes(image.normalize(x, [0.5], (0.25,)), image.Normalize([0.5], [0.25])(x), "one number")
    out = np.full((3, *img.shape[:2]), np.nan, np.float32)
    assert image.normalize(img, mean, std, out=out) is out
    same_bytes(out, want(img))
    swapped = image.normalize(img, mean, std, swap_channels=True)
    same_bytes(swapped, image.normalize(img[..., ::-1], mean, std))
