"""What the reports on all files say alike: sizes, the difference from Keras, accuracies."""

from __future__ import annotations

import gzip
from typing import Any

from granet_tf.export.comparison import Comparison


class FileReport:
    """To be mixed into a dataclass with the fields that `figures_of` gives, and `path`."""

    path: str
    raw_bytes: int
    sparse_bytes: int
    gzip_bytes: int
    max_error: float
    relative_error: float | None
    accuracy_keras: float | None
    accuracy_file: float | None

    @property
    def difference(self) -> str:
        """The largest difference from Keras in words.

        Example:

        >>> from granet_tf.export import TFLiteReport
        >>> TFLiteReport("m.tflite", 9, 8, 7, max_error=0.05, relative_error=0.0125).difference
        '1.2% of the range of its outputs (5.0e-02)'
        """
        if self.relative_error is None:
            return f"{self.max_error:.1e}"
        # Two digits, where they tell something.
        small = 0 < self.relative_error < 1e-4
        percent = "less than 0.01%" if small else f"{100 * self.relative_error:.2g}%"
        return f"{percent} of the range of its outputs ({self.max_error:.1e})"

    def __str__(self) -> str:
        text = (
            f"{self.path}: {self.sparse_bytes:,} bytes ({self.gzip_bytes:,} gzipped), "
            f"{self.sparse_bytes / self.raw_bytes:.0%} of the {self.raw_bytes:,} without sparse "
            f"encoding; differs from Keras by at most {self.difference}"
        )
        if self.accuracy_keras is not None:
            text += f"; accuracy {self.accuracy_file:.2%}, in Keras {self.accuracy_keras:.2%}"
        return text


def figures_of(content: bytes, dense: bytes, comparison: Comparison) -> dict[str, Any]:
    """{field of a report: value} of a file.

    Args:
        content: The file.
        dense: The same without sparse encoding.
        comparison: Of the file with Keras.

    Example:

    >>> from granet_tf.export.comparison import Difference
    >>> comparison = Comparison({"output_0": Difference(0.5, 2.0, -2.0, 2.0)}, samples=3)
    >>> figures = figures_of(b"1234", b"12345678", comparison)
    >>> figures["sparse_bytes"], figures["raw_bytes"], figures["relative_error"]
    (4, 8, 0.125)
    """
    return {
        "raw_bytes": len(dense),
        "sparse_bytes": len(content),
        "gzip_bytes": len(gzip.compress(content)),
        "max_error": comparison.max_error,
        "relative_error": comparison.relative_error,
        "samples": comparison.samples,
        "accuracy_keras": comparison.accuracy_keras,
        "accuracy_file": comparison.accuracy_file,
    }
