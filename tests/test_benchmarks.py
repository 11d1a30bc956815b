"""Every benchmark on tiny sizes; the tests check the output, not the run time."""

import json

import jax
import pytest
from PIL import Image

# benchmarks.wavenet imports it.
pytest.importorskip("vqvae_jax.tasks.speech")
# benchmarks.codec imports it.
pytest.importorskip("vqvae_jax.contrib.codec")

from benchmarks import (
    command,
    paper_model,
    peers,
    pipeline,
    run,
    startup,
    timing,
    training,
)
from benchmarks.paper_model import TINY
from benchmarks.report import Outcome, Row, Table


@pytest.fixture
def measured(monkeypatch, tmp_path, capsys):
    """A function that runs a benchmark; returns its tables as JSON and its output."""
    monkeypatch.setattr(peers, "are_installed", lambda *modules: not modules)
    monkeypatch.setenv("COLUMNS", "200")

    def measure(name):
        output = tmp_path / "report.json"
        arguments = [name, "--quick", "--rounds", "2", "--json", str(output)]
        command.main("", run.BENCHMARKS, arguments)
        tables = json.loads(output.read_text())["benchmarks"][name]["tables"]
        return tables, capsys.readouterr().out

    return measure


def by_name(rows):
    return {row["name"]: row for row in rows}


def test_training(measured):
    (table,), printed = measured("training")
    rows = by_name(table["rows"])
    peers = [row for name, row in rows.items() if name.startswith("PyTorch")]
    assert [row["note"] for row in peers] == ["not installed"] * 5
    assert printed.count("not installed") == 5
    product = rows["matrix product float32"]
    rate = 2 * 64**3 / product["median_seconds"] / 1e9
    assert product["gflop_per_second"] == pytest.approx(rate)
    copied = rows["copy"]
    speed = 8 * 64 / copied["median_seconds"] / 1e9
    assert copied["gigabyte_per_second"] == pytest.approx(speed)
    ours = rows["vqvae_jax float32"]
    # A lower bound: Adam reads and writes parameters, gradients and two moments.
    assert ours["gigabyte_per_second"] * ours["median_seconds"] * 1e9 > 7 * 4 * 10_000
    assert ours["images_per_second"] == pytest.approx(4 / ours["median_seconds"])
    share = ours["gflop_per_second"] / rate
    assert ours["share_of_matrix_product"] == pytest.approx(share)
    outcomes = by_name(table["outcomes"])
    assert list(outcomes) == [
        f"vqvae_jax {dtype}, share of the matrix product's rate"
        for dtype in ("float32", "bfloat16")
    ]


def test_failing_peer_is_noted(monkeypatch):
    """torch.compile fails if it does not support the compiler."""

    def step():
        raise RuntimeError("no compiler\nand a long trace")

    monkeypatch.setattr(peers, "are_installed", lambda *modules: True)
    monkeypatch.setattr(peers, "can_compile", lambda: False)
    monkeypatch.setattr(peers, "attribute", lambda *_: lambda *_, **__: step)
    ours = paper_model.Step(lambda: None, 1.0)
    monkeypatch.setattr(paper_model, "training_step", lambda *_, **__: ours)
    (table,) = training.measure(training.TINY, 1)
    notes = {row.name: row.note for row in table.rows if row.note}
    assert notes["PyTorch eager"] == "failed: no compiler"
    assert notes["PyTorch compile"] == "no C++ compiler"


def test_are_installed_requires_all_modules():
    assert peers.are_installed("json", "numpy")
    assert not peers.are_installed("json", "a_missing_package")


def test_quantizers(measured):
    (table, member), _ = measured("quantizers")
    assert table["title"] == "Quantizer, N = 64, D = 8, K = 8"
    assert member["title"] == "fsq, N = 64, D = 8"
    assert by_name(member["rows"])["vqvae_jax"]["median_seconds"] > 0
    rows = by_name(table["rows"])
    assert rows["dm-haiku"]["note"] == "not installed"
    assert rows["vector-quantize-pytorch"]["note"] == "not installed"
    ours = rows["vqvae_jax"]
    speed = 64e-6 / ours["median_seconds"]
    assert ours["million_vectors_per_second"] == pytest.approx(speed)


def test_sampling(measured):
    (times, memory), _ = measured("sampling")
    rows = by_name(times["rows"])
    assert list(rows) == [
        "cached, batch 1",
        "cached, batch 2",
        "naive, batch 2, one code x 16",
    ]
    ours = rows["cached, batch 2"]
    assert ours["samples_per_second"] == pytest.approx(2 / ours["median_seconds"])
    # Memory grows with the rows of the grid, not with its cells.
    small, large = (row["temporary_mebibytes"] for row in memory["rows"])
    assert 0 < small < large < 3 * small


def test_wavenet(measured):
    (table,), _ = measured("wavenet")
    assert table["title"].endswith(f"receptive field {1 + 2 * (1 + 2 + 4)}")
    rows = by_name(table["rows"])
    assert [*rows][:3] == [
        "queued, batch 1, length 100",
        "queued, batch 2, length 100",
        "queued, batch 1, length 200",
    ]
    longest = rows["queued, batch 1, length 200"]
    speed = 200 / longest["median_seconds"]
    assert longest["samples_per_second"] == pytest.approx(speed)


