"""Pictures are those of PyTorch, OpenCV and albumentations, to the roundings that these take."""

import numpy as np
import pytest
from pictures import IMAGENET, PHOTOS, UINT8, UINT16, levels, load_photo, same_bytes

from fastnorm import image


@pytest.mark.peers
@pytest.mark.parametrize("name", PHOTOS)
def test_tensors_are_torchs(name):
    torch, photo = pytest.importorskip("torch"), load_photo(name)
    mean, std = (torch.tensor(v)[:, None, None] for v in IMAGENET)
    planes = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
    tensor = planes.to(torch.float32).div(255)
    same_bytes(image.to_tensor(photo), tensor.numpy())
    same_bytes(image.to_tensor(torch.from_numpy(photo)), tensor.numpy())
    every = torch.from_numpy(levels(UINT8, 3)).permute(2, 0, 1)
    same_bytes(image.to_tensor(levels(UINT8, 3)), every.to(torch.float32).div(255).contiguous().numpy())
    # Theirs rounds x / 255, mean, the difference, std and the quotient in float32: 2 units of numbers up to 1 / std.
    want = tensor.sub(mean).div(std).numpy()
    for given in (photo, planes, torch.from_numpy(photo)):
        np.testing.assert_allclose(image.normalize(given, *IMAGENET), want, rtol=2.0**-22, atol=2.0**-23 / 0.224)
    batch = torch.stack([planes, planes.flip(2)])
    got = image.normalize(batch, *IMAGENET)
    np.testing.assert_allclose(got, batch.div(255).sub(mean).div(std).numpy(), rtol=2.0**-22, atol=2.0**-23 / 0.224)
    slot = torch.empty(2, *want.shape)
    image.normalize(photo, *IMAGENET, out=slot.numpy()[1])
    same_bytes(slot[1].numpy(), image.normalize(photo, *IMAGENET))
    deep = torch.from_numpy(levels(UINT16, 3))
    same_bytes(image.to_tensor(deep), np.moveaxis(levels(UINT16, 3) / np.float32(65535), -1, 0))


@pytest.mark.peers
@pytest.mark.parametrize("name", PHOTOS)
def test_blobs_are_those_of_opencv(name):
    cv2 = pytest.importorskip("cv2")
    bgr = load_photo(name)[..., ::-1].copy()
    for mean, std in ((IMAGENET[0], 0.226), ((0.5, 0.5, 0.5), 0.5), ((0, 0, 0), 1)):
        shift = tuple(255 * m for m in mean)
        want = cv2.dnn.blobFromImages([bgr, bgr[::-1].copy()], 1 / (255 * std), mean=shift, swapRB=True)
        got = image.normalize(np.stack([bgr, bgr[::-1]]), mean, std, swap_channels=True)
        # Theirs rounds 255 mean, x - 255 mean and the factor in float32.
        np.testing.assert_allclose(got, want, rtol=2.0**-22, atol=2.0**-23 / std)


@pytest.mark.peers
@pytest.mark.parametrize("name", PHOTOS)
def test_normalized_pictures_are_those_of_albumentations(name, monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for a newer version
    albumentations = pytest.importorskip("albumentations")
    photo = load_photo(name)
    for mean, std in (IMAGENET, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))):
        want = albumentations.Normalize(mean, std, max_pixel_value=255.0)(image=photo)["image"]
        got = image.normalize(photo, mean, std, layout="HWC")
        # Theirs is a table, or x times a factor less a mean, in float32.
        np.testing.assert_allclose(got, want, rtol=2.0**-21, atol=2.0**-21 / 0.224)
