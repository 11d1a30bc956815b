"""A file that is not what it should be is refused in one line."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import vqvae_jax
from vqvae_jax.pretrained.file import File
from vqvae_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def saved(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "digits"
    return vqvae_jax.save_pretrained(finished_run, folder)


@pytest.fixture
def parts(saved):
    """The arrays and metadata of the file, to be changed."""
    with safetensors.safe_open(saved, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, dict(file.metadata())


def write(path, arrays, metadata):
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    return path


NAME = "vqvae/codebook/embeddings"


def test_names_shapes_and_json_alone(parts):
    arrays, metadata = parts
    assert arrays[NAME].shape == (1, 16, 4)
    assert {name.split("/")[0] for name in arrays} == {"vqvae", "prior"}
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    assert metadata["format"], metadata["version"] == ("vqvae_jax", "1")
    about = json.loads(metadata["about"])
    assert about["kind"] == "vqvae"
    assert about["model"]["image_shape"] == [8, 8, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop(NAME), "codebook/embeddings of shape .* is missing"),
        (lambda a: a.update({"vqvae/x": a[NAME]}), "x of shape .* is not expected"),
        (
            lambda a: a.update({NAME: a[NAME][:, :8]}),
            r"codebook/embeddings has shape \(1, 8, 4\)",
        ),
        (
            lambda a: a.update({NAME: a[NAME].astype("float16")}),
            "codebook/embeddings is of type F16, expected F32",
        ),
        (
            lambda a: a.update({NAME: a[NAME].view("int32")}),
            "codebook/embeddings is of type I32, expected F32",
        ),
        (lambda a: a.update({NAME: a[NAME] + 1}), "not those that were written"),
    ],
    ids=["missing", "surplus", "shape", "float16", "int32", "values"],
)
def test_other_arrays_are_refused(parts, tmp_path, change, message):
    arrays, metadata = parts
    change(arrays)
    path = write(tmp_path / "x.safetensors", arrays, metadata)
    with pytest.raises(UserError, match=message) as error:
        vqvae_jax.restore(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "was not written by vqvae_jax.save_pretrained"),
        ({"version": "2"}, "is of version 2; this program reads version 1"),
        ({"about": "{"}, "what it says of its model is damaged"),
        ({"about": "[]"}, "what it says of its model is damaged"),
        ({"about": "{}"}, "what it says of its model is damaged"),
        ({"sha256": "{"}, "x.safetensors: "),
        ({"sha256": "{}"}, "not those that were written"),
        ({"sha256": "[1]"}, "its checksums are damaged"),
    ],
)
def test_other_metadata_is_refused(parts, tmp_path, change, message):
    arrays, metadata = parts
    path = write(tmp_path / "x.safetensors", arrays, metadata | change)
    with pytest.raises(UserError, match=message):
        vqvae_jax.restore(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "vqgan", "it is a 'vqgan', which this version does not know"),
        ("model", {"unit": 3}, "vqvae.unit is not an option"),
        ("model", {"num_codes": 0}, "vqvae.num_codes must be at least 1"),
        ("model", {"image_shape": [8, 8]}, "vqvae.image_shape must be 3 of int"),
        ("model", {"image_shape": [8, 8, ""]}, "vqvae.image_shape must be of type int"),
        ("model", {"image_shape": [8, 0, 1]}, "vqvae.image_shape must be three sizes"),
        ("model", {"image_shape": [2**20, 2**20, 1]}, "of fewer than 2\\^31 values"),
        ("model", {"residual_blocks": 10**6}, "vqvae.residual_blocks must be at most"),
        ("models", ["video"], "what it says of its model is damaged"),
        ("second", None, "it is a None, which this version does not know"),
        ("second_options", {"class_names": [3]}, "class_names must be of type str"),
        ("codes_of", 3, "is damaged: codes_of cannot be 3"),
        ("sample_rate", "fast", "is damaged: sample_rate cannot be 'fast'"),
        ("config", {"data": 3}, "is damaged: config cannot be"),
        ("results", {"test_psnr_db": "a"}, "is damaged: results cannot be"),
    ],
)
def test_models_that_cannot_be_are_refused(parts, tmp_path, key, value, message):
    arrays, metadata = parts
    about = json.loads(metadata["about"])
    about[key] = {**about[key], **value} if isinstance(value, dict) else value
    metadata["about"] = json.dumps(about)
    with pytest.raises(UserError, match=message):
        File(write(tmp_path / "x.safetensors", arrays, metadata))


def test_truncated_files_are_refused(saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "x.safetensors"
    for length in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(
            UserError, match="is no safetensors file, damaged, or its end"
        ):
            vqvae_jax.restore(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    path = write(tmp_path / "x.safetensors", {"a": np.zeros(3)}, None)
    with pytest.raises(UserError, match="was not written by"):
        vqvae_jax.restore(path)
    (tmp_path / "notes.txt").write_text("a model")
    with pytest.raises(UserError, match=r"notes\.txt is no safetensors file"):
        vqvae_jax.restore(tmp_path / "notes.txt")
