"""Every error that geojax raises on purpose.

::

    GeojaxError
    ├── ConfigError          a setting is wrong; names the key, the value and the fix
    ├── DataError            a data set is missing, damaged or too small for the run
    ├── WireError
    │   ├── FrameError       bytes that are no valid frame (magic, version, length, checksum)
    │   └── Refused          a message that its receiver may not believe
    ├── MembershipError
    │   ├── Expelled         this node was declared dead by the scheduler
    │   └── SchedulerLost    the scheduler did not answer in time
    ├── WaitTimeout          a wait ended without what it waited for; names from whom
    ├── ReplicaDeviation     a center's parameters differ from its peers'
    └── Diverged             a loss or a gradient is no longer finite
"""

from __future__ import annotations

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


class GeojaxError(Exception):
    """Base of all errors raised on purpose by geojax and its testbed."""


class ConfigError(GeojaxError):
    """A setting is wrong.

    Args:
      key: the full configuration key, e.g. ``wan.links[2].rate``.
      value: the value that was given.
      fix: what to write instead, as one clause.
    """

    def __init__(self, key: str, value: object, fix: str):
        self.key, self.value, self.fix = key, value, fix
        super().__init__(f"{key} = {value!r}: {fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.fix), self.__dict__


class DataError(GeojaxError):
    """A data set is missing, damaged or too small for what was asked of it."""


class WireError(GeojaxError):
    """Base of the errors of the wire."""


class FrameError(WireError):
    """Bytes that are no valid frame; the connection they came from is closed."""


class Refused(WireError):
    """A message that its receiver may not believe: it is logged with its sender and dropped."""


class MachineError(GeojaxError):
    """The machine refused something: a full disk, a folder that may not be written."""


_FIXES = {
    errno.ENOSPC: "free some space; resume=true goes on with a broken run",
    errno.EDQUOT: "free some space; resume=true goes on with a broken run",
    errno.EROFS: "choose a folder that may be written",
    errno.EACCES: "choose a folder that may be read and written",
    errno.EPERM: "choose a folder that may be read and written",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has no more files to open",
    errno.ENOMEM: "free some memory, or use a smaller model",
}


@contextlib.contextmanager
def telling_of_machine() -> Iterator[None]:
    """Turns an ``OSError`` that is a condition of the machine into a ``MachineError``.

    Raises:
      MachineError: names the file, what was refused, and the fix.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FIXES:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        raise MachineError(f"{where}{error.strerror}; {_FIXES[error.errno]}") from error


class MembershipError(GeojaxError):
    """Base of the errors of membership.

    Attributes:
      may_return: whether the node may begin anew and ask to come back.
    """

    may_return = True


class Expelled(MembershipError):
    """The scheduler declared this node dead and the run went on without it.

    Args:
      text: why.
      may_return: whether the node may begin anew and ask to come back.
    """

    def __init__(self, text: str, *, may_return: bool):
        super().__init__(text)
        self.may_return = may_return


class SchedulerLost(MembershipError):
    """The scheduler did not answer within its timeout."""


class WaitTimeout(GeojaxError):
    """A wait ended without what it waited for."""


class ReplicaDeviation(GeojaxError):
    """A center's parameters differ from those of the other centers."""


class Diverged(GeojaxError):
    """A loss or a gradient is no longer finite, so training cannot go on.

    Args:
      text: what happened, and what to do.
      layers: names of the layers that are not finite, where they are known.
    """

    def __init__(self, text: str, layers: Sequence[str] = ()):
        super().__init__(text)
        self.layers = tuple(layers)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Says which valid names there are, the most similar one first.

    >>> nearest("sgdd", ["adam", "sgd"])
    "did you mean 'sgd'? valid: adam, sgd"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid: {', '.join(names)}"
