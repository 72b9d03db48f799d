"""What ``--help`` says alone. With more words beside it Hydra says the same, in ten times the time.

A test compares the two.
"""

from __future__ import annotations

import os
import sys
import textwrap

from experiments.runs.choices import CONF, listed

_BEGINS = "    template: |\n"  # in ``conf/config.yaml``, which ends with it
_FLAGS = """\
--help,-h : Application's help
--hydra-help : Hydra's help
--version : Show Hydra's version and exit
--cfg,-c : Show config instead of running [job|hydra|all]
--resolve : Used in conjunction with --cfg, resolve config interpolations before printing.
--package,-p : Config package to show
--run,-r : Run a job
--multirun,-m : Run multiple jobs with the configured launcher and sweeper
--shell-completion,-sc : Install or Uninstall shell completion:
    Bash - Install:
    eval "$({command} -sc install=bash)"
    Bash - Uninstall:
    eval "$({command} -sc uninstall=bash)"

    Fish - Install:
    {command} -sc install=fish | source
    Fish - Uninstall:
    {command} -sc uninstall=fish | source

    Zsh - Install:
    Zsh is compatible with the Bash shell completion, see the [documentation]\
(https://hydra.cc/docs/1.2/tutorials/basic/running_your_app/tab_completion#zsh-instructions) \
for details.
    eval "$({command} -sc install=bash)"
    Zsh - Uninstall:
    eval "$({command} -sc uninstall=bash)"

--config-path,-cp : Overrides the config_path specified in hydra.main().
                    The config_path is absolute or relative to the Python file declaring \
@hydra.main()
--config-name,-cn : Overrides the config_name specified in hydra.main()
--config-dir,-cd : Adds an additional config dir to the config search path
--experimental-rerun : Rerun a job from a previous config pickle
--info,-i : Print Hydra information [all|config|defaults|defaults-tree|plugins|searchpath]
Overrides : Any key=value arguments to override config values \
(use dots for.nested=overrides)"""


def page() -> str:
    """The help of ``conf/config.yaml``, for the command that this process is."""
    _, _, template = (CONF / "config.yaml").read_text().partition(_BEGINS)
    name = sys.argv[0]
    command = f"python {name}" if name.endswith(".py") else os.path.basename(name)
    text = textwrap.dedent(template).replace("${geojax.choices:}", listed())
    return text.replace("$FLAGS_HELP", _FLAGS.format(command=command))
