"""Reports of a run: terminal matrix, JUnit, JSON, Markdown, HTML, transcripts, and files to replay."""

from .files import write_reports
from .terminal import TerminalReport

__all__ = ["TerminalReport", "write_reports"]
