"""The VQ-VAE of speech: its loss term by term, padding, speakers, decoding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import metrics, quantizers
from vqvae_jax.options import build
from vqvae_jax.quantizers import VQ
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.networks import SpeechEncoder, companded, values_of
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet

KEY = jax.random.key(0)
MODEL = SpeechVQVAE(
    speaker_names=("anna", "ben"),
    quantizer=VQ(num_codes=7, dim=3, codebook_init="uniform"),
    encoder=SpeechEncoder(downsampling=4, channels=5, residual_blocks=1),
    decoder=WaveNet(stacks=1, layers=3, channels=4, skip_channels=32),
)
T, LENGTHS = 22, np.array([22, 9, 13])


def with_quantizer(**changes):
    quantizer = dataclasses.replace(MODEL.quantizer, **changes)
    return dataclasses.replace(MODEL, quantizer=quantizer)


def make_batch(fill=0):
    rng = np.random.default_rng(0)
    audio = rng.integers(-20_000, 20_000, size=(3, T)).astype(np.int16)
    mask = np.arange(T)[None] < LENGTHS[:, None]
    audio = np.where(mask, audio, fill).astype(np.int16)
    return {
        "audio": jnp.asarray(audio),
        "mask": jnp.asarray(mask),
        "speaker": jnp.asarray([0, 1, 1], jnp.int32),
    }


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(MODEL.init, KEY, make_batch())
    rng = np.random.default_rng(1)

    def draw(leaf):
        scale = 1.0 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)

    params = jax.tree.map(draw, shapes)
    # Rows are outputs of the encoder, so that several codes are used.
    z_e = jax.jit(MODEL._encoder.apply)(
        params.encoder, companded(values_of(make_batch()["audio"]))
    )
    rows = z_e.reshape(-1, 3)[::2][:7]
    return params._replace(quantizer=quantizers.from_embeddings(rows[None]))


@functools.partial(jax.jit, static_argnums=0)
def step(model, params, key, batch):
    return jax.value_and_grad(model.loss, has_aux=True)(params, key, batch)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, params, batch):
    return model.evaluate(params, batch)


@jax.jit
def nats_of(params, audio, codes, speakers):
    """-log p(x|z) of one utterance without padding, from the networks themselves."""
    decoder = MODEL._decoder
    z_q = params.quantizer.embeddings[0][codes]
    features = decoder._context.apply(params.decoder.context, z_q[:, None])[:, 0]
    values = values_of(audio)
    logits = decoder._wavenet.apply(
        params.decoder.wavenet, values, SequenceCondition(speakers, features)
    )
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, values[..., None], axis=-1)[..., 0].sum()


@jax.jit
def z_e_of(params, audio):
    return MODEL._encoder.apply(params.encoder, companded(values_of(audio)))


def alone(batch, number):
    return batch["audio"][number : number + 1, : LENGTHS[number]]


def expected_terms(params, batch):
    """Each utterance alone, without padding; means over samples and codes."""
    nats, distances, used = 0.0, [], []
    table = np.float64(params.quantizer.embeddings[0])
    for number in range(3):
        audio = alone(batch, number)
        z_e = np.float64(z_e_of(params, audio)[0])
        squares = ((z_e[:, None] - table[None]) ** 2).sum(-1)
        codes = squares.argmin(axis=1)
        speaker = batch["speaker"][number : number + 1]
        nats += float(nats_of(params, audio, jnp.asarray(codes)[None], speaker))
        distances.append(squares.min(axis=1))
        used.append(codes)
    return nats / LENGTHS.sum(), np.concatenate(distances).mean(), used


class TestLoss:
    def test_is_equation_3_over_samples_and_codes(self, params):
        (loss, (means, carry)), _ = step(MODEL, params, KEY, make_batch())
        reconstruction, distance, used = expected_terms(params, make_batch())
        computed = metrics.compute(means)
        assert computed["reconstruction"] == pytest.approx(reconstruction, rel=1e-4)
        assert computed["codebook"] == pytest.approx(distance, rel=1e-4)
        assert computed["commitment"] == pytest.approx(distance, rel=1e-4)
        expected = reconstruction + 1.25 * distance
        assert float(loss) == pytest.approx(expected, rel=1e-4)
        counts = sum(np.bincount(codes, minlength=7) for codes in used)
        np.testing.assert_array_equal(means["usage"].counts[0], counts)
        for number, codes in enumerate(used):
            found = carry.codes[number, : len(codes), 0]
            np.testing.assert_array_equal(found, codes)

    def test_padding_changes_nothing(self, params):
        """[10] Not the loss, the gradients, the codebook or the metrics."""
        found = [step(MODEL, params, KEY, make_batch(fill)) for fill in (0, 12_345)]
        ((first, (_, carry)), gradient), ((second, (_, other)), others) = found
        assert float(first) == float(second)
        jax.tree.map(np.testing.assert_array_equal, gradient, others)
        ema = with_quantizer(codebook_update="ema")
        jax.tree.map(
            np.testing.assert_array_equal,
            ema.update(params, KEY, carry),
            ema.update(params, KEY, other),
        )
        values = [evaluate(MODEL, params, make_batch(fill)) for fill in (0, 12_345)]
        jax.tree.map(np.testing.assert_array_equal, *values)

    def test_each_loss_term_has_gradients_of_its_owner_only(self, params):
        """[1, 2] With EMA the codebook has none; the encoder gets those of z_q."""
        _, gradient = step(MODEL, params, KEY, make_batch())
        assert np.abs(gradient.quantizer.embeddings).max() > 0
        ema = with_quantizer(codebook_update="ema", beta=0.0)
        _, gradient = step(ema, params, KEY, make_batch())
        assert np.abs(gradient.quantizer.embeddings).max() == 0
        largest = max(np.abs(x).max() for x in jax.tree.leaves(gradient.encoder))
        assert largest > 0

    def test_jitter_changes_only_the_training_loss(self, params):
        noisy = dataclasses.replace(MODEL, jitter=0.5)
        losses = {
            float(step(noisy, params, key, make_batch())[0][0])
            for key in jax.random.split(KEY, 3)
        }
        assert len(losses) == 3
        found, expected = (evaluate(m, params, make_batch()) for m in (noisy, MODEL))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


class TestEvaluate:
    def test_bits_per_sample_given_own_and_moved_codes(self, params):
        """[23] Moved codes are rotated by half of each utterance's length."""
        batch = make_batch()
        values = metrics.compute(evaluate(MODEL, params, batch))
        _, _, used = expected_terms(params, batch)
        for name, move in (("", 0), ("_codes_moved", 0.5)):
            nats = 0.0
            for number, codes in enumerate(used):
                codes = np.roll(codes, -int(len(codes) * move))
                nats += float(
                    nats_of(
                        params,
                        alone(batch, number),
                        jnp.asarray(codes)[None],
                        batch["speaker"][number : number + 1],
                    )
                )
            bits = nats / LENGTHS.sum() / np.log(2)
            assert values[f"bits_per_sample{name}"] == pytest.approx(bits, rel=1e-4)

    def test_log_prob_of_given_codes(self, params):
        batch = make_batch()
        codes = jnp.asarray(np.random.default_rng(2).integers(7, size=(3, 6)))
        found = MODEL.log_prob(
            params, batch["audio"], codes, speakers=batch["speaker"], mask=batch["mask"]
        )
        for number, length in enumerate(LENGTHS):
            expected = nats_of(
                params,
                alone(batch, number),
                codes[number : number + 1, : -(-length // 4)],
                batch["speaker"][number : number + 1],
            )
            assert float(found[number]) == pytest.approx(-float(expected), rel=1e-4)


class TestCoding:
    @pytest.mark.parametrize("length", [1, 4, 21, 22])
    def test_number_of_codes_is_rounded_up(self, params, length):
        audio = make_batch()["audio"][:1, :length]
        codes = jax.jit(MODEL.encode)(params, audio)
        assert codes.shape == (1, MODEL.num_latents(length)) == (1, -(-length // 4))
        expected = MODEL.quantizer.quantize(
            params.quantizer, z_e_of(params, audio)
        ).codes
        np.testing.assert_array_equal(codes, expected[..., 0])

    @pytest.fixture
    def code_sensitive(self, params):
        """Parameters whose decoder depends strongly on its codes."""
        context = jax.tree.map(lambda x: 8 * x, params.decoder.context)
        return params._replace(decoder=params.decoder._replace(context=context))

    def test_audio_depends_on_codes_and_speaker(self, code_sensitive):
        params = code_sensitive
        codes = jnp.asarray(np.random.default_rng(2).integers(7, size=(2, 6)))
        decode = jax.jit(MODEL.decode)
        audio = decode(params, KEY, codes, speakers=jnp.array([0, 1]))
        assert audio.shape == (2, 24)
        assert audio.dtype == jnp.int16
        assert len(np.unique(audio)) > 10
        other = decode(params, KEY, codes, speakers=jnp.array([0, 0]))
        np.testing.assert_array_equal(other[0], audio[0])
        assert (other[1] != audio[1]).any()
        other = decode(
            params, KEY, (codes + jnp.array([[0], [1]])) % 7, speakers=jnp.array([0, 1])
        )
        assert (other[1] != audio[1]).any()

    def test_masked_codes_do_not_change_the_audio(self, code_sensitive):
        """As in training. A code's features otherwise depend on the next code."""
        params = code_sensitive
        codes = jnp.asarray(np.random.default_rng(2).integers(7, size=(2, 6)))
        decode = jax.jit(MODEL.decode)
        speakers, mask = jnp.array([0, 1]), jnp.arange(6)[None] < jnp.array([[6], [3]])
        drawn, again = (
            decode(params, KEY, codes, speakers=speakers, mask=mask)
            for codes in (codes, codes.at[1, 3:].add(1) % 7)
        )
        np.testing.assert_array_equal(drawn[1, :12], again[1, :12])
        without = decode(params, KEY, codes, speakers=speakers)
        assert (without[1, :12] != drawn[1, :12]).any()

    def test_top_k_1_draws_the_same_for_every_key(self, params):
        codes = jnp.asarray(np.random.default_rng(2).integers(7, size=(1, 4)))
        decode = functools.partial(
            jax.jit(MODEL.decode, static_argnames="top_k"), params
        )
        speakers = jnp.array([0])
        drawn = [
            decode(jax.random.key(seed), codes, speakers=speakers, top_k=1)
            for seed in (0, 1)
        ]
        np.testing.assert_array_equal(*drawn)

    def test_compiled_once_for_all_codes_speakers_and_temperatures(self, params):
        before = SpeechVQVAE._draw._cache_size()
        for seed in range(3):
            MODEL.decode(
                params,
                jax.random.key(seed),
                np.full((2, 3), seed),
                speakers=np.array([seed % 2, 0]),
                temperature=1.0 + seed,
            )
        assert SpeechVQVAE._draw._cache_size() == before + 1

    def test_decoding_as_an_unknown_speaker_raises(self, params):
        codes = jnp.zeros((1, 2), jnp.int32)
        with pytest.raises(UserError, match=r"numbers of anna, ben .* got -1"):
            MODEL.decode(params, KEY, codes, speakers=jnp.array([-1]))
        with pytest.raises(UserError, match=r"numbers of anna, ben .* got 2"):
            MODEL.decode(params, KEY, codes, speakers=jnp.array([2]))

    def test_speakers_closed_over_by_jit_are_checked(self, params):
        codes, ben = jnp.zeros((1, 2), jnp.int32), jnp.array([1])
        unknown = 2 * ben
        decode = jax.jit(lambda key: MODEL.decode(params, key, codes, speakers=ben))
        expected = MODEL.decode(params, KEY, codes, speakers=np.array([1]))
        np.testing.assert_array_equal(decode(KEY), expected)
        with pytest.raises(UserError, match=r"numbers of anna, ben .* got 2"):
            jax.jit(lambda key: MODEL.decode(params, key, codes, speakers=unknown))(KEY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encoder": SpeechEncoder(downsampling=14)},
            "^encoder.downsampling must be a product of 2, 3 and 5",
        ),
        ({"jitter": 1.0}, "^jitter must be >= 0 and < 1, got 1.0"),
        ({"speaker_names": ()}, "^speaker_names are empty"),
        ({"quantizer": VQ(num_codes=1)}, "^quantizer.num_codes must be >= 2, got 1"),
        ({"quantizer": VQ(num_codebooks=2)}, "^quantizer must give one code per vec"),
        (
            {"encoder": SpeechEncoder(downsampling=1)},
            "^encoder.downsampling must be >= 2, got 1",
        ),
        ({"decoder": WaveNet(layers=0)}, "^decoder.layers must be >= 1"),
        ({"decoder": WaveNet(dropout=0.1)}, "^decoder.dropout=0.1 does nothing"),
    ],
    ids=str,
)
def test_invalid_options_raise(options, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(MODEL, **options)


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_unknown_dtypes_raise(network):
    section = {network: {"dtype": "float16"}}
    message = f"^model.{network}.dtype must be one of float32, bfloat16, got 'float16'"
    with pytest.raises(UserError, match=message):
        build(SpeechVQVAE, section, name="model", speaker_names=("anna",))


@pytest.mark.slow
def test_padding_does_not_change_the_initial_codebook():
    model = with_quantizer(codebook_init="kmeans", num_codes=2)
    batch = make_batch()
    params = jax.jit(model.init)(KEY, batch)
    again = jax.jit(model.init)(KEY, make_batch(fill=30_000))
    np.testing.assert_allclose(
        params.quantizer.embeddings, again.quantizer.embeddings, rtol=1e-5, atol=1e-6
    )
