"""The readers that `evaluate` names."""

from hvc.evaluation.davis_layout import davis2016_names, read_davis2016
from hvc.evaluation.folder_layout import read_folder

__all__ = ["davis2016_names", "read_davis2016", "read_folder"]
