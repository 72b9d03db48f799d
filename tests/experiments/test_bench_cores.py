"""The benchmark of cores measures runs that leave the same bytes."""

from experiments.bench import cores


def test_a_second_core_changes_no_byte(monkeypatch):
    arguments = ["--model", "mlp", "--data", "digits", "--wan", "three_centers"]
    arguments += ["--rounds", "3", "--repetitions", "1"]

    def here(given, sync, count):
        options = cores.parser().parse_args(given)
        return cores.cost(cores.configuration(options, sync, count))

    monkeypatch.setattr(cores, "in_a_process", here)
    table = cores.measure(cores.parser().parse_args(arguments), arguments)
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["cores"] == ["1", "2"]
    assert columns["same"] == ["yes", "yes"]
    assert float(columns["faster"][0]) == 1.0
