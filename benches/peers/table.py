"""The table of results: its rows, what makes a row pass, and how it is printed.

Ratios are "how many times better", so larger is always better. A row is printed as soon as it is
measured, so the columns have fixed widths.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """The figures of the measured binary and, in a comparison, of the binary before it, by round."""

    rounds: list[float]
    before_rounds: list[float] | None = None

    @property
    def now(self) -> float:
        """The median."""
        return statistics.median(self.rounds)

    def changes(self, more_is_better: bool) -> list[float]:
        """How many times better than before, for each round. Rounds are paired, so drift cancels out."""
        pairs = zip(self.rounds, self.before_rounds)
        return sorted(now / before if more_is_better else before / now for now, before in pairs)


@dataclass
class Row:
    """One line of the table. `target` is the promised ratio to the peer, `limit` the promised figure."""

    work: str
    ours: Measured
    show: Callable[[float], str]
    peer: str = ""
    theirs: float | None = None
    more_is_better: bool = False
    target: float | None = None
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        if self.theirs is None:
            return None
        return self.ours.now / self.theirs if self.more_is_better else self.theirs / self.ours.now

    @property
    def passed(self) -> bool | None:
        """Whether the promise is kept; `None` without one."""
        if self.target is not None:
            return self.ratio >= self.target
        return None if self.limit is None else self.ours.now < self.limit

    def promise(self) -> str:
        """What is promised."""
        if self.target is not None:
            return f"{self.target:g}x"
        return "" if self.limit is None else f"< {self.show(self.limit)}"


def seconds(value: float) -> str:
    """A time with the unit that reads best."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def size(value: float) -> str:
    """Bytes with the unit that reads best."""
    return f"{value / 2**20:.0f} MiB" if value >= 2**20 else f"{value:.0f} B"


def rate(value: float) -> str:
    """Requests a second."""
    return f"{value:,.0f}/s"


class Table:
    """Prints rows as they come, and keeps what was printed."""

    WORK, FIGURE, CHANGE, PEER = 58, 11, 20, 36

    def __init__(self, compares: bool):
        self._compares = compares
        self.rows: list[Row] = []
        self.lines: list[str] = []
        head = ["work", "holdall", *(["before", "times better"] if compares else [])]
        self._print([*head, "peer", "ratio", "promised", "kept"])
        self._print(["-" * width for width in self._widths()])

    def add(self, row: Row) -> None:
        """Prints a row."""
        self.rows.append(row)
        cells = [row.work, row.show(row.ours.now)]
        if self._compares:
            cells += [row.show(statistics.median(row.ours.before_rounds)), change_of(row)]
        cells.append("" if row.theirs is None else f"{row.peer} {row.show(row.theirs)}")
        cells.append("" if row.ratio is None else f"{row.ratio:.2f}x")
        self._print([*cells, row.promise(), {True: "yes", False: "NO", None: ""}[row.passed]])

    def _widths(self) -> list[int]:
        compared = [self.FIGURE, self.CHANGE] if self._compares else []
        return [self.WORK, self.FIGURE, *compared, self.PEER, 8, 9, 4]

    def _print(self, cells: list[str]) -> None:
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths()))
        line = "| " + " | ".join(padded) + " |"
        self.lines.append(line)
        print(line, flush=True)


def change_of(row: Row) -> str:
    """The median of the rounds' changes, with the smallest and the largest."""
    changes = row.ours.changes(row.more_is_better)
    return f"{statistics.median(changes):.2f}x ({changes[0]:.2f}-{changes[-1]:.2f})"
