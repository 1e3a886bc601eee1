"""TensorFlow without its notes on how it was compiled and what it reads, and with its errors.

It imports none of it, as it must be there before.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

# C++ log lines of the levels INFO and WARNING, among them those from before the log level is read,
# the second line of the note on CPU instructions, and what the quantizer was told.
_NOTE = re.compile(
    rb"[IW]\d{4} \d\d:\d\d:|INFO: |\d{4}-\d\d-\d\d [\d:.]+: [IW] |"
    rb"WARNING: All log messages before absl::|To enable the following instructions: |"
    rb"fully_quantize: |"
    # Logged as an error by TensorFlow 2.18, at each start.
    rb".*Unable to register cu[A-Z]+ factory: "
)
# Logged as an error wherever there is no NVIDIA driver; the first line of a run says "CPU".
_NO_DRIVER = re.compile(rb"(E\d{4} |\d{4}-\d\d-\d\d [\d:.]+: E ).*failed call to cuInit")


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Holds stderr back while TensorFlow works, then passes on all but the notes.

    TF_CPP_MIN_LOG_LEVEL alone does not do it: some notes are logged before it is read.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Of Keras 3.13 with a newer NumPy.
    warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
    try:
        stderr = os.dup(2)
    except OSError:  # Closed: there is nothing to hold back.
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            with open(2, "wb", closefd=False) as restored:
                restored.writelines(line for line in log if not _is_note(line))


def _is_note(line: bytes) -> bool:
    if _NO_DRIVER.match(line):
        return not glob.glob("/dev/nvidia*")
    return bool(_NOTE.match(line))
