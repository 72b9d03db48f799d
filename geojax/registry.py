"""A named family of factories: the one way a plug-in is found by its configured name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from geojax.errors import ConfigError, nearest
from geojax.settings import Settings, check_values, key_names

T = TypeVar("T", bound=Callable[..., object])

AXES: dict[str, Registry] = {}
"""The registries whose members have settings of their own, by their group of the configuration."""


class Registry(Generic[T]):
    """Maps a configured name to its factory; a wrong name is refused with the nearest valid one.

    A member of an axis registers the dataclass of its keys beside its factory.

    Args:
      key: the configuration key that chooses a member, e.g. ``overlay.name``.
      base: of an axis: the dataclass of the keys that every member reads.

    >>> shapes = Registry("shape.name")
    >>> @shapes.register("square")
    ... def square(side):
    ...     return side * side
    >>> shapes["square"](3)
    9
    """

    def __init__(self, key: str, base: type[Settings] | None = None):
        self.key = key
        self.base = base or Settings
        self.group, _, self.chooser = key.rpartition(".")
        self._members: dict[str, T] = {}
        self._schemas: dict[str, type[Settings]] = {}
        if base is not None:
            AXES[self.group] = self

    def register(self, name: str, schema: type[Settings] | None = None) -> Callable[[T], T]:
        """Decorates a factory, which becomes available under ``name``.

        Args:
          name: of the member.
          schema: the dataclass of its keys, derived from the axis's; None: it has no own keys.

        Raises:
          TypeError: the dataclass is none, or does not derive from the axis's.
          ValueError: the name is taken.
        """
        if schema is not None and "__dataclass_fields__" not in vars(schema):
            raise TypeError(f"{schema.__name__}: write @dataclass above it")
        if schema is not None and not issubclass(schema, self.base):
            raise TypeError(f"{schema.__name__}: derive it from {self.base.__name__}")

        def add(factory: T) -> T:
            if name in self._members:
                fix = f"there is a {self.key.removesuffix('.name')}={name}; choose another name"
                raise ValueError(f"registered twice: {fix}")
            self._members[name] = factory
            if schema is not None:
                self._schemas[name] = schema
            return factory

        return add

    def under(self, key: str) -> Registry[T]:
        """The same members, now and later, chosen by another key: that of a second group."""
        other = Registry[T](key, self.base)
        other._members, other._schemas = self._members, self._schemas
        return other

    def schema(self, name: str | None) -> type[Settings]:
        """The dataclass of a member's keys; ``name`` None: the axis's own.

        Raises:
          ConfigError: there is no such member.
        """
        if name is None:
            return self.base
        self[name]
        return self._schemas.get(name, self.base)

    def settings(self, name: str | None, /, **keys: Any) -> Any:
        """The settings of member ``name``: its dataclass with these values.

        Raises:
          ConfigError: there is no such member, or it does not read one of the keys.
        """
        schema = self.schema(name)
        self.refuse_unread(name, keys)
        return schema(**{**keys, self.chooser: name})

    def refuse_unread(self, name: str | None, keys: Mapping[str, Any]) -> None:
        """Raises ``ConfigError`` for the first of ``keys`` that member ``name`` does not read."""
        common = key_names(self.base)
        reads = sorted(
            key_names(self.schema(name)), key=lambda key: key in common
        )  # own ones first
        for key, value in keys.items():
            if key not in reads:
                others = [other for other in self if key in key_names(self.schema(other))]
                group = self.group if self.chooser == "name" else self.key
                fix = f"no such key; {nearest(key, reads)}"
                if others:
                    fix = (
                        f"{group}={name or 'null'} does not read it; it reads: "
                        f"{', '.join(reads)}; read by {group}={' or '.join(others)}"
                    )
                raise ConfigError(f"{self.group}.{key}", value, fix)

    def complete(self, settings: Any) -> Any:
        """The same settings as its member's dataclass, whose own keys have their defaults.

        Raises:
          ConfigError: there is no such member, or it does not read one of the keys.
        """
        name = getattr(settings, self.chooser)
        schema = self.schema(name)
        return settings if isinstance(settings, schema) else self.settings(name, **vars(settings))

    def build(self, settings: Any, *arguments: Any) -> Any:
        """What the chosen member's factory makes of its settings, which are checked first.

        Raises:
          ConfigError: there is no such member, it does not read a key, or a value is wrong.
        """
        settings = self.complete(settings)
        check_values(self.group, settings)
        return self[getattr(settings, self.chooser)](settings, *arguments)

    def instead(self, settings: Any, name: str, /, **keys: Any) -> Any:
        """Settings of member ``name`` that keep from ``settings`` what both members read."""
        reads = key_names(self.schema(name))
        kept = {key: value for key, value in vars(settings).items() if key in reads}
        return self.settings(name, **{**kept, **keys})

    def __getitem__(self, name: str) -> T:
        if name not in self._members:
            raise ConfigError(self.key, name, nearest(name, self._members))
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._members))

    def __contains__(self, name: object) -> bool:
        return name in self._members
