"""What a validator finds wrong, in words for somebody who writes YAML and knows no Python types."""

from typing import Any

from pydantic_core import ErrorDetails

_LIST = "must be a list, [a, b] or one `- entry` a line"
_KINDS = {
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a finite number",
    "string": "must be text; put it in quotes",
    "model": "must be a section: `key: value` lines below it, or {key: value}",
    "dict": "must be a section: `key: value` lines below it, or {key: value}",
    "list": _LIST,
    "tuple": _LIST,
}
"""By the first word of pydantic's name of an error: `int_parsing`, `int_type`, `int_from_float`."""
_BOUNDS = {
    "greater_than": "must be above {gt:,}",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than": "must be below {lt:,}",
    "less_than_equal": "must be at most {le:,}",
    "multiple_of": "must be a multiple of {multiple_of:,}",
    "too_short": "needs {min_length:,} or more entries, and has {actual_length:,}",
    "too_long": "may have {max_length:,} entries, and has {actual_length:,}",
    "string_pattern_mismatch": "must match {pattern}",
    "missing": "is missing; give it a value",
}


def in_words(item: ErrorDetails) -> str:
    """What is allowed; a validator of ours has said itself what is wrong."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return item["msg"].removeprefix("Value error, ")
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}".replace("'", "")
    if kind in _BOUNDS:
        whole = {key: int(value) if _is_whole(value) else value for key, value in context.items()}
        return _BOUNDS[kind].format_map(whole)
    return _KINDS.get(kind.partition("_")[0], item["msg"])


def as_written(value: Any) -> str:
    """A value as YAML has it, for the words that YAML and Python do not share."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value is None else repr(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()
