"""Small value objects that are named, compared and saved: the base of every plug-in family.

Schedules, criteria, patterns and allocations are frozen dataclasses of plain values. A *family* is
a direct subclass of `Configurable`; each class below a family is registered under its class name
the moment it is defined, so a user's own subclass can be saved and loaded like a built-in one as
long as its module has been imported. No TensorFlow here.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import re
from typing import Any, ClassVar, Self

from tfprune.errors import InvalidArgumentError, InvalidTypeError


class Configurable(abc.ABC):
    """Base class of the families; gives `get_config`, `from_config`, `serialize` and `get`.

    Example:
        >>> from tfprune.schedules import ConstantSparsity, Schedule
        >>> saved = ConstantSparsity(0.5).serialize()
        >>> saved["class_name"]
        'ConstantSparsity'
        >>> Schedule.get(saved) == ConstantSparsity(0.5)
        True
    """

    registry: ClassVar[dict[str, type]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Configurable in cls.__bases__:
            cls.registry = {}
            return
        known = cls.registry.get(cls.__name__)
        same_source = known is not None and (known.__module__, known.__qualname__) == (
            cls.__module__,
            cls.__qualname__,
        )
        # A notebook cell that runs twice defines its class again: the newer one wins.
        if known is not None and not same_source:
            raise InvalidArgumentError(
                f"A {cls.family()} named {cls.__name__!r} exists already, in {known.__module__}. "
                "Choose another class name."
            )
        cls.registry[cls.__name__] = cls

    @classmethod
    def family(cls) -> str:
        """Name of the family in lower case, as used in error messages."""
        base = next(c for c in cls.__mro__ if Configurable in c.__bases__)
        return base.__name__.lower()

    @classmethod
    def name(cls) -> str:
        """The snake-case name under which strings refer to this class."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments as plain, JSON-serializable values."""
        if not dataclasses.is_dataclass(self):
            raise InvalidTypeError(
                f"{type(self).__name__} cannot be saved: make it a frozen dataclass, or define "
                "`get_config()` returning its constructor arguments."
            )
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.init
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuild the object from `get_config()`; the given dict is left as it is."""
        return cls(**{key: _revived(value) for key, value in config.items()})

    def serialize(self) -> dict[str, Any]:
        """Return `{"family", "class_name", "config"}`, which `get` turns back into the object."""
        return {
            "family": self.family(),
            "class_name": type(self).__name__,
            "config": self.get_config(),
        }

    @classmethod
    def get(cls, identifier: Any) -> Any:
        """Turn a name, a serialized dict or an object into an object of this family.

        Raises:
            InvalidArgumentError: if the name is unknown.
            InvalidTypeError: if the value is neither of the three.
        """
        if isinstance(identifier, cls):
            return identifier
        if isinstance(identifier, str):
            return cls._class_named(identifier)._default()
        if isinstance(identifier, dict) and {"class_name", "config"} <= set(identifier):
            return cls._class_named(identifier["class_name"]).from_config(identifier["config"])
        raise InvalidTypeError(
            f"`{cls.family()}` must be one of {cls._known_names()}, or a "
            f"`{cls.family().capitalize()}` object. Received: {identifier!r}"
        )

    @classmethod
    def _default(cls) -> Self:
        """Return the object that a bare name stands for."""
        needed = [
            parameter.name
            for parameter in inspect.signature(cls).parameters.values()
            if parameter.default is parameter.empty
        ]
        if needed:
            raise InvalidArgumentError(
                f"{cls.name()!r} needs arguments ({', '.join(needed)}), so it has no bare name: "
                f"pass a `{cls.__name__}(...)` object."
            )
        return cls()

    @classmethod
    def _class_named(cls, name: str) -> type:
        for candidate in cls._concrete_classes():
            if name in (candidate.__name__, candidate.name()):
                return candidate
        raise InvalidArgumentError(
            f"Unknown {cls.family()} {name!r}. Known: {cls._known_names()}. To add one, subclass "
            f"`{cls.family().capitalize()}`; a saved model with a custom one loads once the module "
            "that defines it has been imported."
        )

    @classmethod
    def _concrete_classes(cls) -> list[type]:
        return [c for c in cls.registry.values() if not inspect.isabstract(c)]

    @classmethod
    def _known_names(cls) -> list[str]:
        return sorted(candidate.name() for candidate in cls._concrete_classes())


def _plain(value: Any) -> Any:
    if isinstance(value, Configurable):
        return value.serialize()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _revived(value: Any) -> Any:
    if isinstance(value, dict) and "family" in value:
        family = next(c for c in Configurable.__subclasses__() if c.family() == value["family"])
        return family.get(value)
    if isinstance(value, list):
        return [_revived(item) for item in value]
    return value