def test_pipeline(measured):
    (reading, training), _ = measured("pipeline")
    rows = by_name(reading["rows"])
    speed = 2 * 8 / rows["decoding"]["median_seconds"]
    assert rows["decoding"]["images_per_second"] == pytest.approx(speed)
    # Steps 2 to 5 of six: the first one compiles, and the last one has no end time.
    assert by_name(training["rows"])["step"]["rounds"] == 4
    (outcome,) = training["outcomes"]
    assert 0 < outcome["median"] < 1


def test_pipeline_without_data(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (table,) = pipeline.measure(pipeline.Sizes(), 1)
    (row,) = table.rows
    assert row.note == "cifar10 is not prepared in TFDS_DATA_DIR"


@pytest.mark.slow
def test_growth(measured):
    tables, printed = measured("growth")
    assert [[row["size"] for row in table["rows"]] for table in tables] == [
        [2, 4],
        [64, 256],
        [4, 16],
        [512, 1024],
    ]
    for table in tables:
        (outcome,) = table["outcomes"]
        assert outcome["is_reached"] == (outcome["median"] <= 1.05)
        assert f"{outcome['name']}: " in printed


def test_startup(measured, monkeypatch, tmp_path):
    """A script that prints the output of a training run replaces launch.py."""
    script = 'print("vqvae", "vqvae 1/1: loss 2, 3 examples/s", sep="\\n")'
    (tmp_path / "launch.py").write_text(script)
    monkeypatch.setattr(startup, "ROOT", tmp_path)
    (table,), printed = measured("startup")
    rows = [(row["name"], row["rounds"]) for row in table["rows"]]
    assert rows == [("cold", 1), ("warm", 2)]
    assert "seconds to the first step, warm" in printed


def test_startup_of_a_failing_command(monkeypatch, tmp_path):
    (tmp_path / "launch.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(startup, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match="exited with status 3 before its first"):
        startup.first_step((), tmp_path / "run", tmp_path)


@pytest.mark.slow
def test_startup_of_the_real_command(measured):
    (table,), _ = measured("startup")
    assert [row["rounds"] for row in table["rows"]] == [1, 2]


def test_exponents_of_power_laws():
    sizes = [1, 2, 5]
    seconds = [[3.0 * s**1.5, 0.1 * s] for s in sizes]
    assert timing.exponents(sizes, seconds) == pytest.approx([1.5, 1.0])


def test_turns_and_ratios():
    called = []
    runs = {name: lambda name=name: called.append(name) for name in "ab"}
    seconds = timing.in_turns(runs, 2, warm_up=1)
    assert called == ["a", "b", "a", "b", "a", "b"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert timing.ratios([6.0, 2.0], [2.0, 4.0]) == [3.0, 0.5]
    assert timing.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("outcome", "reached"),
    [
        (Outcome("speed", [1.0, 2.0, 3.0], 2.0), True),
        (Outcome("speed", [1.0, 1.9, 3.0], 2.0), False),
        (Outcome("wait", [0.1], 0.2, at_most=True), True),
        (Outcome("wait", [0.3], 0.2, at_most=True), False),
        (Outcome("size", [1.0]), None),
    ],
)
def test_goals(outcome, reached):
    assert outcome.is_reached is reached


def example(sizes, rounds):
    rows = [
        Row("ours", [0.5] * rounds, {"channels": sizes.channels}),
        Row("a", note="gone"),
    ]
    return [Table("Example", rows, [Outcome("speed", [3.0], 2.0)])]


def test_command_line(tmp_path, capsys):
    """Overrides sizes; writes tables, JSON and a plot."""
    benchmark = command.Benchmark("example", example, TINY, TINY, 3)
    output, picture = tmp_path / "report.json", tmp_path / "figure.png"
    command.main(
        "",
        [benchmark],
        ["--set", "channels=5", f"--json={output}", f"--figure={picture}"],
    )
    report = json.loads(output.read_text())
    (table,) = report["benchmarks"]["example"]["tables"]
    assert report["benchmarks"]["example"]["sizes"]["channels"] == 5
    assert table["rows"][0]["channels"] == 5
    assert table["rows"][0]["rounds"] == 3
    assert table["rows"][1] == {"name": "a", "rounds": 0, "note": "gone"}
    assert report["machine"]["versions"]["jax"] == jax.__version__
    assert "speed: 3, goal at least 2: reached" in capsys.readouterr().out
    with Image.open(picture) as image:
        assert image.width > 500


def test_unknown_benchmark(capsys):
    with pytest.raises(SystemExit):
        command.main("", run.BENCHMARKS, ["trainning"])
    message = "unknown benchmark trainning; choose from startup"
    assert message in capsys.readouterr().err


def test_codec(measured):
    """Peers take no more bytes, or are no further from the photo."""
    tables, _ = measured("codec")
    assert len(tables) == 2
    for table in tables:
        ours, *others = table["rows"]
        assert len(others) == 6
        assert ours["bits_per_pixel"] == pytest.approx(8 * ours["bytes"] / 24**2)
        for row in others:
            if "no more bytes: quality" in row["name"]:
                assert row["bytes"] <= ours["bytes"]
            elif "no less PSNR: quality" in row["name"]:
                assert row["psnr_db"] >= ours["psnr_db"]
