"""Objects that are made once per process and setting, so that workers share compiled programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class _Settings:
    """Arguments that compare by what they print: configurations change, so they have no hash."""

    def __init__(self, arguments: tuple[Any, ...]):
        self.arguments = arguments
        self._printed = repr(arguments)

    def __hash__(self) -> int:
        return hash(self._printed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Settings) and self._printed == other._printed


def shared(make: Callable[[*Ts], T]) -> Callable[[*Ts], T]:
    """Decorates a function of configurations: equal ones get the same object.

    Arguments print all that they are, as dataclasses do, or are shared objects themselves.

    >>> @shared
    ... def sizes(numbers):
    ...     return [len(numbers)]
    >>> sizes([1, 2]) is sizes([1, 2]), sizes([1, 2]) is sizes([1, 3])
    (True, False)
    """
    call: Any = make

    @functools.lru_cache
    def cached(settings: _Settings) -> T:
        return call(*settings.arguments)

    return functools.wraps(make)(lambda *arguments: cached(_Settings(arguments)))
