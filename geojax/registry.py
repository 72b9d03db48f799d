"""A named family of factories: the one way a plug-in is found by its configured name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from geojax.errors import ConfigError, nearest

T = TypeVar("T", bound=Callable[..., object])


class Registry(Generic[T]):
    """Maps a configured name to its factory; a wrong name is refused with the nearest valid one.

    Args:
      key: the configuration key that chooses a member, e.g. ``overlay.name``.

    >>> shapes = Registry("shape.name")
    >>> @shapes.register("square")
    ... def square(side):
    ...     return side * side
    >>> shapes["square"](3)
    9
    """

    def __init__(self, key: str):
        self.key = key
        self._members: dict[str, T] = {}
        self._schemas: dict[str, type] = {}

    def register(self, name: str, schema: type | None = None) -> Callable[[T], T]:
        """Decorates a factory, which becomes available under ``name``.

        Args:
          name: of the member.
          schema: the dataclass of its keys, derived from the axis's; None: it has no own keys.
        """

        def add(factory: T) -> T:
            if name in self._members:
                raise ValueError(f"{self.key}: {name!r} is registered twice")
            self._members[name] = factory
            if schema is not None:
                self._schemas[name] = schema
            return factory

        return add

    def complete(self, settings: Any) -> Any:
        """The same settings as its member's dataclass, whose own keys have their defaults."""
        schema = self._schemas.get(settings.name, type(settings))
        return settings if isinstance(settings, schema) else schema(**vars(settings))

    def __getitem__(self, name: str) -> T:
        if name not in self._members:
            raise ConfigError(self.key, name, nearest(name, self._members))
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._members))

    def __contains__(self, name: object) -> bool:
        return name in self._members
