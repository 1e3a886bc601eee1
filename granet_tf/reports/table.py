"""Text tables with aligned columns, for reports that are printed."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], text_columns: int) -> str:
    """Rows of cells as lines: the first `text_columns` flush left, numbers flush right.

    Example:

    >>> print(aligned([("layer", "weights"), ("dense", "1,000")], text_columns=1))
    layer  weights
    dense    1,000
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
