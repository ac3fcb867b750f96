"""Store to a folder with a self-contained HTML page, Markdown with PNG figures, and the specs."""

from workbench.report.contents import NothingToReport
from workbench.report.write import ReportFiles, write_report

__all__ = ["NothingToReport", "ReportFiles", "write_report"]
