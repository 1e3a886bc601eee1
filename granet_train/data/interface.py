"""What the training loop sees of a data set, and what can be asked of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from granet_train.errors import UsageError

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set in batches, for any number of hosts and replicas.

    Attributes:
        description: The set in a few words.
        input_shape: Shape of one image: (height, width, channels).
        classes: Number of classes.
        batch_size: Samples of one optimizer step, all replicas together.
        sizes: Samples of each split: "train", "test", and "validation" where it was held out.
        train: Function of (epoch from 0, first step within the epoch, `tf.distribute.InputContext`)
            that makes a `tf.data.Dataset` of (images float32, labels int32) in batches of one
            replica. It ends with the epoch; the replicas of a host draw from it in turn, and hosts
            read disjoint samples. Its batches are a function of the seed and these arguments.
        evaluate: Function of (split, `tf.distribute.InputContext`) that makes a `tf.data.Dataset`
            of (images float32, labels int32, weights float32). Each sample comes once with
            weight 1; full batches are made up by samples of weight 0, so that each replica of each
            host gets the same number of them.
        skipped: Samples this process could not read and has skipped so far.
        explain: Function of an error that came out of an iterator. Returns an error that names the
            damaged file and record if that was the reason, else the error given. May read all
            files of the set.
    """

    description: str
    input_shape: tuple[int, ...]
    classes: int
    batch_size: int
    sizes: Mapping[str, int]
    train: Callable[[int, int, Any], Any]
    evaluate: Callable[[str, Any], Any]
    skipped: Callable[[], int]
    explain: Callable[[Exception], Exception]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; samples that fill no batch are left out."""
        return self.sizes[TRAIN] // self.batch_size


@dataclasses.dataclass(frozen=True)
class Wording:
    """What a set and its options are called where they are given, so that errors can name them.

    The defaults are the flags of granet-train.

    Attributes:
        dataset: How the name of a set is given, {} in its place.
        data_dir: How its directory is given.
        fetch: What fetches a set, {} in the place of its name.
        folder: What reads images in a folder for each class, a sentence.
        skip: What goes on without what cannot be read, after "Restore the file".
        resize: What makes images of different sizes one size, after "give".
    """

    dataset: str = "--dataset={}"
    data_dir: str = "--data_dir={}"
    fetch: str = "--download"
    folder: str = "Images in a folder for each class are --dataset=folder --data_dir=DIR."
    skip: str = ", or go on without what cannot be read with --skip_corrupt"
    resize: str = "--image_size, to which they are cropped and scaled"


IN_FLAGS = Wording()
"""For granet-train."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of `load`, which documents them."""

    batch_size: int
    seed: int
    data_dir: str | None = None
    image_size: int | None = None
    augment: bool = True
    validation_fraction: float = 0.0
    download: bool = False
    skip_corrupt: bool = False
    deterministic: bool = True
    wording: Wording = IN_FLAGS


def split_sizes(train: int, test: int, options: Options) -> dict[str, int]:
    """Sizes of the splits after holding out what validation needs.

    Args:
        train: Samples to train on, those to be held out included.
        test: Samples to test on.

    Raises:
        UsageError: If a split would be empty, or smaller than one batch.

    Example:

    >>> split_sizes(50_000, 10_000, Options(batch_size=128, seed=0, validation_fraction=0.1))
    {'train': 45000, 'validation': 5000, 'test': 10000}
    """
    fraction = options.validation_fraction
    if not 0.0 <= fraction < 1.0:
        raise UsageError(
            "A part of the training samples can be held out, not all of them. "
            f"Received: --validation_fraction={fraction}"
        )
    held_out = round(fraction * train)
    if fraction and not 0 < held_out < train:
        raise UsageError(
            f"Of the {train:,} training samples {held_out:,} would be held out, and "
            f"{train - held_out:,} left. Received: --validation_fraction={fraction}"
        )
    if options.batch_size > train - held_out:
        raise UsageError(
            f"A batch cannot hold more than the {train - held_out:,} training samples. "
            f"Received: --batch_size={options.batch_size}"
        )
    if not test:
        raise UsageError("There are no samples to test on. Received: an empty test split")
    validation = {VALIDATION: held_out} if held_out else {}
    return {TRAIN: train - held_out, **validation, TEST: test}


def describe(name: str, sizes: Mapping[str, int], shape: tuple[int, ...]) -> str:
    """The set in a few words.

    Example:

    >>> describe("mnist", {"train": 60_000, "test": 10_000}, (28, 28, 1))
    'mnist: 60,000 training and 10,000 test images of 28×28×1'
    """
    words = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}
    *others, last = [f"{size:,} {words[split]}" for split, size in sizes.items()]
    return f"{name}: {', '.join(others)} and {last} images of {'×'.join(map(str, shape))}"
