"""The version of the workbench, of which a record's environment and a calibration tell."""

from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).parent
"""The folder of this package."""
