"""How a set is usually normalised and augmented, which tensorflow_datasets does not tell."""

from __future__ import annotations

import dataclasses

from granet_tf.imagenet import normalization_of
from granet_train.data.augment import NONE, Augmentation
from granet_train.data.pixels import Scaling

_GRAY, IMAGENET = (Scaling.of_fractions(*normalization_of(channels)) for channels in (1, 3))


@dataclasses.dataclass(frozen=True)
class Facts:
    """About one set; the defaults are for one that is not known here.

    Attributes:
        scaling: How pixels become numbers. None: measured on the training images where these are
            in memory, else as for ImageNet.
        flip: Whether an image seen in a mirror is still one of its class.
        test: The split to test on. None: "test", or "validation" where there is none.
        manual: Files that their owner gives to registered users only, from which the set is
            prepared without any download.
    """

    scaling: Scaling | None = None
    flip: bool = True
    test: str | None = None
    manual: tuple[str, ...] = ()


_WRITING = Facts(flip=False)
_IMAGENET = Facts(
    scaling=IMAGENET,
    test="validation",  # The labels of its test split are not public.
    manual=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
)
_KNOWN = {
    # The authors' code divides CIFAR-10 by (0.2023, 0.1994, 0.2010), the mean over images of each
    # one's own deviation.
    "cifar10": Facts(Scaling.of_fractions((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
    "cifar100": Facts(Scaling.of_fractions((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))),
    "imagenet2012": _IMAGENET,
    "svhn_cropped": _WRITING,
    "cmaterdb": _WRITING,
}


def of(name: str) -> Facts:
    """Facts about a set, whatever its configuration and version.

    Example:

    >>> of("svhn_cropped:3.0.0").flip, of("beans").flip
    (False, True)
    """
    return _KNOWN.get(base_name(name), Facts())


def base_name(name: str) -> str:
    """Without configuration and version.

    Example:

    >>> base_name("cifar10_corrupted/blur_1"), base_name("cifar10:3.0.2")
    ('cifar10_corrupted', 'cifar10')
    """
    return name.partition("/")[0].partition(":")[0]


def augmentation(facts: Facts, shape: tuple[int, int, int]) -> Augmentation:
    """What is done to training images that are in memory: nothing unless they are in colour.

    Images without colour are mostly drawings and writing, which a mirror spoils.

    Args:
        shape: Of an image, as the set has it.

    Example:

    >>> augmentation(of("cifar10"), (32, 32, 3))
    Augmentation(padding=4, flip=True)
    >>> augmentation(of("mnist"), (28, 28, 1))
    Augmentation(padding=0, flip=False)
    """
    height, _, channels = shape
    return Augmentation(padding=height // 8, flip=facts.flip) if channels == 3 else NONE


def streamed_scaling(facts: Facts, channels: int) -> Scaling:
    """How pixels become numbers where the training images cannot be measured first.

    Example:

    >>> streamed_scaling(of("imagenet2012"), 3) == streamed_scaling(of("places365_small"), 3)
    True
    """
    return facts.scaling or {3: IMAGENET}.get(channels, _GRAY)
