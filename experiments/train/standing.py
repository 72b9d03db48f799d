"""How far a sweep is, told by whichever of its processes ends a job.

Kept in the folder in which the sweep's jobs register (:mod:`experiments.train.children`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from experiments.train import children

_JOBS, _DONE, _TOLD = "jobs", "done-", "told-"


def count_jobs(overrides: Sequence[str]) -> int | None:
    """The jobs of a sweep over all combinations; None where only Hydra knows what matches.

    >>> count_jobs(["seed=0,1,2", "overlay=star,ring", "lr=0.1"])
    6
    """
    # Slow to load, and jobs, which have this module too, count none.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    if any(isinstance(override.value(), Glob) for override in parsed):
        return None
    return len(BasicSweeper.split_arguments(parsed, None)[0])


def begin(jobs: int | None) -> None:
    """The sweep begins now; None: nobody knows how many jobs it has."""
    folder = children.folder()
    if folder:
        (folder / _JOBS).write_text("" if jobs is None else str(jobs))


def jobs() -> int | None:
    """How many jobs this sweep has; None where nobody knows, or where there is none."""
    folder = children.folder()
    kept = None if folder is None else folder / _JOBS
    return int(kept.read_text() or 0) or None if kept is not None and kept.exists() else None


def ended(number: int) -> str:
    """Notes the end of a job, however it ended.

    Args:
      number: of the job, from 0.

    Returns:
      What there is to tell: jobs done of all jobs, and how long the others may take, at the pace
      of those that ran so far, neither refused nor finished before. Empty outside a sweep.
    """
    folder = children.folder()
    if folder is None or not (folder / _JOBS).exists():
        return ""
    (folder / f"{_DONE}{number}").touch()
    done, ran = (len(list(folder.glob(f"{kind}*"))) for kind in (_DONE, children.RAN))
    jobs = (folder / _JOBS).read_text()
    if not jobs:
        return f"{done} jobs done"
    spent, left = time.time() - (folder / _JOBS).stat().st_mtime, int(jobs) - done
    told = f"{done}/{jobs} jobs done"
    return f"{told}, about {duration(spent / ran * left)} left" if ran and left > 0 else told


def first_to_tell(text: str) -> bool:
    """Whether no job of this sweep has told this yet; True outside a sweep."""
    folder = children.folder()
    if folder is None:
        return True
    try:
        (folder / f"{_TOLD}{hashlib.blake2s(text.encode()).hexdigest()}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def duration(seconds: float) -> str:
    """A time as one says it.

    >>> duration(40.2), duration(600), duration(3 * 3600 + 300)
    ('40 s', '10 min', '3 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
