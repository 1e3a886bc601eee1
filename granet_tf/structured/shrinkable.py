"""A wrapped model that becomes smaller while it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from granet_tf.optimizer import SparseOptimizer
from granet_tf.structured.coupled_weights import coupled_weights
from granet_tf.structured.history import Shrinking, Shrunk
from keras_layers.masking import forget
from keras_layers.prunable import as_decided, weights_of
from keras_layers.settling import leave_alone


class Shrinkable:
    """To be mixed into `SparseModel`."""

    # What has been removed so far.
    _shrinking: Shrinking

    def replace_inside(self, model: keras.Model, shrinking: Shrinking) -> None:
        """Makes `model`, which has the same weights but maybe smaller ones, the one inside.

        It gets masks, all true. What `compile` has set stays.
        """
        verdicts = [
            as_decided(now, before.decision)
            for now, before in zip(weights_of(model), self.weight_verdicts, strict=True)
        ]
        leave_alone(self)
        is_locked = self._tracker.locked
        self._tracker.unlock()
        forget(self, ("_mask", "_state", "_random_state"))
        self._tracker.untrack(self.model)
        self._shrinking = shrinking
        self._put_inside(model, coupled_weights(model, verdicts, self.method))
        if is_locked:
            self._tracker.lock()
        if self.train_function is not None:
            self.make_train_function(force=True)
        self.test_function = self.predict_function = None

    @property
    def shape_history(self) -> tuple[Shrunk, ...]:
        """What each call of `shrink` has left of the model, the first one first."""
        return self._shrinking.history

    def shrink(
        self,
        optimizer: SparseOptimizer | None = None,
        *,
        kept: Mapping[str, Sequence[int]] | None = None,
        step: int | None = None,
    ) -> Shrunk | None:
        """Removes what coupled filters have pruned so far; training goes on in a smaller model.

        The next step is the one that the larger model would make with the same masks, to rounding:
        weights, masks, optimizer slots, moving averages, iterations, schedules and random states go
        on. Sparsities stay fractions of the channels that there were at first, so that schedules
        end with the same number. What is removed can't be grown again. A layer keeps at least one
        channel.

        This object, its `compile` and its optimizers stay the same, but not their variables: a
        compiled function of a custom loop must be made anew, and variables be asked for again.
        `strip` returns the smaller model from then on; the one that was wrapped stays as it is now.
        `fit` does all this by `granet_tf.Shrink`.

        Args:
            optimizer: What trains the model in a custom loop; None is what `compile` was given.
            kept: {path of a coupled weight: its outputs that stay, as numbered at the beginning},
                in place of those that are alive, to give a model the shape of another one before
                its checkpoint is restored; as in `shape_history[-1].kept`.
            step: Number of updates to note in `shape_history`, that of the other model; None is
                what the optimizer has done.

        Returns:
            A `granet_tf.structured.Shrunk`, also the last one of `shape_history`; None if nothing
            is to be removed.

        Raises:
            ValueError: If no filters are coupled, if another model trains this one, if `kept` has
                an unknown path, or if an optimizer keeps what can't be made smaller.

        Example:

        >>> import granet_tf
        >>> layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
        >>> method = granet_tf.StaticSparse(0.5, pattern="coupled_filter")
        >>> model = granet_tf.wrap(keras.Sequential(layers), method)
        >>> model.shrink().parameters, granet_tf.strip(model).layers[0].units
        ((58, 30), 4)
        """
        from granet_tf.structured.shrinking import shrink  # Few programs have a use for it.

        return shrink(self, optimizer, kept, step)
