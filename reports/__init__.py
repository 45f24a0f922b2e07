"""Tables, figures and a page from the records alone: the same records give the same bytes."""

from reports.build import build

__all__ = ["build"]
