"""Which steps are profiled, and the profile that is written."""

import jax
import pytest
from jax.profiler import ProfileData
from line_runs import Line, make_config, make_run, read_run

from vqvae_jax.training.loop import fit
from vqvae_jax.training.profile import profiled, steps_to_profile


@pytest.mark.parametrize(
    ("num_steps", "done", "total", "expected"),
    [
        (0, 0, 100, []),
        (3, 0, 100, [11, 12, 13]),
        (3, 40, 100, [51, 52, 53]),
        # Near the end, and in a run shorter than the warm-up.
        (3, 90, 100, [98, 99, 100]),
        (3, 0, 5, [3, 4, 5]),
        (9, 0, 5, [1, 2, 3, 4, 5]),
        (3, 99, 100, [100]),
    ],
)
def test_steps_to_profile(num_steps, done, total, expected):
    assert list(steps_to_profile(num_steps, done=done, total=total)) == expected


def steps_in(directory):
    """Return the step numbers in the only profile below a directory."""
    (file,) = directory.glob("plugins/profile/*/*.xplane.pb")
    profile = ProfileData.from_file(str(file))
    return sorted(
        dict(event.stats)["step_num"]
        for plane in profile.planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    )


def test_fit_writes_a_profile_without_changing_results(tmp_path):
    for name, steps in (("with", 3), ("without", 0)):
        fit(Line(), make_config(profile_steps=steps), make_run(tmp_path / name))
    assert steps_in(tmp_path / "with" / "profile" / "line") == [11, 12, 13]
    assert not (tmp_path / "without" / "profile").exists()
    (_, params, _), (_, expected, _) = (
        read_run(tmp_path / n) for n in ("with", "without")
    )
    assert (params["w"] == expected["w"]).all()


def test_a_step_that_fails_ends_the_profile(tmp_path):
    def fails(state, batch):
        raise ArithmeticError

    with (
        pytest.raises(ArithmeticError),
        profiled(fails, tmp_path, steps=range(1, 4), done=0) as step,
    ):
        step(None, None)
    # Only one trace can be active: this one starts because the other has ended.
    with jax.profiler.trace(str(tmp_path / "other")):
        pass
