"""Folders of images: classes, splits, formats, and files that cannot be read."""

import pathlib
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image

from vqvae_jax.data import (
    DataConfig,
    TrainBatches,
    first_examples,
    open_dataset,
)
from vqvae_jax.data.folder import open_folder
from vqvae_jax.runtime.errors import UserError

IMAGENET128 = pathlib.Path(__file__).parents[3] / "shared" / "data" / "imagenet128"


def save(path, value=0, *, size=(12, 10), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = (value,) * 3 if mode == "RGB" else value
    Image.new(mode, size, fill).save(path)


def make(root, counts, *, suffix="png"):
    for folder, count in counts.items():
        for i in range(count):
            save(root / folder / f"{i:03}.{suffix}", i)
    return root


def open_root(root, **kwargs):
    return open_folder(str(root), image_size=8, channels=3, **kwargs)


def dataset(root, **kwargs):
    sizes = {"image_size": 8, "channels": 3} | kwargs
    return open_dataset(DataConfig(source="folder", data_dir=str(root), **sizes))


def assert_raises(root, match, **kwargs):
    with pytest.raises(UserError, match=match) as caught:
        open_root(root, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("val", ["val", "validation"])
def test_classes_are_the_sorted_folders_of_train(tmp_path, val):
    make(tmp_path, {"train/dog": 3, "train/cat": 2, f"{val}/dog": 1, "test/cat": 1})
    splits = open_root(tmp_path)
    assert splits.class_names == ("cat", "dog")
    batch = first_examples(splits.sources["train"], 10)
    assert batch["label"].tolist() == [0, 0, 1, 1, 1]
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]
    assert splits.sources["validation"][0]["label"] == 1
    assert splits.sources["test"][0]["label"] == 0


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "JPG"])
def test_all_formats_are_read(tmp_path, suffix):
    make(tmp_path, {"train/a": 2}, suffix=suffix)
    (tmp_path / "train/a/.hidden.png").write_text("ignored")
    (tmp_path / "train/a/notes.txt").write_text("ignored")
    assert len(open_root(tmp_path).sources["train"]) == 2


def test_images_without_classes_are_unlabelled(tmp_path):
    make(tmp_path, {"train": 30, "val": 2})
    opened = dataset(tmp_path)
    assert opened.class_names == ()
    assert opened.train[3]["label"] == 0
    assert len(opened.test) == 2


def test_missing_and_empty_folders_raise(tmp_path):
    assert_raises(tmp_path / "nowhere", "is not a folder")
    assert_raises(tmp_path, "has no folder train")
    (tmp_path / "train").mkdir()
    assert_raises(tmp_path, "train has no images")
    (tmp_path / "train" / "cat").mkdir()
    assert_raises(tmp_path, "cat has no images")
    make(tmp_path, {"train/cat": 1})
    (tmp_path / "val" / "cat").mkdir(parents=True)
    assert_raises(tmp_path, "val has no images")
    (tmp_path / "validation").mkdir()
    assert_raises(tmp_path, "both val and validation")


def test_an_unknown_class_raises(tmp_path):
    make(tmp_path, {"train/cat": 1, "test/dog": 1})
    assert_raises(tmp_path, "test has the class 'dog'")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_a_truncated_image_raises_or_is_skipped(tmp_path, suffix):
    make(tmp_path, {"train/a": 3}, suffix=suffix)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    damaged = tmp_path / f"train/a/001.{suffix}"
    Image.fromarray(noise).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert_raises(tmp_path, rf"1 of 3 .*001\.{suffix}.*data\.skip_corrupt")
    with pytest.warns(UserWarning, match="skipped 1 of 3"):
        splits = open_root(tmp_path, skip_corrupt=True)
    batch = first_examples(splits.sources["train"], 3)
    assert len(batch["label"]) == 2


