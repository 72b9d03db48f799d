"""One run, or with ``-m`` a sweep: ``python -m experiments.train experiment=NAME key=value ...``.

Composes the configuration with Hydra, validates it, and runs each job in a fresh child process
(:mod:`experiments.train.job`). This process never imports JAX, and loads Hydra only for what has
no wrong word in it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from geojax.errors import GeojaxError, telling_of_machine
from geojax.machine.collector import collect_seldom

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(composed: DictConfig) -> bool:
    """One job of this invocation; True when its run is finished, now or before."""
    from experiments.train import invocation

    return invocation.job(composed)


def main() -> None:
    """The command: exits with 0, 1 when a run failed, 2 when the configuration is wrong."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        from experiments.train.help_page import page

        print(page())
        return
    collect_seldom()

    from experiments.train.command_line import prepare, refused

    try:
        sys.argv[1:] = prepare(sys.argv[1:])
        _compose()
    except GeojaxError as error:
        sys.exit(refused(error))
    except _of_hydra() as error:
        sys.exit(refused(error))


def _compose() -> None:
    """Lets Hydra compose what the command line asks for, and call :func:`job`."""
    import hydra

    from experiments.runs.choices import CONF
    from experiments.train import children

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we explain in one line
    try:
        with telling_of_machine(), children.stoppable():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except children.Stopped as stopped:
        print("stopped; resume=true goes on from here", file=sys.stderr)
        sys.exit(128 + stopped.number)


def _of_hydra() -> tuple[type[Exception], ...]:
    """What Hydra and OmegaConf raise; evaluated only when something was raised."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return HydraException, OmegaConfBaseException


if __name__ == "__main__":
    main()
