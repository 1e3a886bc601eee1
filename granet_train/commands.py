"""The console scripts: each starts TensorFlow quietly, then reads the flags and does what they say.

Nothing that needs TensorFlow is imported at the top.
"""

from __future__ import annotations

import importlib

from granet_train.quiet_tensorflow import without_notes


def train() -> None:
    """`granet-train`."""
    _run("granet_train.main")


def export() -> None:
    """`granet-export`."""
    _run("granet_train.export_command.main")


def compare() -> None:
    """`granet-compare`."""
    _run("granet_train.studies.compare.main")


def plasticity() -> None:
    """`granet-plasticity`."""
    _run("granet_train.studies.plasticity.main")


def _run(module: str) -> None:
    with without_notes():
        cli = importlib.import_module(module).cli
    cli()