def test_damage_in_the_middle_raises_or_is_skipped(tmp_path):
    """Only decoding detects it: on access, or at the start if it is skipped."""
    make(tmp_path, {"train/a": 3}, suffix="jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    damaged = tmp_path / "train/a/001.jpg"
    Image.fromarray(noise).save(damaged)
    content = damaged.read_bytes()
    # Overwrite the end of the tables and the start of the compressed data.
    start = content.index(b"\xff\xda")
    damaged.write_bytes(content[: start - 60] + bytes(90) + content[start + 30 :])
    with pytest.raises(UserError, match=r"001\.jpg.*put back.*data\.skip_corrupt"):
        open_root(tmp_path).sources["train"][1]
    with pytest.warns(UserWarning, match=r"skipped 1 of 3 .*001\.jpg"):
        splits = open_root(tmp_path, skip_corrupt=True)
    assert len(first_examples(splits.sources["train"], 3)["label"]) == 2


@pytest.mark.parametrize("content", [b"", b"x", b"this is no image"])
def test_a_file_that_is_not_an_image_raises(tmp_path, content):
    make(tmp_path, {"train/a": 2})
    (tmp_path / "train/a/000.png").write_bytes(content)
    assert_raises(tmp_path, r"000\.png")


def test_a_split_of_corrupt_images_only_raises(tmp_path):
    make(tmp_path, {"train/a": 1})
    (tmp_path / "train/a/000.png").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_raises(tmp_path, "no image that can be read", skip_corrupt=True)


def test_data_after_the_end_of_a_jpeg_is_accepted(tmp_path):
    make(tmp_path, {"train/a": 1}, suffix="jpg")
    with (tmp_path / "train/a/000.jpg").open("ab") as stream:
        stream.write(b"added by a camera")
    assert len(open_root(tmp_path).sources["train"]) == 1


def test_a_decompression_bomb_raises(tmp_path, monkeypatch):
    make(tmp_path, {"train/a": 2})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_raises(tmp_path, "it claims 120 pixels, expected at most 100")


def test_a_file_damaged_after_opening_raises_with_its_name(tmp_path):
    make(tmp_path, {"train/a": 2})
    source = open_root(tmp_path).sources["train"]
    (tmp_path / "train/a/001.png").write_bytes(b"gone")
    with pytest.raises(UserError, match=r"001\.png cannot be decoded"):
        source[1]


def test_exif_orientation_is_applied(tmp_path):
    array = np.zeros((8, 8, 3), np.uint8)
    array[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # Upside down.
    (tmp_path / "train/a").mkdir(parents=True)
    Image.fromarray(array).save(tmp_path / "train/a/0.png", exif=exif)
    got = open_root(tmp_path).sources["train"][0]["image"]
    np.testing.assert_array_equal(got, array[::-1])


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_invalid_exif_is_ignored(tmp_path, suffix):
    path = tmp_path / "train/a" / f"0.{suffix}"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), (90, 90, 90)).save(path, exif=b"Exif\0\0garbage")
    source = open_root(tmp_path).sources["train"]
    assert np.abs(source[0]["image"].astype(int) - 90).max() <= 1


def test_images_next_to_class_folders_are_skipped_with_a_warning(tmp_path):
    make(tmp_path, {"train/cat": 2, "train": 3, "test/cat": 1})
    with pytest.warns(
        UserWarning, match=r"skipped 3 images in .*train, which are next"
    ):
        splits = open_root(tmp_path)
    assert {k: len(v) for k, v in splits.sources.items()} == {"train": 2, "test": 1}


def test_a_source_can_be_pickled(tmp_path):
    make(tmp_path, {"train/a": 2})
    source = open_root(tmp_path).sources["train"]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1]["image"], source[1]["image"])


@pytest.mark.skipif(not IMAGENET128.is_dir(), reason="imagenet128 is not here")
def test_imagenet128():
    opened = dataset(IMAGENET128, image_size=64, validation_fraction=0.1)
    assert [len(s) for s in opened[:3]] == [900, 100, 200]
    assert len(opened.class_names) == 10
    batches = TrainBatches(opened.train, batch_size=50, seed=0)
    batch = next(batches)
    batches.close()
    assert batch["image"].shape == (50, 64, 64, 3)
    # Mixed classes in validation and photos that are neither black nor flat.
    assert len(set(first_examples(opened.validation, 100)["label"].tolist())) == 10
    assert batch["image"].std() > 40
