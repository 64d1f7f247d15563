"""The terminal: a line per failure while it runs, then the matrix. Plain text in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..verdict import Result, RunReport, Status
from .summary import by_area, closing_line

_STYLES = {
    Status.PASSED: "green",
    Status.FAILED: "bold red",
    Status.KNOWN: "yellow",
    Status.UNEXPECTED: "bold red",
    Status.ERROR: "bold magenta",
}


class TerminalReport:
    """Prints to a console as a run goes on, and the matrix at the end."""

    def __init__(self, *, verbose: bool = False, console: Console | None = None) -> None:
        console = console or Console(highlight=False, soft_wrap=True)
        # In a pipe the matrix is as wide as it has to be.
        self._console = (
            console
            if console.is_terminal
            else Console(file=console.file, width=240, highlight=False, soft_wrap=True)
        )
        self._verbose = verbose

    def progress(self, result: Result) -> None:
        """One run has ended."""
        if result.status is Status.PASSED and not self._verbose:
            return
        style = _STYLES[result.status]
        head = f"[{style}]{result.status.value:<15}[/] {escape(result.scenario.name)} ({result.column})"
        self._console.print(f"{head} {result.seconds:.2f} s  {escape(result.place)}")
        if result.reason and result.status is not Status.PASSED:
            self._console.print(f"    {escape(result.reason)}")

    def failure(self, result: Result, file: str) -> None:
        """The merged timeline of a failure, and how to replay it."""
        self._console.rule(escape(f"{result.scenario.name} ({result.column})"), style="red")
        self._console.print(escape(result.reason))
        for line in result.timeline[-60:]:
            self._console.print(escape(line), style="dim")
        self._console.print(
            f"again: mq9-conformance run --filter '={result.scenario.base}' --sdk {result.column}"
        )
        self._console.print(f"lines: mq9-conformance replay {escape(file)}")

    def finish(self, report: RunReport) -> None:
        """The matrix, what is wrong with the whole, and the closing line."""
        columns = [column for column in report.columns if not column.not_run]
        table = Table(title="scenarios passed by area, with the time of all runs", title_justify="left")
        table.add_column("area", no_wrap=True)
        for column in columns:
            table.add_column(f"{column.name} {column.version}".strip(), justify="right", no_wrap=True)
        for area, cells in by_area(report).items():
            row = [area]
            for column in columns:
                cell = cells.get(column.name)
                if cell is None:
                    row.append("")
                    continue
                style = "green" if cell.passed == cell.total else "red" if cell.red else "yellow"
                row.append(f"[{style}]{cell.passed}/{cell.total}[/]  {cell.seconds:5.1f} s")
            table.add_row(*row)
        if report.results:
            self._console.print(table)
        for column in columns:
            if column.vectors:
                passed = sum(run.passed for run in column.vectors)
                total = sum(run.total for run in column.vectors)
                style = "green" if passed == total else "yellow"
                self._console.print(
                    f"L1 {column.name}: [{style}]{passed}/{total}[/] wire vectors in its own tests"
                )
        for column in report.columns:
            if column.not_run:
                self._console.print(f"[yellow]NOT RUN[/] {column.name}: {escape(column.not_run)}")
        for note in report.notes if self._verbose else []:
            self._console.print(f"[dim]{escape(note)}[/]")
        for problem in report.problems:
            self._console.print(f"[bold red]problem[/] {escape(problem)}")
        style = "bold green" if report.green else "bold red"
        self._console.print(f"[{style}]{escape(closing_line(report))}[/]")
