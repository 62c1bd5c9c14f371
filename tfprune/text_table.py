"""Plain-text tables for the `str` of reports."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def align_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Pad the cells of a table, so that its columns stand under each other.

    Args:
        rows: the cells, the header first; all rows have the same length.
        right: columns that are aligned to the right, such as numbers.

    Returns:
        One line per row, without spaces at its end.

    Example:
        >>> align_columns([("layer", "size"), ("d1", "12")], right=[1])
        ['layer  size', 'd1       12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
