"""The file format, and one-line errors for damaged and foreign files."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import vqvae_jax
from vqvae_jax.pretrained.file import File
from vqvae_jax.runtime.checksums import sha256_of_arrays
from vqvae_jax.runtime.errors import UserError


@pytest.fixture
def parts(digits_file):
    """The arrays and the header of the file, which tests change."""
    with safetensors.safe_open(digits_file, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, dict(file.metadata())


def write(path, arrays, header):
    path.write_bytes(safetensors.numpy.save(arrays, header))
    return path


NAME = "vqvae/quantizer/embeddings"


def test_a_file_has_named_arrays_and_json(parts):
    arrays, header = parts
    assert arrays[NAME].shape == (1, 16, 4)
    assert {name.split("/")[0] for name in arrays} == {"vqvae", "prior"}
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    assert (header["format"], header["version"]) == ("vqvae_jax", "2")
    metadata = json.loads(header["about"])
    assert metadata["kind"] == "vqvae"
    assert metadata["model"]["quantizer"]["num_codes"] == 16
    assert metadata["model"]["given"] == {"image_shape": [8, 8, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop(NAME), "quantizer/embeddings of shape .* is missing"),
        (lambda a: a.update({"vqvae/x": a[NAME]}), "x of shape .* is not expected"),
        (
            lambda a: a.update({NAME: a[NAME][:, :8]}),
            r"quantizer/embeddings has shape \(1, 8, 4\)",
        ),
        (
            lambda a: a.update({NAME: a[NAME].astype("float64")}),
            "quantizer/embeddings is of type F64, expected F32",
        ),
        (
            lambda a: a.update({NAME: a[NAME].view("int32")}),
            "quantizer/embeddings is of type I32, expected F32",
        ),
        (lambda a: a.update({NAME: a[NAME] + 1}), "arrays of the vqvae are damaged"),
        (
            lambda a: a.update({NAME: a[NAME] * np.float32("nan")}),
            "arrays of the vqvae are damaged",
        ),
    ],
    ids=["missing", "surplus", "shape", "float64", "int32", "values", "nan"],
)
def test_other_arrays_raise(parts, tmp_path, change, message):
    arrays, header = parts
    change(arrays)
    path = write(tmp_path / "x.safetensors", arrays, header)
    with pytest.raises(UserError, match=message) as error:
        vqvae_jax.restore(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_nan_behind_a_valid_hash_raises(parts, tmp_path):
    arrays, header = parts
    arrays[NAME][0, 0] = np.nan
    stage = {name[len("vqvae/") :]: x for name, x in arrays.items() if "vqvae/" in name}
    hashes = json.loads(header["sha256"]) | {"vqvae": sha256_of_arrays(stage)}
    header["sha256"] = json.dumps(hashes)
    path = write(tmp_path / "x.safetensors", arrays, header)
    match = "quantizer/embeddings has values that are NaN or infinite"
    with pytest.raises(UserError, match=match):
        vqvae_jax.restore(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "was not written by vqvae_jax.save_pretrained"),
        (
            {"version": "1"},
            r"x\.safetensors has format version '1', expected 2: read it with version "
            "0.1 of vqvae_jax$",
        ),
        (
            {"version": "3"},
            r"x\.safetensors has format version '3', expected 2: read it with another "
            "version of vqvae_jax$",
        ),
        ({"about": "{"}, "its metadata are damaged"),
        ({"about": "[]"}, "its metadata are damaged"),
        ({"about": "{}"}, "its metadata are damaged"),
        ({"sha256": "{"}, "x.safetensors: "),
        ({"sha256": "[" * 100_000}, "x.safetensors: maximum recursion depth"),
        ({"about": "[" * 100_000}, "its metadata are damaged: maximum recursion"),
        ({"sha256": "{}"}, "arrays of the vqvae are damaged; copy the file again"),
        ({"sha256": "[1]"}, "its checksums are damaged"),
    ],
)
def test_other_headers_raise(parts, tmp_path, change, message):
    arrays, header = parts
    path = write(tmp_path / "x.safetensors", arrays, header | change)
    with pytest.raises(UserError, match=message) as error:
        vqvae_jax.restore(path)
    assert "\n" not in str(error.value)


def model(**changes):
    return lambda values: values["model"].update(changes)


def quantizer(**changes):
    return lambda values: values["model"]["quantizer"].update(changes)


def given(**changes):
    return lambda values: values["model"]["given"].update(changes)


def top(**changes):
    return lambda values: values.update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (top(kind="vqgan"), "it contains the unknown model 'vqgan'"),
        (model(unit=3), "vqvae.unit is not an option"),
        (quantizer(unit=3), "vqvae.quantizer.unit is not an option"),
        (quantizer(num_codes=0), "vqvae.quantizer.num_codes must be >= 1"),
        (given(image_shape=[8, 8]), "vqvae.image_shape must be 3 of int"),
        (given(image_shape=[8, 8, ""]), "vqvae.image_shape must be of type int"),
        (given(image_shape=[8, 0, 1]), "vqvae.image_shape must be three sizes"),
        (given(image_shape=[2**20, 2**20, 1]), "with fewer than 2\\^31 values in all"),
        (
            lambda values: values["model"]["encoder"].update(residual_blocks=10**6),
            "vqvae.encoder.residual_blocks must be ",
        ),
        (lambda values: values["model"].pop("given"), "its metadata are damaged"),
        (top(models=["video"]), "its metadata are damaged"),
        (top(second_stage=None), "it contains the unknown model None"),
        (
            lambda values: values["second_options"]["given"].update(class_names=[3]),
            "class_names must be of type str",
        ),
        (
            lambda values: values["second_options"]["given"].update(code_vectors={}),
            r"code_vectors must be an array, got \{\}",
        ),
        (top(codes_of=3), "are damaged: codes_of cannot be 3"),
        (top(sample_rate="fast"), "are damaged: sample_rate cannot be 'fast'"),
        (top(config={"data": 3}), "are damaged: config cannot be"),
        (top(results={"test_psnr_db": "a"}), "are damaged: results cannot be"),
        (top(results={"test_psnr_db": 10**400}), "are damaged: results cannot be"),
        (top(sample_rate=10**400), "are damaged: sample_rate cannot be 1000"),
    ],
)
def test_invalid_metadata_raise(parts, tmp_path, change, message):
    arrays, header = parts
    values = json.loads(header["about"])
    change(values)
    header["about"] = json.dumps(values)
    with pytest.raises(UserError, match=message) as error:
        File(write(tmp_path / "x.safetensors", arrays, header))
    assert "\n" not in str(error.value)


def test_truncated_files_raise(digits_file, tmp_path):
    content = digits_file.read_bytes()
    path = tmp_path / "x.safetensors"
    for length in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(
            UserError, match="is not a safetensors file, damaged or truncated"
        ):
            vqvae_jax.restore(path)


def test_files_of_other_programs_raise(tmp_path):
    path = write(tmp_path / "x.safetensors", {"a": np.zeros(3)}, None)
    with pytest.raises(UserError, match="was not written by"):
        vqvae_jax.restore(path)
    (tmp_path / "notes.txt").write_text("a model")
    with pytest.raises(UserError, match=r"notes\.txt is not a safetensors file"):
        vqvae_jax.restore(tmp_path / "notes.txt")
