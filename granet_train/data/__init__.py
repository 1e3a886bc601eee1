"""Data sets: training batches that depend on seed, epoch and step alone, and evaluation sets."""

from __future__ import annotations

from granet_train.data import digits, folder, synthetic, tfds_sets
from granet_train.data.interface import IN_FLAGS, Data, Options, Wording

__all__ = ["OWN", "Data", "Options", "Wording", "load", "names"]

OWN = {"digits": digits.load, "synthetic": synthetic.load, folder.NAME: folder.load}
_TRIED = ("cifar10", "cifar100", "imagenet2012", "mnist")


def names() -> tuple[str, ...]:
    """Names to suggest. `load` also takes that of any other image classification set in tfds.

    Example:

    >>> names()
    ('digits', 'synthetic', 'cifar10', 'cifar100', 'imagenet2012', 'mnist', 'folder')
    """
    first, second, *others = OWN
    return (first, second, *_TRIED, *others)


def load(
    name: str,
    *,
    batch_size: int,
    seed: int,
    data_dir: str | None = None,
    image_size: int | None = None,
    augment: bool = True,
    validation_fraction: float = 0.0,
    download: bool = False,
    skip_corrupt: bool = False,
    deterministic: bool = True,
    wording: Wording = IN_FLAGS,
) -> Data:
    """Opens a data set; small ones are read into memory at once.

    Args:
        name: One of `names()`, of which "folder" is images in a folder for each class; or an image
            classification set of tensorflow_datasets, also with its configuration and version:
            "cifar10_corrupted/blur_1", "cifar10:3.0.2".
        batch_size: Samples of one optimizer step, all replicas together.
        seed: Decides the order and the augmentation.
        data_dir: Where tensorflow_datasets keeps its sets. None: where it keeps them by default. Of
            "folder" the directory that holds the images.
        image_size: Height and width of the images given to the model. None: as the set has them,
            224 where they vary.
        augment: Whether to crop and flip training images at random.
        validation_fraction: Fraction of the training samples, in [0, 1), that is held out as the
            split "validation". The same samples for every seed.
        download: Whether tensorflow_datasets may fetch what is missing. Without it nothing is
            looked up on the network.
        skip_corrupt: Whether to skip and count samples that cannot be read. Without it they end
            the run.
        deterministic: Whether the order is to be a function of `seed` alone where images are
            streamed from files; without it they come as fast as they can.
        wording: What errors call these arguments.

    Raises:
        UsageError: If there is no such set, its files are missing or damaged, or it is too small
            for what was asked for.

    Example:

    >>> data = load("digits", batch_size=64, seed=0)
    >>> data.description
    'digits: 1,437 training and 360 test images of 8×8×1'
    >>> data.steps_per_epoch
    22
    """
    options = Options(
        batch_size=batch_size,
        seed=seed,
        data_dir=data_dir,
        image_size=image_size,
        augment=augment,
        validation_fraction=validation_fraction,
        download=download,
        skip_corrupt=skip_corrupt,
        deterministic=deterministic,
        wording=wording,
    )
    return OWN.get(name, tfds_sets.load)(name, options)
