"""What a definition takes: arguments by name, from Python, stored data, JSON and a command line.

Owns the binding of arguments to a function's parameters and back, and the conversion of outside input to
annotated types (the latter in `conversion`). Refuses unknown, missing and surplus arguments with one
sentence (`InvalidInput`) that names the parameters. Built once per definition; annotations are resolved
when first needed, since they may name what is defined further down; one that cannot be resolved means
`object`. Pure.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import InvalidInput
from .conversion import convert_text, convert_value, parse_json
from .leaves import show

__all__ = ["Signature", "convert_value"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature:
    """The parameters of `fn` after the first `skip` (such as `db`). `place` is its name in messages."""

    def __init__(self, fn: Callable[..., object], *, skip: int = 0, place: str) -> None:
        self.place = place if place.endswith(")") else f"{place}()"
        self._fn = inspect.unwrap(fn)
        self._hints: dict[str, Any] | None = None
        parameters = list(inspect.signature(fn).parameters.values())[skip:]
        self.parameters: dict[str, inspect.Parameter] = {parameter.name: parameter for parameter in parameters}
        self.required = [
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        self._positional = tuple(parameter.name for parameter in parameters if parameter.kind in _POSITIONAL)
        self._only_positional = {p.name for p in parameters if p.kind is p.POSITIONAL_ONLY}
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._extra = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self._named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        # How many positional arguments alone are a complete call; none if a keyword is required.
        needed = [index for index, name in enumerate(self._positional, 1) if name in self.required]
        is_keyword_needed = not set(self.required) <= set(self._positional)
        self._fewest = len(self._positional) + 1 if is_keyword_needed else max(needed, default=0)
        self._is_plain = not self._only_positional and self._rest is None and self._extra is None
        self._required_names = frozenset(self.required)
        self._known_names = frozenset(self.parameters)

    def result_from_json(self, value: object) -> Any:
        """Plain JSON as the annotated type of what the function returns. Raises `InvalidInput`."""
        return convert_value(value, self._hint("return"), f"the result of {self.place}")

    def named(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Bind arguments as Python would, by name in the order of the parameters, without the defaults."""
        if not kwargs and self._fewest <= len(args) <= len(self._positional):
            return dict(zip(self._positional, args, strict=False))
        found: dict[str, object] = dict(zip(self._positional, args, strict=False))
        rest, extra = args[len(self._positional) :], {}
        if rest and self._rest is None:
            self._refuse(f"{len(args)} values were given by position")
        for name, value in kwargs.items():
            if name in self._named and name not in self._only_positional:
                if name in found:
                    self._refuse(f"{name} was given twice")
                found[name] = value
            elif self._extra is not None:
                extra[name] = value
            elif name in self._only_positional:
                self._refuse(f"{name} must be given by position")
            else:
                self._refuse_unknown(name)
        return self._complete(found, rest, extra)

    def call(self, named: Mapping[str, object]) -> tuple[tuple[object, ...], dict[str, object]]:
        """Turn arguments by name into what the function is called with."""
        if self._is_plain:
            self._check(named)
            return (), dict(named)
        values = self._gather(named)
        rest: Any = values.pop(self._rest, ()) if self._rest else ()
        extra: Any = values.pop(self._extra, {}) if self._extra else {}
        args: list[object] = []
        for name in self._positional:
            if not rest and name not in self._only_positional:
                break
            if name not in values:
                # Only a default can be missing here; a later positional argument needs it spelled out.
                if not rest and not any(later in values for later in self._only_positional):
                    continue
                values[name] = self.parameters[name].default
            args.append(values.pop(name))
        return (*args, *rest), {**values, **extra}

    def convert(self, named: Mapping[str, object]) -> dict[str, object]:
        """Convert values from outside (plain JSON, by name) to the annotated types."""
        return {name: self._convert_one(name, value) for name, value in self._gather(named).items()}

    def parse(self, pairs: Sequence[str], before: Mapping[str, object] | None = None) -> dict[str, object]:
        """Read `key=value` (text for the annotated type) and `key:=JSON` of a command line, laid over what was given `before`."""
        found: dict[str, object] = {}
        for pair in pairs:
            key, separator, text = pair.partition("=")
            is_json = key.endswith(":")
            name = key.removesuffix(":")
            if not separator or not name:
                raise InvalidInput(
                    f"{show(pair)} is not an argument.", hint="Write key=value, or key:=JSON; --input takes all of them as JSON."
                )
            if name in found:
                self._refuse(f"{name} was given twice")
            if name not in self.parameters and self._extra is None:
                self._refuse_unknown(name)
            place = f"{self.place}: {_name(name)}"
            if is_json:
                found[name] = parse_json(text, place)
            elif name in self._named:
                found[name] = convert_text(text, self._hint(name), place)
            elif name == self._rest:
                found[name] = parse_json(text, place)
            else:
                found[name] = convert_text(text, self._hint(self._extra or ""), place)
        return self.convert({**(before or {}), **found})

    def from_json(self, value: object) -> dict[str, object]:
        """Read a whole input: an object by name, or an array by position."""
        if isinstance(value, Mapping):
            return self.convert(value)
        if isinstance(value, (list, tuple)):
            return self.convert(self.named(tuple(value), {}))
        raise InvalidInput(f"{self.place} takes a JSON object by name or an array by position, not {show(value)}.")

    def _hint(self, name: str) -> Any:
        if self._hints is None:
            self._hints = _resolve(self._fn)
        return self._hints.get(name, object)

    def _convert_one(self, name: str, value: object) -> object:
        place, hint = f"{self.place}: {_name(name)}", self._hint(name)
        if name == self._rest:
            if not isinstance(value, (list, tuple)):
                raise InvalidInput(f"{place} must be an array, not {show(value)}.")
            return tuple(convert_value(part, hint, f"{place}[{index}]") for index, part in enumerate(value))
        if name == self._extra and isinstance(value, Mapping):
            return {key: convert_value(part, hint, f"{place}[{show(key)}]") for key, part in value.items()}
        return convert_value(value, hint, place)

    def _gather(self, named: Mapping[str, object]) -> dict[str, object]:
        """Put what goes into `**kwargs` under its name, check the rest, and order it all."""
        found: dict[str, object] = {}
        rest: Any = ()
        extra: dict[str, object] = {}
        for name, value in named.items():
            if name in self._named:
                found[name] = value
            elif name == self._rest:
                rest = value
            elif self._extra is None:
                self._refuse_unknown(name)
            elif name == self._extra and isinstance(value, Mapping):
                extra.update(value)
            else:
                extra[name] = value
        return self._complete(found, rest, extra)

    def _complete(self, found: dict[str, object], rest: Any, extra: dict[str, object]) -> dict[str, object]:
        for name in self.required:
            if name not in found:
                self._refuse(f"{name} is missing")
        ordered = {name: found[name] for name in self._named if name in found}
        if rest and self._rest is not None:
            ordered[self._rest] = rest
        if extra and self._extra is not None:
            ordered[self._extra] = extra
        return {name: ordered[name] for name in self.parameters if name in ordered}

    def _check(self, named: Mapping[str, object]) -> None:
        if self._required_names <= named.keys() <= self._known_names:
            return
        for name in named:
            if name not in self.parameters:
                self._refuse_unknown(name)
        if not self._required_names <= named.keys():
            self._refuse(f"{next(name for name in self.required if name not in named)} is missing")

    def _refuse_unknown(self, name: object) -> NoReturn:
        close = difflib.get_close_matches(name, self._named, 1) if isinstance(name, str) and len(name) < 100 else []
        self._refuse(f"{show(name)} is unknown" + (f"; did you mean {close[0]!r}?" if close else "."))

    def _refuse(self, problem: str) -> NoReturn:
        marks: dict[object, str] = {
            inspect.Parameter.VAR_POSITIONAL: "*",
            inspect.Parameter.VAR_KEYWORD: "**",
        }
        names = ", ".join(marks.get(p.kind, "") + name for name, p in self.parameters.items())
        end = "" if problem.endswith(("?", ".")) else "."
        raise InvalidInput(f"{self.place} takes {names or 'no arguments'}: {problem}{end}")


def _name(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else show(name)


def _resolve(fn: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are a stranger's expressions
        pass
    found: dict[str, Any] = {}
    names = getattr(fn, "__globals__", {})
    for name, annotation in getattr(fn, "__annotations__", {}).items():
        single = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(typing.get_type_hints(single, globalns=names, include_extras=True))
        except Exception:  # noqa: BLE001 - a name that only a type checker imports
            found[name] = object
    return found
