"""compress and decompress: the codes bit for bit, at the prior's own cost."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.cli.compression import cheapest_labels
from vqvae_jax.contrib.codec import Codec
from vqvae_jax.workdir import fingerprint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def codec(finished_run):
    """What the command builds from that run."""
    (model, params), (prior, prior_params) = (
        vqvae_jax.restore(finished_run),
        vqvae_jax.restore_prior(finished_run),
    )
    return Codec(
        grid=model.grid,
        num_codes=model.num_codes,
        fingerprint=fingerprint(params),
        prior=prior,
        prior_params=prior_params,
    )


@pytest.fixture(scope="module")
def codes(finished_run, images):
    model, params = vqvae_jax.restore(finished_run)
    return np.asarray(model.encode(params, images))


def decoded_codes(folder):
    return np.stack([np.load(f)["codes"] for f in sorted(folder.glob("*.npz"))])


def test_folders_name_the_classes_and_codes_come_back(
    command, codec, codes, digits, finished_run, photos, read_images, tmp_path
):
    file, labels = tmp_path / "a.vq", np.array([3, 3, 7, 7, 7])
    found = command("compress", digits, photos, file)
    assert found.code == 0
    nats = codec.prior.log_prob(codec.prior_params, codes, labels=labels)
    own = -float(np.sum(nats)) / math.log(2) + 5 * math.log2(10)
    size = file.stat().st_size
    assert own / 8 <= size <= 1.01 * own / 8 + 16
    assert found.out.startswith(f"{file}: 5 images in {size} bytes, {8 * size / 5:.1f}")
    assert f"(prior {own / 5:.1f}, codes 64, pixels 512)" in found.out
    np.testing.assert_array_equal(codec.decompress(file.read_bytes()).labels, labels)

    words = ("decompress", digits, file)
    assert command(*words, tmp_path / "codes", "--codes").code == 0
    np.testing.assert_array_equal(decoded_codes(tmp_path / "codes"), codes)
    assert command(*words, tmp_path / "images", "--batch_size=2").code == 0
    model, params = vqvae_jax.restore(finished_run)
    made = read_images(tmp_path / "images")
    assert list(made) == [f"00000{number}.png" for number in range(5)]
    np.testing.assert_array_equal(
        np.stack(list(made.values())), model.decode(params, codes)[..., 0]
    )


def test_names_are_not_kept_and_may_be_the_same(command, digits, own_photos, tmp_path):
    threes, sevens = own_photos / "3", own_photos / "7"
    (sevens / "2.png").rename(sevens / "0.png")
    pattern = str(own_photos / "**" / "*.png")
    for number, words in enumerate([(pattern,), (threes, sevens)]):
        file = tmp_path / f"{number}.vq"
        assert command("compress", digits, *words, file).code == 0
        assert command("decompress", digits, file, tmp_path / str(number)).code == 0
        assert len(list((tmp_path / str(number)).glob("*.png"))) == 5


def test_one_label_for_all(command, codec, digits, photos, tmp_path):
    file = tmp_path / "a.vq"
    assert command("compress", digits, photos, file, "--label=5").code == 0
    assert codec.decompress(file.read_bytes()).labels.tolist() == [5] * 5


def test_where_nothing_names_a_class_the_cheapest_is_found(
    command, codec, codes, digits, photos, tmp_path
):
    """Against files of one image under each class."""
    one = codes[:1]
    bits = [codec.compress(one, labels=np.array([k])).bits for k in range(10)]
    expected = [np.argmin(bits)]
    np.testing.assert_array_equal(cheapest_labels(codec, one, batch_size=2), expected)
    shutil.copy(photos / "3" / "0.png", tmp_path)
    file = tmp_path / "a.vq"
    assert command("compress", digits, tmp_path / "0.png", file).code == 0
    np.testing.assert_array_equal(codec.decompress(file.read_bytes()).labels, expected)


def test_without_a_prior_a_code_has_log2_k_bits(command, other, photos, tmp_path):
    file = tmp_path / "a.vq"
    assert command("compress", other, photos, file).code == 0
    # 16 codes of 4 bits for each of 5 images, 14 bytes before them.
    assert file.stat().st_size == 14 + 5 * 8
    assert command("decompress", other, file, tmp_path / "images").code == 0


def test_another_file_at_the_same_place_is_another_source(
    command, refused, digits, photos, tmp_path
):
    file, out = tmp_path / "a.vq", tmp_path / "out"
    words = ("compress", digits, photos, file, "--label=3")
    assert command(*words).code == 0
    assert command("decompress", digits, file, out).code == 0
    shutil.move(file, tmp_path / "b.vq")
    again = command("decompress", digits, tmp_path / "b.vq", out)
    assert again.out == f"{out}: 5 files (5 were there already)\n"
    command("compress", digits, photos / "7", file)
    said = refused("decompress", digits, file, out)
    assert "holds the results of another command (file: " in said


def test_the_python_of_the_docs_runs(
    codes, finished_run, images, tmp_path, monkeypatch
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "codec.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"images": images, "labels": np.arange(5)}
    exec(compile(block, "docs/codec.md", "exec"), names)
    np.testing.assert_array_equal(names["codes"], codes)
    np.testing.assert_array_equal(names["labels"], np.arange(5))


class TestRefused:
    @pytest.fixture
    def file(self, command, digits, photos, tmp_path):
        file = tmp_path / "a.vq"
        assert command("compress", digits, photos, file).code == 0
        return file

    def test_a_file_that_is_there(self, command, refused, digits, file, photos):
        before = file.read_bytes()
        words = ("compress", digits, photos / "3", file)
        assert "exists already: --force replaces it" in refused(*words)
        assert file.read_bytes() == before
        assert command(*words, "--force").code == 0
        assert file.read_bytes() != before

    def test_a_photo_is_not_replaced_by_its_codes(self, refused, digits, own_photos):
        photo = own_photos / "3" / "0.png"
        before = photo.read_bytes()
        said = refused("compress", digits, photo, photo, "--force")
        assert "would be replaced by what is made of it" in said
        assert photo.read_bytes() == before

    def test_another_model(self, refused, file, other, tmp_path):
        said = refused("decompress", other, file, tmp_path / "out")
        assert "made with a learned prior, and this model has none" in said
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda data: data[:-1], "is damaged, or its end is missing"),
            (lambda data: data[:5], "is damaged, or its end is missing"),
            (lambda data: data[:-3] + b"\0" + data[-2:], "is damaged"),
            (lambda data: data + b"\0", "is damaged"),
            (lambda data: b"PK" + data[2:], "is no file of compressed codes"),
            (lambda data: b"", "is no file of compressed codes"),
        ],
        ids=["truncated", "header alone", "a byte", "longer", "other", "empty"],
    )
    def test_damage(self, refused, digits, file, tmp_path, damage, message):
        file.write_bytes(damage(file.read_bytes()))
        said = refused("decompress", digits, file, tmp_path / "out")
        assert f"{file}: " in said
        assert message in said
        assert not (tmp_path / "out").exists()

    def test_what_is_not_there(self, refused, digits, photos, tmp_path):
        said = refused("decompress", digits, tmp_path / "b.vq", tmp_path / "out")
        assert "b.vq cannot be read: No such file" in said
        said = refused("compress", digits, photos, tmp_path / "b.vq", "--label=x")
        assert "--label=x: the prior knows the classes 0, 1, 2" in said
        assert not list(tmp_path.iterdir())
