"""The benchmark of P3 runs and prints its figures."""

from commands_here import command

P3 = "experiments.bench.p3"


def test_a_model_is_measured_without_and_with_it():
    done = command(P3, "--models", "synthetic", "--rounds", "6", "--chunk-elements", "16384")
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    assert len(rows) == 1
    name, serial, ideal, without, with_p3, gained, overlap, late = (
        cell.strip() for cell in rows[0][1:-1]
    )
    assert name == "synthetic"
    times = [float(cell.removesuffix(" s")) for cell in (ideal, with_p3, serial, without)]
    assert times == sorted(times)
    assert float(gained) > 0.9
    before, after = (float(share.rstrip("%")) for share in overlap.split(" → "))
    assert before == 0
    assert after > 50
    assert late == "0% → 0%"


def test_wrong_settings_are_refused_with_their_key():
    for wrong, key in ((["--models", "leaf"], "--models"), (["--skip", "12"], "--skip")):
        done = command(P3, *wrong)
        assert done.returncode == 2
        assert key in done.stderr
