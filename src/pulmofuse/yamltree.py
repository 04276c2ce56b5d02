"""A YAML tree against a pydantic model: lines, overrides, and faults in one sentence.

Pydantic knows what is wrong, YAML knows the line, and the person wants both together with the
right key. Nothing here knows which configuration it is that is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pulmofuse.errors import ConfigError

_YAML_REMEDY = "mend the YAML; keys are indented with blanks and end with a colon"

#: Pydantic's kinds of fault, in the words of YAML rather than of Python.
_WORDS = {
    "missing": "this key is missing",
    "tuple_type": "should be a list",
    "too_short": "has too few items",
    "model_type": "should hold keys and values; leave it out to take the defaults",
    "dict_type": "should hold keys and values",
    "string_type": "should be text; quote it if it looks like a number, a date or yes or no",
    "string_pattern_mismatch": "should be made of letters, digits and _, a letter first",
}


def read_yaml(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    """The YAML text as nodes (which know their lines) and as plain values.

    Raises:
        ConfigError: not YAML, or a key stands twice.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(node, name)
        return node, yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ConfigError(where, f"not valid YAML: {error.problem}", _YAML_REMEDY) from None
    except RecursionError:
        raise ConfigError(name, "not valid YAML: nested too deeply", _YAML_REMEDY) from None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: PyYAML lets the dates of `datetime` fail by themselves ("2026-13-01").
        raise ConfigError(name, f"not valid YAML: {error}", _YAML_REMEDY) from None


def _refuse_repeated_keys(node: yaml.Node | None, name: str) -> None:
    """Refuse a key that stands twice: YAML would take the last one and say nothing."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, name)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value in lines:
            why = f"key {key.value!r} stands twice (also in line {lines[key.value]})"
            raise ConfigError(f"{name}, line {line}", why, "keep one of the two")
        lines[str(key.value)] = line
        _refuse_repeated_keys(value, name)


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one "a.b=value" in a tree of plain dicts and lists, in place; "a.0" is a list's first.

    Raises:
        ConfigError: not of this form, or the path runs through a value or past a list's end.
    """
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"--set {override}", "is not KEY=VALUE", "write --set ct.training.epochs=5"
        )
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"--set {override}", "the value is not YAML", "quote the value") from None
    here: Any = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(here, list):
            if not key.isdecimal() or int(key) >= len(here):
                above, size = ".".join(keys[:depth]), len(here)
                why = f"{above} is a list of {size}, counted from 0, and {key!r} is none of it"
                raise ConfigError(f"--set {override}", why, "give the number of an item")
            place: Any = int(key)
        elif isinstance(here, dict):
            place = key
            if here.get(key) is None:
                here[key] = {}
        else:
            why = f"{'.'.join(keys[:depth])} holds a value, not keys"
            raise ConfigError(f"--set {override}", why, "name an existing key")
        if last:
            here[place] = parsed
        here = here[place]


def explain(
    error: ValidationError,
    root: type[BaseModel],
    node: yaml.Node | None,
    overrides: Sequence[str],
    name: str,
) -> ConfigError:
    """Turn the first fault that pydantic found into one line with a place and a remedy.

    Args:
        error: what validation raised.
        root: the model of the whole tree.
        node: the YAML text as `read_yaml` gives it.
        overrides: what was set on top of it.
        name: what to call the text.

    Unknown keys come first: a misspelt key is the reason why the right one is missing.
    """
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    # Pydantic marks the fault of a mapping's key, rather than of its value, with "[key]".
    location = tuple(part for part in fault["loc"] if part != "[key]")
    dotted = ".".join(str(part) for part in location)
    where = _where(location, node, overrides, name)
    if fault["type"] == "extra_forbidden":
        return ConfigError(where, f"unknown key {dotted!r}", _nearest(root, location))
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    message = _WORDS.get(fault["type"], message)
    given = "" if fault["type"] in {"missing", "value_error"} else f" (given: {fault['input']!r})"
    remedy = "add this key" if fault["type"] == "missing" else "mend this value"
    return ConfigError(where, f"{dotted or 'study'}: {message}{given}", remedy)


def _where(
    location: Sequence[int | str], node: yaml.Node | None, overrides: Sequence[str], name: str
) -> str:
    """The override or the line of the YAML text that a fault comes from."""
    parts = [str(part) for part in location]
    for override in reversed(overrides):
        keys = override.partition("=")[0].strip().split(".")
        shared = min(len(keys), len(parts))
        if shared and keys[:shared] == parts[:shared]:
            return f"--set {override}"
    line = _line_of(node, location)
    return f"{name}, line {line}" if line else name


def _nearest(root: type[BaseModel], location: Sequence[int | str]) -> str:
    """The remedy for an unknown key: the same one further down, else the nearest beside it."""
    *above, key = location
    models = _models_at(root, above)
    prefix = "".join(f"{part}." for part in above)
    deeper = [
        prefix + path for model in models for path in _paths(model) if path.endswith(f".{key}")
    ]
    if deeper:
        return f"the nearest key is {' or '.join(map(repr, deeper))}"
    known = [name for model in models for name in model.model_fields]
    nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    if nearest:
        return f"the nearest key is {nearest[0]!r}"
    return f"known keys: {', '.join(known)}"


def _paths(model: type[BaseModel]) -> Iterator[str]:
    """Dotted paths of every key below a model, without those inside lists."""
    for name, field in model.model_fields.items():
        yield name
        for below in _models_in(field.annotation):
            yield from (f"{name}.{path}" for path in _paths(below))


def _line_of(node: yaml.Node | None, location: Sequence[int | str]) -> int | None:
    """Line (from 1) of the deepest part of `location` that stands in the YAML text."""
    line: int | None = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _models_at(root: type[BaseModel], location: Sequence[int | str]) -> list[type[BaseModel]]:
    """Models that describe what stands at `location`."""
    models: list[type[BaseModel]] = [root]
    for part in location:
        if isinstance(part, int):
            continue
        models = [
            below
            for model in models
            if part in model.model_fields
            for below in _models_in(model.model_fields[part].annotation)
        ]
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every configuration model that a type annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
