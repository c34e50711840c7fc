"""From tagged JSON to values: the other half of `tags`.

Owns how each tag becomes a value again. Refuses to import, to call an `__init__` (but a struct's own), and
to build what is not of the kind that the tag says (a stored name can reach only loaded dataclasses, enums,
models, errors and the like); refuses with a sentence what the code has outgrown: a class that is gone, a
field without a value.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from .types import (
    BARE,
    FACTORIES,
    TAG,
    TEXTS,
    ClassNotLoaded,
    NotDecodable,
    Preview,
    field_names,
    find_class,
    is_pydantic,
    registered_by_name,
    short,
)


def untag(node: Any) -> Any:
    """Build the value that a tagged JSON structure stands for; lists and dicts are filled in place."""
    kind = type(node)
    if kind is list:
        for index, part in enumerate(node):
            if type(part) is dict or type(part) is list:
                node[index] = untag(part)
        return node
    if kind is not dict:
        return node
    if TAG in node:
        build = _BUILDERS.get(node[TAG])
        if build is None:
            raise NotDecodable(
                f"Stored data has a tag {short(node[TAG])} that this version does not know.",
                hint="Upgrade outlast.",
            )
        return build(node)
    for key, part in node.items():
        if type(part) is dict or type(part) is list:
            node[key] = untag(part)
    return node


def loaded(node: Mapping[str, Any], fits: Callable[[type], object], kind: str) -> Any:
    """The class that a tag names, if it is loaded and is still of the kind that the tag says."""
    cls = find_class(node["c"])
    if cls is None:
        raise ClassNotLoaded(node["c"])
    if not fits(cls):
        raise NotDecodable(f"A stored value is of the {kind} {node['c']}, which is not a {kind} any more.")
    return cls


def _build_dict(node: Any) -> dict[Any, Any]:
    return {untag(key): untag(part) for key, part in node["v"]}


def _build_moment(cls: Any, node: Any) -> Any:
    value = cls.fromisoformat(node["v"])
    if "zone" in node:
        value = value.replace(tzinfo=_find_zone(node["zone"]))
    elif "name" in node:
        value = value.replace(tzinfo=timezone(value.utcoffset(), node["name"]))
    return value.replace(fold=1) if "fold" in node else value


def _find_zone(key: str) -> ZoneInfo:
    try:
        return ZoneInfo(key)
    except Exception as error:
        raise NotDecodable(f"This machine does not know the time zone {key!r}.", hint="Install tzdata.") from error


def _build_enum(node: Any) -> Any:
    cls = loaded(node, lambda cls: issubclass(cls, enum.Enum), "enum")
    name = node.get("n")
    if name in cls.__members__:
        return cls.__members__[name]
    if "v" in node:
        try:
            return cls(untag(node["v"]))
        except ValueError:
            pass
    raise NotDecodable(f"The enum {node['c']} has no member {name or node.get('v')!r} any more.")


def _build_namedtuple(node: Any) -> Any:
    cls = loaded(node, lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"), "named tuple")
    values = {**cls._field_defaults, **untag(node["v"])}
    _need(node, (name for name in cls._fields if name not in values))
    return tuple.__new__(cls, [values[name] for name in cls._fields])


def _build_dataclass(node: Any) -> Any:
    cls = loaded(node, lambda cls: field_names(cls) is not None and not issubclass(cls, BARE), "dataclass")
    value = object.__new__(cls)
    stored = untag(node["v"])
    for name in field_names(cls) or ():
        if name in stored:
            object.__setattr__(value, name, stored[name])
    for name, part in _new_defaults(cls, stored):
        object.__setattr__(value, name, part)
    for name, part in untag(node.get("x", {})).items():
        object.__setattr__(value, name, part)
    return value


def _new_defaults(cls: type, stored: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """What the class has gained since the value was stored; a field without a default stays unset."""
    for field in getattr(cls, "__dataclass_fields__", {}).values():
        if field.name not in stored and field.default_factory is not dataclasses.MISSING:
            yield field.name, field.default_factory()
        elif field.name not in stored and field.default is not dataclasses.MISSING:
            yield field.name, field.default


def _build_struct(node: Any) -> Any:
    cls = loaded(node, lambda cls: issubclass(cls, msgspec.Struct), "struct")
    stored = untag(node["v"])
    values = {name: stored[name] for name in cls.__struct_fields__ if name in stored}
    _need(node, (f.name for f in msgspec.structs.fields(cls) if f.required and f.name not in values))
    # A struct can be made in no other way than by calling it; what its __post_init__ changed is set back.
    value = cls(**values)
    for name, part in values.items():
        msgspec.structs.force_setattr(value, name, part)
    return value


def _build_pydantic(node: Any) -> Any:
    cls = loaded(node, is_pydantic, "model")
    stored = {name: part for name, part in untag(node["v"]).items() if name in cls.model_fields}
    for name, field in cls.model_fields.items():
        if name not in stored:
            _need(node, [name] if field.is_required() else [])
            stored[name] = field.get_default(call_default_factory=True)
    value = cls.__new__(cls)
    has_extra = cls.model_config.get("extra") == "allow"
    has_private = bool(cls.__private_attributes__)
    object.__setattr__(value, "__dict__", {name: stored[name] for name in cls.model_fields})
    object.__setattr__(value, "__pydantic_fields_set__", set(node["s"]) & set(cls.model_fields) | set(node.get("x", ())))
    object.__setattr__(value, "__pydantic_extra__", untag(node.get("x", {})) if has_extra else None)
    object.__setattr__(value, "__pydantic_private__", untag(node.get("p", {})) if has_private else None)
    return value


def _need(node: Any, missing: Iterable[str]) -> None:
    for name in missing:
        raise NotDecodable(
            f"A stored {node['c'].partition(':')[2]} has no value for {name!r}, which the class now needs.",
            hint="Give the new field a default.",
        )


def _build_custom(node: Any) -> Any:
    custom = registered_by_name.get(node["c"])
    if custom is None:
        raise NotDecodable(
            f"No register_type() was made here for {node['c']}.",
            hint="Call it where the workflow is defined.",
        )
    return custom.from_json(untag(node["v"]))


def _build_error(node: Any) -> BaseException:
    from .errors_build import build_error

    return build_error(node)


def _build_text(build: Callable[[str], object], node: Any) -> object:
    return build(node["v"])


_BUILDERS: Mapping[str, Callable[[Any], Any]] = {
    "int": lambda node: int(node["v"], 16),
    "float": lambda node: float(node["v"]),
    "dict": _build_dict,
    "tuple": lambda node: tuple(untag(node["v"])),
    "set": lambda node: set(untag(node["v"])),
    "frozenset": lambda node: frozenset(untag(node["v"])),
    "datetime": lambda node: _build_moment(datetime, node),
    "time": lambda node: _build_moment(time, node),
    "timedelta": lambda node: timedelta(*node["v"]),
    "zone": lambda node: _find_zone(node["v"]),
    "timezone": lambda node: timezone(*untag(node["v"])),
    "range": lambda node: range(*node["v"]),
    "deque": lambda node: deque(untag(node["v"]), node["m"]),
    "ordereddict": lambda node: OrderedDict(_build_dict(node)),
    "counter": lambda node: Counter(_build_dict(node)),
    "defaultdict": lambda node: defaultdict(FACTORIES.get(node["f"]), _build_dict(node)),
    "enum": _build_enum,
    "namedtuple": _build_namedtuple,
    "dataclass": _build_dataclass,
    "struct": _build_struct,
    "model": _build_pydantic,
    "custom": _build_custom,
    "error": _build_error,
    "preview": lambda node: Preview(node["v"]),
    "unset": lambda _: msgspec.UNSET,
    **{tag: functools.partial(_build_text, build) for tag, _, build in TEXTS.values()},
}
