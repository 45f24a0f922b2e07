"""Tables, figures and a page, built from the records alone; the same records give the same bytes."""

from reports.build import build
from reports.report import read

__all__ = ["build", "read"]
