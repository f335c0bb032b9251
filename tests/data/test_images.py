import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from ember_reid.data import images
from ember_reid.data.images import ImageError, check_files, find_broken, load_image, open_image
from PIL import Image

from tests.helpers.trees import write_image


def save(path, image):
    image.save(path)
    return path


def test_load_image_is_rgb_and_resized(tmp_path):
    path = write_image(tmp_path / "a.png", (10, 20, 30), size=(5, 9))
    image = load_image(path, size=(16, 8))
    assert image.dtype == torch.uint8 and image.shape == (3, 16, 8) and image.is_contiguous()
    assert image[:, 3, 3].tolist() == [10, 20, 30]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_equals_torchvision(tmp_path, interpolation):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    expected = functional.resize(
        torch.from_numpy(pixels).permute(2, 0, 1),
        [16, 8],
        InterpolationMode(interpolation),
        antialias=True,
    )
    difference = load_image(path, size=(16, 8), interpolation=interpolation).int() - expected.int()
    assert difference.abs().max() <= 1


def test_color_modes_are_converted(tmp_path):
    gray = save(tmp_path / "gray.png", Image.new("L", (4, 4), 77))
    assert open_image(gray).getpixel((0, 0)) == (77, 77, 77)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert open_image(save(tmp_path / "palette.png", palette)).getpixel((0, 0)) == (9, 8, 7)
    rgba = save(tmp_path / "rgba.png", Image.new("RGBA", (4, 4), (1, 2, 3, 0)))
    assert open_image(rgba).getpixel((0, 0)) == (1, 2, 3)
    deep = save(tmp_path / "deep.png", Image.fromarray(np.full((4, 4), 0x8001, dtype=np.uint16)))
    assert open_image(deep).getpixel((0, 0)) == (128, 128, 128)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (6, 2))
    exif = Image.Exif()
    # Rotation by 90 degrees.
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (2, 6)


def broken_files(folder):
    whole = write_image(folder / "whole.jpg", size=(64, 64)).read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not an image")
    return [folder / name for name in ("empty.jpg", "cut.jpg", "text.jpg", "gone.jpg")]


def test_broken_files_are_named_with_the_reason(tmp_path):
    reasons = [
        "is empty \\(0 bytes\\)",
        "cannot be decoded",
        "not an image format that Pillow supports",
        "does not exist",
    ]
    for path, reason in zip(broken_files(tmp_path), reasons, strict=True):
        with pytest.raises(ImageError, match=f"{path.name}.*{reason}"):
            open_image(path)


def test_find_broken_and_check_files(tmp_path):
    paths = broken_files(tmp_path)
    found = find_broken([tmp_path / "whole.jpg", *paths])
    assert list(found) == paths
    with pytest.raises(
        ImageError,
        match="empty.jpg is empty .*, and 1 more image files are unusable; .*SKIP_BROKEN",
    ):
        check_files([tmp_path / "whole.jpg", *paths])
    check_files([tmp_path / "whole.jpg"])


def test_huge_images_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="11 x 10 pixels; images above 100 pixels are refused"):
        open_image(write_image(tmp_path / "a.png", size=(11, 10)))


def pixel(path):
    return open_image(path).getpixel((0, 0))


def test_unusual_modes(tmp_path):
    for mode, color, expected in (
        ("LA", (77, 0), (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
    ):
        assert pixel(save(tmp_path / f"{mode}.png", Image.new(mode, (4, 4), color))) == expected
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(tmp_path / "transparent.png", transparency=bytes([0, 128]))
    assert pixel(tmp_path / "transparent.png") == (9, 8, 7)
    # 10 % cyan, 20 % magenta, 30 % yellow, no black
    cmyk = Image.new("CMYK", (4, 4), (26, 51, 77, 0))
    assert pixel(save(tmp_path / "cmyk.tif", cmyk)) == (229, 204, 178)
    for order in ("<u2", ">u2"):
        deep = Image.fromarray(np.full((4, 4), 0x8001, dtype=order))
        assert pixel(save(tmp_path / "deep.tif", deep)) == (128, 128, 128)
    (tmp_path / "deep.ppm").write_bytes(b"P5\n1 1\n65535\n\x80\x01")
    assert pixel(tmp_path / "deep.ppm") == (128, 128, 128)


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "integer"), (np.float32, "floating-point")])
def test_32_bit_pixels_are_refused(tmp_path, dtype, kind):
    path = save(tmp_path / "a.tif", Image.fromarray(np.ones((4, 4), dtype=dtype)))
    with pytest.raises(ImageError, match=f"a.tif has 32-bit {kind} pixels, whose range is not"):
        open_image(path)


def test_special_files_are_refused_without_opening_them(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.symlink(tmp_path / "loop.jpg", tmp_path / "loop.jpg")
    paths = [tmp_path / "pipe.jpg", tmp_path / "folder.jpg", tmp_path / "loop.jpg"]
    paths += [tmp_path / "a\0.jpg", tmp_path / ("x" * 300 + ".jpg"), type(tmp_path)("/dev/zero")]
    expected = ["is not a regular file", "is a folder", "cannot be opened (Too many levels"]
    expected += ["contains a NUL byte", "cannot be opened (File name too long", "is not a regular"]
    found = find_broken(paths)
    assert list(found) == paths
    for message, part in zip(found.values(), expected, strict=True):
        assert part in message and "\0" not in message
    with pytest.raises(ImageError, match="pipe.jpg is not a regular file, and 5 more"):
        check_files(paths)


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"\xff\x1b.jpg")
    write_image(tmp_path / name)
    assert open_image(tmp_path / name).size
    (tmp_path / name).write_bytes(b"")
    message = find_broken([tmp_path / name])[tmp_path / name]
    assert message.encode("utf-8").decode().endswith("\\udcff\\x1b.jpg is empty (0 bytes)")


def test_pillow_does_not_warn(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    code = "import sys; from ember_reid.data.images import open_image; open_image(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""
