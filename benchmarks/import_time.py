"""What `import granet_tf` costs beyond `import keras` with TensorFlow.

Each import runs in a fresh process, the two kinds in turns, and each process times itself. The cost
is the median over rounds of the difference; next to it stands what granet_tf's own import takes in
a process that has imported Keras and TensorFlow before.

    python benchmarks/import_time.py [--rounds=7]

To see where time goes: python -X importtime -c "import granet_tf"
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from granet_train.quiet_tensorflow import without_notes

MUST = 0.1  # Seconds.
# Without bytecode, as where PYTHONDONTWRITEBYTECODE is set, most of it would be compilation.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
KERAS, OURS, AFTER = "import keras, tensorflow", "import granet_tf", "... after keras, tensorflow"
CODE = {
    KERAS: "start = now()\nimport keras, tensorflow",
    OURS: "start = now()\nimport granet_tf",
    AFTER: "import keras, tensorflow\nstart = now()\nimport granet_tf",
}


def seconds(code: str) -> float:
    """How long the imports take in a process of their own."""
    program = f"from time import perf_counter as now\n{code}\nprint(now() - start)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**ENVIRONMENT, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()

    # The first import reads from disk and writes bytecode.
    seconds(CODE[OURS])
    taken: dict[str, list[float]] = {name: [] for name in CODE}
    for _ in range(flags.rounds):
        for name, code in CODE.items():
            taken[name].append(seconds(code))
    extra = [ours - keras for ours, keras in zip(taken[OURS], taken[KERAS], strict=True)]

    with without_notes():
        from granet_tf.reports.table import aligned

    rows = [("", "median s", "fastest s", "slowest s")]
    for name, values in {**taken, f"{OURS}, difference": extra}.items():
        rows.append((name, *(f"{f(values):.3f}" for f in (statistics.median, min, max))))
    print(aligned(rows, text_columns=1))
    own = statistics.median(taken[AFTER])
    verdict = "met" if own <= MUST else "MISSED"
    print(f"{verdict}: {own:.3f} s beyond Keras with TensorFlow, must be {MUST} s or less")


if __name__ == "__main__":
    main()
