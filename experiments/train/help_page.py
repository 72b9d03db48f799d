"""What ``--help`` says alone; with more words beside it Hydra says it, in ten times the time."""

from __future__ import annotations

import textwrap

from experiments.runs.choices import CONF, listed

_BEGINS = "    template: |\n"  # ends with the file


def page() -> str:
    """The help of ``conf/config.yaml``."""
    _, _, template = (CONF / "config.yaml").read_text().partition(_BEGINS)
    return textwrap.dedent(template).replace("${geojax.choices:}", listed())
