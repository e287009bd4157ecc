"""The door."""

from pathlib import Path

if "__path__" not in globals():  # a checkout: the rooms are the folders beside this file
    __path__ = [str(Path(__file__).resolve().parent)]
