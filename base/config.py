"""Configuration is data: one typed model per stage, from one YAML file and `key=value` overrides."""

import copy
import difflib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hvc.base.errors import UsageError
from hvc.base.plain_words import as_written, in_words


class Config(BaseModel):
    """Base of all configuration models: immutable, and an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | None = None) -> Self:
        """Read a YAML file, apply `key=value` overrides (dots reach into sections), validate.

        Raises UsageError that names the file and key, with the nearest known key where one is near.
        """
        return cls.parse(_read_yaml(Path(path)), overrides, where=str(path))

    @classmethod
    def parse(cls, data: dict[str, Any], overrides: list[str] | None = None, where: str = "config") -> Self:
        """Validate plain data; `where` names its origin in error messages."""
        data = copy.deepcopy(data)
        for text in overrides or []:
            apply_override(data, text)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise UsageError(_explain(cls, error, where)) from None

    def resolved(self) -> dict[str, Any]:
        """All values, defaults included, as plain JSON data."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """sha256 over the canonical JSON of the resolved values (hex)."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The resolved values as YAML that `load` reads back."""
        return yaml.safe_dump(self.resolved(), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected `key: value` lines, found a {type(data).__name__}")
    return data


def apply_override(data: dict[str, Any], text: str) -> None:
    """Set one `key=value` in plain data, the value as YAML has it; UsageError for what is no such text."""
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise UsageError(f"override {text!r}: write it as key=value, e.g. steps=100")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise UsageError(f"override {text!r}: the value is not valid YAML: {error}") from None
    *sections, last = key.split(".")
    for section in sections:
        child = data.setdefault(section, {})
        if not isinstance(child, dict):
            raise UsageError(f"override {text!r}: {section!r} is a value, not a section")
        data = child
    data[last] = value


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> str:
    items = error.errors()
    # A list with a bad entry is said to be empty, too.
    blamed = {item["loc"][:end] for item in items for end in range(1, len(item["loc"]))}
    return "\n".join(_line(model, item, where) for item in items if item["loc"] not in blamed)


def _line(model: type[BaseModel], item: ErrorDetails, where: str) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}{_nearest(model, item['loc'])}"
    # A validator of ours says what it means; it may be about a value nobody should see.
    quiet = item["type"] in ("missing", "value_error")
    got = "" if quiet else f" (got {as_written(item['input'])})"
    return f"{where}: {f'{key}: ' if key else ''}{in_words(item)}{got}"


def _nearest(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    known = _fields_at(model, loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(sorted(known))}" if known else ""


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc:
        if isinstance(part, int):  # an entry of a list, whose model was found by the list's key
            continue
        if part not in model.model_fields:
            return []
        nested = list(_models_in(model.model_fields[part].annotation))
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
