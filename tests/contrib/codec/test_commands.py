"""compress and decompress: exact codes, at the prior's cost."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqvae_jax
from vqvae_jax.contrib.codec.commands import cheapest_labels
from vqvae_jax.contrib.codec.grids import Codec
from vqvae_jax.models.base import fingerprint

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def codec(finished_run):
    """The codec that the commands build from that run."""
    model, params = vqvae_jax.restore(finished_run)
    prior, prior_params = vqvae_jax.restore(finished_run, "prior")
    return Codec(
        grid=model.grid,
        num_codes=model.num_codes,
        fingerprint=fingerprint(model, params),
        prior=prior,
        prior_params=prior_params,
    )


@pytest.fixture(scope="module")
def codes(finished_run, tiny_images):
    model, params = vqvae_jax.restore(finished_run)
    return np.asarray(model.encode(params, tiny_images))


def read_codes(folder):
    return np.stack([np.load(f)["codes"] for f in sorted(folder.glob("*.npz"))])


def test_folders_name_the_classes_and_codes_are_restored(
    command, codec, codes, digits_file, finished_run, photos, read_images, tmp_path
):
    file, labels = tmp_path / "a.vq", np.array([3, 3, 7, 7, 7])
    found = command("compress", digits_file, photos, file)
    assert found.code == 0
    nats = codec.prior.log_prob(codec.prior_params, codes, labels=labels)
    bits = -float(np.sum(nats)) / math.log(2) + 5 * math.log2(10)
    size = file.stat().st_size
    assert bits / 8 <= size <= 1.01 * bits / 8 + 16
    assert found.out.startswith(f"{file}: 5 images in {size} bytes, {8 * size / 5:.1f}")
    assert f"(prior {bits / 5:.1f}, codes 64, pixels 512)" in found.out
    np.testing.assert_array_equal(codec.decompress(file.read_bytes()).labels, labels)

    words = ("decompress", digits_file, file)
    assert command(*words, tmp_path / "codes", "--codes").code == 0
    np.testing.assert_array_equal(read_codes(tmp_path / "codes"), codes)
    assert command(*words, tmp_path / "images", "--batch_size=2").code == 0
    model, params = vqvae_jax.restore(finished_run)
    made = read_images(tmp_path / "images")
    assert list(made) == [f"00000{number}.png" for number in range(5)]
    np.testing.assert_array_equal(
        np.stack(list(made.values())), model.decode(params, codes)[..., 0]
    )


def test_images_of_any_size_keep_it(
    command, digits_file, photos, read_images, tmp_path
):
    """Decompressed images are those of `reconstruct`, to the last bit."""
    rng = np.random.default_rng(0)
    for number, size in enumerate([(8, 8), (17, 30), (17, 30), (5, 1)]):
        pixels = rng.integers(256, size=size, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    pattern, file = str(tmp_path / "*.png"), tmp_path / "a.vq"
    found = command("compress", digits_file, pattern, file)
    assert found.code == 0
    pixels = 2 * (8 * 8 + 2 * 17 * 30 + 5)
    codes = 4 * 4 * 4 + 2 * 9 * 15 * 4 + 3 * 1 * 4
    assert f"codes {codes / 4:,.0f}, pixels {8 * pixels / 8:,.0f})" in found.out
    assert command("decompress", digits_file, file, tmp_path / "out").code == 0
    assert command("reconstruct", digits_file, pattern, tmp_path / "same").code == 0
    made, same = read_images(tmp_path / "out"), read_images(tmp_path / "same")
    for image, expected in zip(made.values(), same.values(), strict=True):
        np.testing.assert_array_equal(image, expected)
    # The cells of the model's own size, as before.
    words = ("compress", digits_file, pattern, "--resize")
    assert command(*words, tmp_path / "b.vq").code == 0
    assert (tmp_path / "b.vq").read_bytes()[2] == 1
    assert file.read_bytes()[2] == 2


def test_names_are_not_stored_and_may_be_equal(
    command, digits_file, copied_photos, tmp_path
):
    threes, sevens = copied_photos / "3", copied_photos / "7"
    (sevens / "2.png").rename(sevens / "0.png")
    pattern = str(copied_photos / "**" / "*.png")
    for number, words in enumerate([(pattern,), (threes, sevens)]):
        file, out = tmp_path / f"{number}.vq", tmp_path / str(number)
        assert command("compress", digits_file, *words, file).code == 0
        assert command("decompress", digits_file, file, out).code == 0
        assert len(list(out.glob("*.png"))) == 5


def test_label_is_the_class_of_all_images(
    command, codec, digits_file, photos, tmp_path
):
    file = tmp_path / "a.vq"
    assert command("compress", digits_file, photos, file, "--label=5").code == 0
    assert codec.decompress(file.read_bytes()).labels.tolist() == [5] * 5


def test_without_labels_the_cheapest_class_is_found(
    command, codec, codes, digits_file, photos, tmp_path
):
    """Compare with the size of one image under each class."""
    one = codes[:1]
    bits = [codec.compress(one, labels=np.array([k])).bits for k in range(10)]
    expected = [np.argmin(bits)]
    np.testing.assert_array_equal(
        cheapest_labels(codec, list(one), batch_size=2), expected
    )
    shutil.copy(photos / "3" / "0.png", tmp_path)
    file = tmp_path / "a.vq"
    assert command("compress", digits_file, tmp_path / "0.png", file).code == 0
    np.testing.assert_array_equal(codec.decompress(file.read_bytes()).labels, expected)


def test_without_a_prior_a_code_costs_log2_k_bits(
    command, nudged_file, photos, tmp_path
):
    file = tmp_path / "a.vq"
    assert command("compress", nudged_file, photos, file).code == 0
    # A header of 14 bytes, and 16 codes of 4 bits for each of 5 images.
    assert file.stat().st_size == 14 + 5 * 8
    assert command("decompress", nudged_file, file, tmp_path / "images").code == 0


def test_a_renamed_file_is_the_same_source_and_a_replaced_one_is_not(
    command, error_of, digits_file, photos, tmp_path
):
    file, out = tmp_path / "a.vq", tmp_path / "out"
    words = ("compress", digits_file, photos, file, "--label=3")
    assert command(*words).code == 0
    assert command("decompress", digits_file, file, out).code == 0
    shutil.move(file, tmp_path / "b.vq")
    again = command("decompress", digits_file, tmp_path / "b.vq", out)
    assert again.out == f"{out}: 5 files (5 existed)\n"
    command("compress", digits_file, photos / "7", file)
    line = error_of("decompress", digits_file, file, out)
    assert "holds the results of another command (file: " in line


def test_the_python_of_the_docs_runs(
    codes, finished_run, tiny_images, tmp_path, monkeypatch
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "codec.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"images": tiny_images, "labels": np.arange(5)}
    exec(compile(block, "docs/codec.md", "exec"), names)
    np.testing.assert_array_equal(names["found"].codes, codes)
    np.testing.assert_array_equal(names["found"].labels, np.arange(5))


class TestErrors:
    @pytest.fixture
    def file(self, command, digits_file, photos, tmp_path):
        file = tmp_path / "a.vq"
        assert command("compress", digits_file, photos, file).code == 0
        return file

    def test_an_existing_file_is_replaced_only_with_force(
        self, command, error_of, digits_file, file, photos
    ):
        before = file.read_bytes()
        words = ("compress", digits_file, photos / "3", file)
        assert "exists already: --force replaces it" in error_of(*words)
        assert file.read_bytes() == before
        assert command(*words, "--force").code == 0
        assert file.read_bytes() != before

    def test_an_input_is_never_replaced(self, error_of, digits_file, copied_photos):
        photo = copied_photos / "3" / "0.png"
        before = photo.read_bytes()
        line = error_of("compress", digits_file, photo, photo, "--force")
        assert "is an input and would be replaced" in line
        assert photo.read_bytes() == before

    def test_another_model_raises(self, error_of, file, nudged_file, tmp_path):
        line = error_of("decompress", nudged_file, file, tmp_path / "out")
        assert "made with a learned prior, and this model has none" in line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda data: data[:-1], "is damaged, or its end is missing"),
            (lambda data: data[:5], "is damaged, or its end is missing"),
            (lambda data: data[:-3] + b"\0" + data[-2:], "is damaged"),
            (lambda data: data + b"\0", "is damaged"),
            (lambda data: b"PK" + data[2:], "not a file of compressed codes"),
            (lambda data: b"", "not a file of compressed codes"),
        ],
        ids=["truncated", "header alone", "a byte", "longer", "other", "empty"],
    )
    def test_a_damaged_file_raises(
        self, error_of, digits_file, file, tmp_path, damage, message
    ):
        file.write_bytes(damage(file.read_bytes()))
        line = error_of("decompress", digits_file, file, tmp_path / "out")
        assert f"{file}: " in line
        assert message in line
        assert not (tmp_path / "out").exists()

    def test_a_missing_file_and_an_unknown_class_raise(
        self, error_of, digits_file, photos, tmp_path
    ):
        line = error_of("decompress", digits_file, tmp_path / "b.vq", tmp_path / "out")
        assert "b.vq does not exist" in line
        words = ("compress", digits_file, photos, tmp_path / "b.vq", "--label=x")
        assert "--label=x: the prior has the classes 0, 1, 2" in error_of(*words)
        assert not list(tmp_path.iterdir())
