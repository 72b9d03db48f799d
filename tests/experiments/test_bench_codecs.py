"""The benchmark of the codecs runs and prints its figures."""

import sys

import pytest

from experiments.bench import codecs


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["codecs", *arguments])
    codecs.main()


def test_a_small_vector_is_measured(monkeypatch, capsys):
    run(monkeypatch, "--elements", "200000", "--repeats", "1")
    printed = capsys.readouterr().out
    assert "Codecs, 200,000 elements, one core" in printed
    names = ("fp16", "bf16", "int8", "int4", "bisparse", "mpq", "twobit", "e3m0", "dgt")
    for name in (*names, "jitted kernel", "a plain copy", "top-k by sort"):
        assert name in printed
    assert "400,000" in printed  # bytes of fp16, whatever the speed
    assert "x faster" in printed


def test_a_vector_too_small_for_its_layers_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--elements", "1000")
    assert "take more than 1000" in capsys.readouterr().err
