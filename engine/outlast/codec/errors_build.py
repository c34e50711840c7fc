"""Errors built again, without their `__init__`, of what is stored of them.

Owns what an error keeps where (its dictionary, its slots, what builtin ones hold in C). Refuses to import: one whose class is not loaded
here is a `RemoteError`, which `except` clauses for the bases of that class still match, since a replay in another process must go the
same way. Refuses to run code of an error's class.
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from ..errors import RemoteError
from .build import untag
from .types import find_class, short

TRACEBACK = "__outlast_traceback__"
"""The attribute of a rebuilt error that holds the text of its original traceback."""

ORIGIN = "__outlast_origin__"
"""The attribute of an error that stands in for one of a class that is not loaded: its description."""

LONGEST_REPR = 2_048
NOT_ATTRIBUTES = frozenset(
    {"__dict__", "__weakref__", "args", "__traceback__", "__context__", "__cause__", "__suppress_context__"}
    | {"__notes__", "exceptions", "obj", "characters_written", TRACEBACK, ORIGIN}
)


def build_error(node: dict[str, Any]) -> BaseException:
    """Build the error of a stored description. Runs no code of the error's class."""
    cls = find_class(node.get("c", ""))
    error: BaseException | None = None
    if cls is not None and issubclass(cls, BaseException):
        try:
            error = _validated(cls, node["v"]) if cls is validation_error() else _build(cls, node)
        except Exception:  # noqa: BLE001 - not rebuildable: the caller gets what is known of it
            error = None
    if error is None:
        error = _stand_in(node)
    _restore(error, node)
    return error


def _build(cls: type[BaseException], node: dict[str, Any]) -> BaseException:
    arguments = tuple(_value(argument) for argument in node.get("a", ()))
    if "members" in node:
        arguments = (*arguments, [build_error(member) for member in node["members"]])
    error: BaseException = _solid(cls).__new__(cls, *arguments)
    if type(error) is not cls and not isinstance(error, BaseExceptionGroup):
        raise TypeError(f"{cls} makes {type(error)}")
    _set(error, "args", arguments)
    _set_attributes(error, node)
    return error


def _solid(cls: type) -> Any:
    """The first class whose __new__ is written in C: a user's own could want other arguments, or do things."""
    return next(base for base in cls.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType))


def _set_attributes(error: BaseException, node: dict[str, Any]) -> None:
    kept = slots(type(error))
    for name, stored in node.get("d", {}).items():
        value = _value(stored)
        if name in kept:
            try:
                kept[name].__set__(error, value)
            except (AttributeError, TypeError):
                pass
        else:
            error.__dict__[name] = value


def _stand_in(node: dict[str, Any]) -> BaseException:
    """A `RemoteError`, which is also what the bases of its class are, as far as those are loaded."""
    plain = RemoteError(node.get("type", "Exception"), node.get("m", ""))
    bases: list[type[BaseException]] = []
    for base in map(find_class, node.get("b", ())):
        is_error = base is not None and issubclass(base, BaseException) and not any(issubclass(one, base) for one in bases)
        if is_error and type(base) is type and isinstance(base.__init_subclass__, BuiltinFunctionType):
            bases.append(base)
    if not bases:
        return plain
    error: BaseException
    try:
        cls = type(RemoteError.__name__, (RemoteError, *bases), {"__module__": RemoteError.__module__})
        error = _solid(cls).__new__(cls)
    except TypeError:
        return plain
    _set_attributes(error, node)
    _set(error, "args", plain.args)
    error.__dict__.update(plain.__dict__)
    error.__dict__[ORIGIN] = node
    return error


def _validated(cls: Any, stored: Any) -> BaseException:
    title, lines = untag(stored)
    known = sys.modules["pydantic_core"]
    try:
        return cls.from_exception_data(title, [_line(line) for line in lines])  # type: ignore[no-any-return]
    except KeyError:
        # A kind of an application's own, of which only the message is known.
        custom = [{**line, "type": known.PydanticCustomError(line["type"], line["msg"]), "ctx": {}} for line in lines]
        return cls.from_exception_data(title, custom)  # type: ignore[no-any-return]


def _line(line: dict[str, Any]) -> dict[str, Any]:
    made = {"value_error": ValueError, "assertion_error": AssertionError}.get(line["type"])
    context = {name: made(value) if made and name == "error" else value for name, value in line["ctx"].items()}
    return {name: value for name, value in {**line, "ctx": context}.items() if name != "ctx" or value}


def _value(stored: Any) -> Any:
    try:
        return untag(stored)
    except Exception:  # noqa: BLE001 - a class that is not loaded here must not hide the error
        return short(stored, LONGEST_REPR)


def _restore(error: BaseException, node: dict[str, Any]) -> None:
    if node.get("n"):
        error.__dict__["__notes__"] = list(node["n"])
    if "cause" in node:
        _set(error, "__cause__", build_error(node["cause"]))
    if "context" in node:
        _set(error, "__context__", build_error(node["context"]))
    _set(error, "__suppress_context__", bool(node.get("suppress")))
    if node.get("tb"):
        error.__dict__[TRACEBACK] = node["tb"]


def _set(error: BaseException, name: str, value: object) -> None:
    # Past a __setattr__ of the error's own, which may refuse.
    BaseException.__setattr__(error, name, value)


def slots(cls: type) -> dict[str, Any]:
    return {
        name: descriptor
        for base in reversed(cls.__mro__)
        for name, descriptor in vars(base).items()
        if isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType)) and name not in NOT_ATTRIBUTES
    }


def validation_error() -> Any:
    """Pydantic's error, which is looked at only if someone else has imported it."""
    return getattr(sys.modules.get("pydantic_core"), "ValidationError", None)
