"""Made-up run directories for the tests of tables."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from omegaconf import OmegaConf

from experiments.runs import schema
from geojax.axes import from_dict
from geojax.config import RunConfig


def config_of(settings: dict[str, Any]) -> RunConfig:
    """A configuration from dotted keys, e.g. ``{"sync.name": "fsa"}``."""
    nested = OmegaConf.create()
    for key, value in settings.items():
        OmegaConf.update(nested, key, value)
    values = OmegaConf.to_container(nested)
    assert isinstance(values, dict)
    return from_dict({str(key): value for key, value in values.items()})


def write_run(run_dir: pathlib.Path, settings: dict[str, Any], **summary: Any) -> None:
    """Writes ``config.yaml`` and ``summary.json`` as a run would have left them."""
    run_dir.mkdir(parents=True)
    schema.save(config_of(settings), run_dir / "config.yaml")
    (run_dir / "summary.json").write_text(json.dumps({"status": "finished"} | summary))
