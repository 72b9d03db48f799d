"""The benchmark of DGT runs and prints its figures."""

from commands_here import command

DGT = "experiments.bench.dgt"


def test_every_way_is_measured_beside_dense():
    done = command(DGT, "--testbed", "simulated", "--model", "synthetic", "--rounds", "3")
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in rows] == [
        "dense", "DGT, tcp, k = 0.8", "DGT, udp, k = 0.8", "DGT, udp, k = 0.8, last",
    ]  # fmt: skip
    assert float(rows[0][5]) == 1.0
    assert all(float(row[5]) >= 1.0 for row in rows[1:]), "DGT waits for less"


def test_wrong_settings_are_refused_with_their_key():
    done = command(DGT, "--testbed", "simulated", "--k", "2")
    assert done.returncode == 2
    assert "compression.k = 2.0" in done.stderr
