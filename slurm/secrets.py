"""What a cluster's file may say in job files: no secrets, and no error message quotes a value."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from hvc.base.plain_words import in_words

_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)=(?!"?[$`])""")
"""A variable set to something literal; `TOKEN=$(cat ~/.token)` shows nothing."""
_PASSWORD = re.compile(r"""://[^/\s'"@]*:[^/\s'"@]+@""")
"""The password in an address, as in `http://user:password@host`."""
_ADVICE = (
    "looks like a secret, and would be written into job files in plain text; take it out and "
    "set it in the environment that submits (jobs inherit it) or in ~/.aws/credentials"
)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name.partition('=')[0]}: this is no name for an environment variable")
    if _SECRET.search(name):
        raise ValueError(f"{name}: this {_ADVICE}")


def _check_text(text: str) -> None:
    for name in _ASSIGNMENT.findall(text):
        if _SECRET.search(name):
            raise ValueError(f"{name}=... {_ADVICE}")
    if _PASSWORD.search(text):
        raise ValueError(f"the password in an address {_ADVICE}")


def _environment(values: Any) -> dict[str, str]:
    if not isinstance(values, dict):
        raise ValueError("write it as `NAME: value` lines")
    for name, value in values.items():
        _check_name(str(name))
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{name}: put the value in quotes")
        _check_text(str(value))
    return {str(name): str(value) for name, value in values.items()}


def _unseen(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        checked = check(value)
    except ValidationError as error:  # says what it found, and that may be a secret in the wrong place
        raise ValueError(", or ".join(sorted({in_words(item) for item in error.errors()}))) from None
    texts = checked.values() if isinstance(checked, dict) else checked
    for text in [texts] if isinstance(texts, str) else texts or ():
        _check_text(str(text))
    return checked


Environment = Annotated[dict[str, str], BeforeValidator(_environment)]
"""Variables by name; numbers become text, and names that look like a secret's are refused."""

Unseen = WrapValidator(_unseen)
"""For texts that reach job files: refused when they set a secret, without quoting what was found."""
