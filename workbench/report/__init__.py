"""Store to a folder: a self-contained HTML page, Markdown, PDF, pictures, and the data."""

from workbench.report.contents import DEFAULT_QUESTION, NothingToReport
from workbench.report.question import QUESTIONS
from workbench.report.write import ReportFiles, write_report

__all__ = ["DEFAULT_QUESTION", "QUESTIONS", "NothingToReport", "ReportFiles", "write_report"]
