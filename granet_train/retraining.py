"""Training again with what a finished run found: its masks, its weights, or both.

The paper's ablations: lottery tickets and learning rate rewinding (Section 4.7, Table 6), random
reinitialization (Section 4.6, Figure 4).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import granet_tf
from granet_tf.reasons import reason_of
from granet_tf.wrapping.spared import REASON
from granet_train import files, flags, models
from granet_train.errors import UsageError
from granet_train.training_options import Options


@dataclasses.dataclass(frozen=True)
class _Run:
    """A finished run.

    Attributes:
        workdir: Its work directory.
        flag: How it was asked for, to be named in errors.
        flags: Its flags.
    """

    workdir: Path
    flag: str
    flags: dict[str, Any]

    @classmethod
    def of(cls, path: str, flag: str) -> _Run:
        workdir = Path(path).expanduser()
        try:
            summary = json.loads((workdir / files.SUMMARY).read_text(encoding="utf-8"))
            return cls(workdir, f"--{flag}={path}", summary["flags"])
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(
                f"--{flag} must be the work directory of a finished run, with a {files.SUMMARY}: "
                f"{error}. Received: --{flag}={path}"
            ) from error

    def model(self) -> keras.Model:
        """What it came to, with its masks where it has any."""
        name = files.SPARSE if self.flags["method"] in flags.METHODS else files.STRIPPED
        try:
            return keras.models.load_model(self.workdir / name, compile=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"The model of the run cannot be read: {reason_of(error)}. Received: {self.flag}"
            ) from error

    def masks(self) -> list[np.ndarray]:
        """In the order of the model; outputs that were spared have all of their weights."""
        model = self.model()
        if not isinstance(model, granet_tf.SparseModel):
            raise UsageError(
                "--masks_from must be a run with masks, and this one was dense. "
                f"Received: {self.flag}"
            )
        masks = {id(pruned.variable): pruned.mask.numpy() for pruned in model.pruned}
        return [
            masks.get(id(weight.variable), np.ones(weight.variable.shape, bool))
            for weight in model.weight_verdicts
            if weight.prunable or weight.reason == REASON
        ]

    def weights(self, at: str, input_shape, classes: int) -> list[np.ndarray]:
        """In the order of the model, statistics of batch normalization included."""
        return _WEIGHTS[at](self, input_shape, classes)

    def last_weights(self, input_shape, classes) -> list[np.ndarray]:
        del input_shape, classes
        return _plain(self.model()).get_weights()

    def first_weights(self, input_shape, classes) -> list[np.ndarray]:
        """They are a function of its flags, the seed among them."""
        if earlier := self.flags.get("weights_from"):
            before = _Run.of(earlier, "weights_from")
            return before.weights(self.flags["weights_at"], input_shape, classes)
        return _drawn(self.flags, input_shape, classes)


_WEIGHTS = {"end": _Run.last_weights, "start": _Run.first_weights}


def check(network: keras.Model, values: Options) -> None:
    """Raises UsageError if the runs that the flags name are none for this network.

    Args:
        network: As it is to be trained, without masks.
        values: The flags.
    """
    if values.masks_from:
        run = _Run.of(values.masks_from, "masks_from")
        shapes = [row.shape for row in granet_tf.summarize(network).rows if row.pruned]
        _check_shapes(run, values, run.masks(), shapes)
        if not values.weights_from and run.flags["seed"] == values.seed:
            raise UsageError(
                "With the same --seed as that run, its masks would get the weights that it began "
                "with. For a lottery ticket say so with --weights_from and --weights_at=start; for "
                "a random reinitialization choose another --seed. "
                f"Received: {run.flag} --seed={values.seed}"
            )
    if values.weights_from:
        run = _Run.of(values.weights_from, "weights_from")
        weights = run.weights(values.weights_at, *_sizes(network))
        _check_shapes(run, values, weights, [tuple(w.shape) for w in network.weights])


def begin(model: keras.Model, name: str, values: Options) -> None:
    """Gives a new model the weights and masks that the flags ask for.

    Args:
        model: A `SparseModel`, or a dense one.
        name: Name of the run; masks are for the one asked for, weights for its twins, too.
        values: The flags, found to be right by `check`.
    """
    plain = _plain(model)
    if values.weights_from:
        run = _Run.of(values.weights_from, "weights_from")
        plain.set_weights(run.weights(values.weights_at, *_sizes(plain)))
    elif values.masks_from:
        # Some of those it was made with are 0, where the masks it was made with had none.
        plain.set_weights(_drawn(flags.as_dict(values), *_sizes(plain)))
    if not isinstance(model, granet_tf.SparseModel):
        return
    masks, gets_masks = [pruned.mask for pruned in model.pruned], name == values.method
    if values.masks_from and gets_masks:
        masks = _Run.of(values.masks_from, "masks_from").masks()
    # Its own, too: the weights are others now, and what is dormant is 0.
    model.set_masks({p.path: mask for p, mask in zip(model.pruned, masks, strict=True)})
    if values.masks_from and gets_masks:
        model.method = dataclasses.replace(model.method, final_sparsity=model.sparsity)


def _drawn(values: Mapping[str, Any], input_shape, classes) -> list[np.ndarray]:
    """The weights that a run of these flags begins with."""
    keras.utils.set_random_seed(values["seed"])
    return models.make(values["model"], input_shape, classes, values["width"]).get_weights()


def _plain(model: keras.Model) -> keras.Model:
    return model.model if isinstance(model, granet_tf.SparseModel) else model


def _sizes(network: keras.Model) -> tuple[tuple[int, ...], int]:
    """Shape of an image, and number of classes."""
    return tuple(network.input_shape[1:]), network.output_shape[-1]


def _check_shapes(run: _Run, values: Options, arrays, shapes: Sequence[tuple[int, ...]]):
    if [tuple(array.shape) for array in arrays] == list(shapes):
        return
    different = [
        f"--{name}={run.flags[name]} instead of {getattr(values, name)}"
        for name in ("model", "width", "dataset", "image_size")
        if run.flags[name] != getattr(values, name)
    ]
    raise UsageError(
        "The run must have trained the same network, and its weights have other shapes. "
        f"Received: {run.flag}, of {', '.join(different) or 'another version of the network'}"
    )
