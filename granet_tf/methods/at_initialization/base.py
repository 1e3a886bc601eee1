"""What methods that choose the masks before training have in common."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from granet_tf.methods.base import Method
from granet_tf.methods.parameters import parameter
from granet_tf.schedules import RoundsBeforeTraining
from keras_layers.masking import some_are_dormant


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AtInitialization(Method):
    """Base class: masks that are chosen by a saliency before training, and never change.

    Until they are, a model is dense. What needs no data is chosen in `granet_tf.wrap`. What does,
    is chosen when the first `fit` begins, from the first batches that `fit` is given, or in a
    custom training loop by `SparseModel.start(batches)`.

    A subclass implements `saliency`. Where that changes with what is pruned, it derives from
    `InRounds`, and where it looks at batches, from `FromBatches`.

    Args:
        final_sparsity: The sparsity, all through training, in (0, 1).
        **kwargs: See `Method`. `scope` is "global" here, and `distribution`, which counts in scope
            "layer", "uniform".

    Raises:
        ValueError: On a parameter out of range.
    """

    final_sparsity: float = parameter(
        0.9, "Fraction of zeros, all through training.", above=0, below=1
    )
    _: dataclasses.KW_ONLY
    scope: str = "global"
    distribution: str | Callable = "uniform"
    rounds: ClassVar[int] = 1

    def saliency(
        self,
        model: Any,
        batches: Sequence[Any] = (),
        loss: Any = None,
        masks: Sequence[tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """{path: score of each weight}; the highest stay.

        Args:
            model: A `SparseModel`.
            batches: `(x, y)` or `(x, y, sample_weight)` each; none unless `needs_data`.
            loss: As for `compile`. None is the one that the model was compiled with.
            masks: Of `model.pruned`; None are its own. Masked weights count as 0.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement saliency()")

    @property
    def initial_sparsity(self):
        return 0.0

    @property
    def regenerates(self):
        return False

    def make_schedule(self):
        return RoundsBeforeTraining(self.final_sparsity, self.rounds)

    def drop_score(self, weight, gradient, seed):
        """The saliency: `draw_masks` hands it over in place of the weight. No step is due."""
        return weight

    def draw_masks(
        self, model: Any, batches: Iterable[Any] = (), loss: Any = None
    ) -> dict[str, tf.Tensor]:
        """{path: mask} to train a model with; the model stays as it is.

        Args:
            model: A `SparseModel`.
            batches: `(x, y)` or `(x, y, sample_weight)` each, from which the first are taken.
            loss: As for `compile`. None is the one that the model was compiled with.

        Raises:
            ValueError: If there are not enough batches, if there is no loss where one is needed, or
                if the saliency tells nothing.
        """
        layouts = {p.path: p.layout for p in model.pruned}
        self.check_fits({p.path: tuple(p.variable.shape) for p in model.pruned}, layouts)
        batches = self._as_many_as_asked_for(batches)
        paths = [p.path for p in model.pruned]
        masks = [tf.convert_to_tensor(p.mask) for p in model.pruned]
        for step in range(1 - self.rounds, 1):
            scores = self.saliency(model, batches, loss, masks)
            scores = list(comparable({path: scores[path] for path in paths}).values())
            nothing = [None] * len(paths)
            masks, _ = self.update_masks(
                tf.constant(step), paths, scores, masks, nothing, layouts=layouts
            )
        drawn = dict(zip(paths, masks, strict=True))
        self._check_some_are_dormant(drawn)
        return drawn

    def check_drawn(self, pruned):
        if not some_are_dormant(pruned):
            raise RuntimeError(
                f"The masks of {type(self).__name__} must be drawn before the first step, and were "
                "not. The first fit() does it. In a custom training loop, or around "
                "train_on_batch(), call start(batches) of the wrapped model once, before the loop. "
                f"Received: {len(pruned)} masks with no zero"
            )

    def _as_many_as_asked_for(self, batches):
        wanted = self.batches if self.needs_data else 0
        taken = list(itertools.islice(batches, wanted))
        if len(taken) < wanted:
            raise ValueError(
                f"`batches` must be {wanted} or more, for {type(self).__name__} to choose by: "
                "(x, y) or (x, y, sample_weight) each. "
                f"Received: {len(taken)} batches"
            )
        return taken

    def _check_some_are_dormant(self, masks):
        if all(bool(tf.reduce_all(mask)) for mask in masks.values()):
            size = sum(mask.shape.num_elements() for mask in masks.values())
            raise ValueError(
                "`final_sparsity` must be high enough to prune a weight. Received: "
                f"final_sparsity={self.final_sparsity}, of {size} weights, pinned={self.pinned}, "
                f"capped={self.capped}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InRounds(AtInitialization):
    """Base class: the final sparsity is come to in rounds, each by a saliency of what is left.

    Args:
        rounds: How many.
        **kwargs: See `AtInitialization` and `Method`.
    """

    rounds: int = parameter(
        1, "In how many rounds to come to the final sparsity, before training.", at_least=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FromBatches(InRounds):
    """Base class: the saliency looks at the first batches of data.

    Args:
        batches: At how many.
        **kwargs: See `InRounds`, `AtInitialization` and `Method`.
    """

    batches: int = parameter(
        1, "How many of the first training batches to choose the masks by.", at_least=1
    )

    @property
    def needs_data(self):
        return True


def comparable(scores: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The same scores in float32, which ranks them: all divided by one power of two.

    That is exact, so their order stays, whatever they overflow in float32. What is beyond 1e38
    times smaller than the largest becomes 0.

    Raises:
        ValueError: If a score is no finite number, or all are 0.

    Example:

    >>> huge = tf.constant([2.0**200, -3.0 * 2.0**200], tf.float64)
    >>> comparable({"kernel": huge})["kernel"].numpy().tolist()
    [0.25, -0.75]
    """
    largest = {path: float(tf.reduce_max(tf.abs(score))) for path, score in scores.items()}
    unfit = [path for path, most in largest.items() if not math.isfinite(most)]
    if unfit:
        raise ValueError(
            "The saliency must be finite. Look at the data and at the loss of the untrained model, "
            f"or choose other initial weights. Received: NaN or infinity in {unfit}"
        )
    most = max(largest.values())
    if most == 0.0:
        raise ValueError(
            "The saliency must tell weights apart. Look whether the loss depends on the model's "
            f"weights, and whether these are 0. Received: nothing but 0 in {list(scores)}"
        )
    _, exponent = math.frexp(most)
    return {
        path: tf.cast(tf.cast(score, tf.float64) * 2.0**-exponent, tf.float32)
        for path, score in scores.items()
    }
