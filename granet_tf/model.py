"""`wrap` and `SparseModel`: masks around a model, without cloning it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from granet_tf.masks.patterns import Pattern
from granet_tf.methods import Method
from granet_tf.optimization.groups import count_active
from granet_tf.schedules import PACKAGE
from granet_tf.structured.coupled_weights import CoupledWeights, coupled_weights
from granet_tf.structured.history import Shrinking
from granet_tf.structured.shrinkable import Shrinkable
from granet_tf.wrapping import first_batches
from granet_tf.wrapping.checks import (
    check_model,
    checked_mask,
    checked_mask_only,
    checked_method,
    nothing_to_prune,
)
from granet_tf.wrapping.compiling import (
    SparseCompile,
    arguments_of_fit,
    optimizers_of,
    put_sparse_optimizers,
    sparse_part,
    with_callback,
)
from granet_tf.wrapping.ending import warn_of_short_training
from granet_tf.wrapping.files import SavedWithMasks
from granet_tf.wrapping.following import FollowTraining, resolve_for
from granet_tf.wrapping.own_classes import Pickled, own_class
from granet_tf.wrapping.own_methods import taken_names, warn_of_taken_names, with_methods_of
from granet_tf.wrapping.showing_inside import ShowsInside
from granet_tf.wrapping.spared import spare_outputs
from granet_tf.wrapping.states import add_states, snapshot
from granet_tf.wrapping.stripping import masked_weights, pruned_weights
from keras_layers.carrier import CarriesMasks
from keras_layers.held import hold
from keras_layers.keras_internals import (
    in_stateless_scope,
    is_called_in_training,
)
from keras_layers.masking import PrunedWeight, add_masks, masked_value, track
from keras_layers.prunable import Weight, as_decided, weights_of
from keras_layers.settling import (
    check_mode,
    check_trains,
    is_settled,
    is_watched,
    settle_when_changed,
    settled,
)
from keras_layers.transparent import with_signature


def wrap(
    model: keras.Model,
    method: Method | None = None,
    *,
    pattern: str | Pattern | None = None,
    mask_only: bool = False,
    prunable: Callable | Sequence[str] | None = None,
    start: bool = True,
    track_explored: bool = False,
) -> SparseModel:
    """Makes a model train sparse. The model itself is used, not a copy.

    Args:
        model: A built Keras 3 model: functional, sequential or subclassed, also nested or with
            shared layers. Layers in it that are wrapped in PruneLowMagnitude keep their settings.
        method: How masks evolve; None is `GraNet()`: to 90 % sparsity, dense at first, pruned
            until half of the training that `fit` is asked for.
        pattern: What is pruned as one unit, in place of the method's own `pattern`: a pattern or
            its name, such as "litert" or "mnn" for what these engines run fast; see
            `granet_tf.Method`.
        mask_only: False sets pruned weights to zero, as the paper does. True is the original
            gradual magnitude pruning: the model computes with w · mask, w keeps its value.
        prunable: Which weights. None is `granet_tf.default_prunable`, but a pattern that removes
            whole units, such as "filter", spares those that are outputs of the model; else a
            callable `(layer, weight) -> bool`, or a list of patterns of weight paths such as
            `["encoder/*/kernel"]`.
        start: Whether a method that chooses masks once, and needs no data for that (SynFlow),
            does so now. False leaves it to the first `fit`, or `SparseModel.start`: good where a
            checkpoint is going to bring the masks.
        track_explored: Whether to keep, at a byte a weight, which weights have ever been active:
            `SparseModel.itop_rate` is their fraction (Liu et al., 2021).

    Returns:
        A `SparseModel`, to compile and fit as usual.

    Raises:
        TypeError: If `model` is not a Keras 3 model, `method` not a method or `pattern` not a
            pattern.
        ValueError: If `model` is wrapped already, is not built, or has nothing to prune; on a
            pattern's name that is none.

    Example:

    >>> import granet_tf
    >>> keras_model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    >>> model = granet_tf.wrap(keras_model)
    >>> model.compile("sgd", "mse")
    >>> x, y = np.random.rand(64, 8), np.random.rand(64, 10)
    >>> history = model.fit(x, y, batch_size=4, epochs=4, verbose=0)
    >>> model.nonzeros, granet_tf.strip(model) is keras_model
    (8, True)
    """
    check_model(model)
    warn_of_taken_names(model, SparseModel)
    method = checked_method(method)
    if pattern is not None:
        method = dataclasses.replace(method, pattern=pattern)
    with model.distribute_strategy.scope():
        sparse = SparseModel(
            model, method, mask_only=mask_only, prunable=prunable, track_explored=track_explored
        )
    if start and not sparse.has_drawn and not sparse.method.needs_data:
        sparse.start()
    return sparse


@keras.saving.register_keras_serializable(PACKAGE)
class SparseModel(
    Pickled, ShowsInside, SavedWithMasks, Shrinkable, SparseCompile, CarriesMasks, keras.Model
):
    """A Keras model and the masks of its weights; made by `granet_tf.wrap`.

    Attributes:
        model: The user's model.
        method: The method, with durations resolved once `fit` has begun.
        mask_only: Whether dormant weights keep their value.
        track_explored: Whether it is kept which weights have ever been active.
        pruned: The masked weights, each with `path`, `variable` and `mask`.

    A model of a class of your own keeps the methods of that class, such as `train_step`,
    `compute_loss` or `metrics`: then this is an instance of that class, too, and `self` in them is
    the wrapped model. What that lacks is read from the model inside, such as layers in attributes,
    or the `inputs`, `outputs` and `output_names` of a functional model. What these methods assign
    to an attribute that the model inside has, goes there.
    """

    inside_name = "model"

    model: keras.Model
    method: Method
    mask_only: bool
    track_explored: bool
    pruned: tuple[PrunedWeight, ...]

    def __new__(cls, model: keras.Model | None = None, *args, **kwargs):
        if cls is SparseModel and model is not None and not taken_names(model, SparseModel):
            cls = with_methods_of(own_class(model), SparseModel)
        return super().__new__(cls)

    def __init__(
        self,
        model: keras.Model,
        method: Method | None = None,
        *,
        mask_only: bool = False,
        prunable: Callable | Sequence[str] | None = None,
        track_explored: bool = False,
        _verdicts: Sequence[Weight] | None = None,
        _shrunk: Shrinking | None = None,
        **kwargs,
    ):
        kwargs.setdefault("name", f"sparse_{model.name}")
        self.call = with_signature(self.call, model.call)
        super().__init__(**kwargs)
        self.method = checked_method(method)
        self.mask_only = checked_mask_only(self.method, mask_only)
        self.track_explored = track_explored
        weights = weights_of(model, prunable) if _verdicts is None else _verdicts
        if prunable is None and _verdicts is None:
            weights, self.method = spare_outputs(model, weights, self.method)
        coupled = coupled_weights(model, weights, self.method, asked_for=prunable is not None)
        weights, self.method = coupled.weights, coupled.method
        none = not any(w.prunable for w in weights) and not pruned_weights(model)
        if none and _verdicts is None:
            raise ValueError(nothing_to_prune(model, weights))
        self._shrinking = Shrinking() if _shrunk is None else _shrunk
        self._put_inside(model, coupled)
        for metric in model._metrics:
            self._tracker.add_to_store("metrics", metric)
        self._emptied: set[str] = set()
        self._begin()
        self.built = True

    def _put_inside(self, model: keras.Model, coupled: CoupledWeights) -> None:
        """Makes `model` the one inside, with masks, all true, of the weights that are prunable."""
        weights = coupled.weights
        self.model = model
        self._decided = tuple(weights)
        masked = self._shrinking.applied(coupled.applied(add_masks(self, weights)))
        self.held = coupled.held(masked)
        self.pruned = add_states(self, masked, self.method, self.track_explored)
        self.watch_layers()
        done = {w.path for w in weights if w.settled}
        self.pruned = tuple(settled(p, p.variable) if p.path in done else p for p in self.pruned)
        # Keras saves weights only. Dropout goes on where it was if its random state is one of ours.
        own = {id(v) for v in model.non_trainable_weights}
        states = [v for v in model.non_trainable_variables if id(v) not in own]
        track(self, "_random_state", states)

    @property
    def weight_verdicts(self) -> tuple[Weight, ...]:
        """The model's weights as they are now, and whether and why each was to be pruned."""
        masked = {p.path: p for p in self.pruned}
        decided = {}
        for weight in self._decided:
            pruned = masked.get(weight.path)
            variable = pruned.variable if pruned else weight.variable
            decided[id(variable)] = weight.decision | {
                "settled": bool(pruned and is_settled(pruned))
            }
        return tuple(as_decided(w, decided.get(id(w.variable))) for w in weights_of(self.model))

    def watch_layers(self) -> None:
        """Keeps the masks true when `quantize` or `enable_lora` of a layer inside is called."""
        masked = {p.path for p in self.pruned}
        settle_when_changed(self, [w.layer for w in self._decided if w.path in masked])

    def _begin(self):
        if not self.pruned:
            return
        masks = {}
        begun = self.method.initial_state([snapshot(p) for p in self.pruned])
        for pruned, first in zip(self.pruned, begun, strict=True):
            masks[pruned.path] = first.mask
            for name, value in first.state.items():
                pruned.state[name].assign(value)
        self.set_masks(masks)

    def set_masks(self, masks: Mapping[str, Any]) -> None:
        """Gives weights other masks, such as those of another run, to begin training with.

        In zero mode, what they leave out is 0 from then on. The method goes on from these masks
        when its next update is due; `granet_tf.StaticSparse` keeps them. Slots of an optimizer
        that has trained already stay as they are.

        Args:
            masks: {path, as in `pruned`: bool array of the weight's shape, True where it is
                active}. A weight that is left out keeps its mask.

        Raises:
            ValueError: If a path is none, or a mask is not bool or of another shape. Then no mask
                is changed.

        Example:

        >>> import granet_tf
        >>> layers = [keras.Input((2,)), keras.layers.Dense(2)]
        >>> model = granet_tf.wrap(keras.Sequential(layers), granet_tf.StaticSparse(0.0))
        >>> model.set_masks({model.pruned[0].path: np.eye(2, dtype=bool)})
        >>> int(np.count_nonzero(model.get_weights()[0])), model.nonzeros
        (2, 2)
        """
        by_path = {p.path: p for p in self.pruned}
        checked = {path: checked_mask(path, mask, by_path) for path, mask in masks.items()}
        for path, mask in checked.items():
            pruned = by_path[path]
            pruned.mask.assign(mask)
            if pruned.explored is not None:
                pruned.explored.assign(pruned.mask)
            if not self.mask_only:
                pruned.variable.assign(masked_value(pruned))
        hold(self)

    def start(self, batches: Iterable = (), loss: Any = None) -> None:
        """Draws the masks of a method that chooses them before training, from data: SNIP, GraSP.

        The first `fit` does this by itself, from the first batches that it is given. In a custom
        training loop, call it once before the first step; on several workers, on each of them with
        its share of the data: gradients are averaged, so that all get the same masks.

        Args:
            batches: `(x, y)` or `(x, y, sample_weight)` each, global batches under a strategy.
                As many are taken as the method asks for.
            loss: As for `compile`. None is the one that the model was compiled with.

        Raises:
            ValueError: If the masks are drawn already, as other methods do in `wrap`; if there is
                no loss or not enough data; or if the gradients tell nothing.

        Warns:
            UserWarning: If nothing is left of a layer.

        Example:

        >>> import granet_tf
        >>> keras_model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
        >>> model = granet_tf.wrap(keras_model, granet_tf.SNIP(0.9))
        >>> model.start([(np.random.rand(32, 8), np.random.rand(32, 10))], loss="mse")
        >>> model.nonzeros
        8
        """
        if self.has_drawn:
            raise ValueError(
                "`start` is for methods that choose masks from data before training, such as "
                "granet_tf.SNIP, and to be called once. The masks of this model are drawn already. "
                f"Received: method={self.method}, at sparsity {self.sparsity:.4f}"
            )
        with self.distribute_strategy.scope():
            batches = first_batches.merged(batches)
            self.set_masks(self.method.draw_masks(self, batches, loss))
        self.warn_of_emptied()

    @property
    def has_drawn(self) -> bool:
        """Whether the masks are those that training begins with, or later ones."""
        try:
            self.method.check_drawn(self.pruned)
        except RuntimeError:
            return False
        return True

    def warn_of_emptied(self) -> None:
        """Warns of each layer that has been pruned away, once."""
        for pruned in self.pruned:
            if pruned.path not in self._emptied and not np.any(pruned.mask.numpy()):
                self._emptied.add(pruned.path)
                warnings.warn(
                    f"All of {pruned.path} has been pruned: nothing passes through it any more. "
                    f"Cap it, as with capped={{{pruned.path!r}: 0.99}}, or use scope='layer'.",
                    stacklevel=3,
                )

    @property
    def nonzeros(self) -> int:
        """Number of active prunable weights: those the mask keeps, and any other that is not 0."""
        return count_active(self)[0]

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the prunable weights."""
        active, size = count_active(self)
        return 1.0 - active / size

    @property
    def itop_rate(self) -> float:
        """Fraction of the prunable weights that have ever been active (Liu et al., 2021)."""
        if not self.track_explored:
            raise ValueError(
                "The weights ever active are only known if they are kept track of from the start: "
                "granet_tf.wrap(model, method, track_explored=True). Received: track_explored=False"
            )
        explored = [p.explored.numpy() for p in self.pruned]
        return sum(int(np.count_nonzero(e)) for e in explored) / sum(e.size for e in explored)

    def call(self, *args, **kwargs):
        is_training = is_called_in_training(self)
        # Nothing is trained in a stateless scope, as of a model that is being built.
        if is_training and not self.has_optimizer and not in_stateless_scope():
            self._ask_for_optimizer()
        return self.call_inside(args, kwargs)

    def _ask_for_optimizer(self):
        """Where another model trains this one, as in distillation, its optimizer takes part."""
        trainer = self._get_call_context().entry_layer
        has_optimizer = isinstance(trainer, keras.Model) and bool(optimizers_of(trainer))
        if has_optimizer and trainer.distribute_strategy.num_replicas_in_sync == 1:
            with tf.init_scope():
                history = getattr(trainer, "history", None)  # Which fit() has just begun.
                resolve_for(trainer, {} if history is None else history.params)
                put_sparse_optimizers(trainer)
        else:
            self.give_to_optimizer()  # To warn once is enough.
            warnings.warn(
                f"{self.name} is trained by an optimizer that knows nothing of its masks: they "
                "stay as they are, and what is pruned comes back. Train with granet_tf."
                "SparseOptimizer(optimizer, model), or pass callbacks=[granet_tf.sparsity.keras."
                "UpdatePruningStep()] to fit().",
                stacklevel=2,
            )

    def _get_regularization_losses(self):
        penalties = (
            self.method.penalty(tf.convert_to_tensor(p.variable), p.mask, p.state)
            for p in (self.pruned if self.method.has_penalty else ())
        )
        return [*self._regularization_losses(), *(x for x in penalties if x is not None)]

    def _regularization_losses(self):
        if not (self.mask_only and self.method.regenerates):
            return super()._get_regularization_losses()
        # What regenerates is ranked by d loss / d (w · mask), so kept values must not be in the
        # loss. Plain GMP regularises them, as the original does.
        values = {id(v): v for v in self.trainable_variables}
        masked = {
            id(p.variable): masked_value(p, straight_through=self.method.straight_through)
            for p in self.pruned
            if p.variable.regularizer is not None
        }
        mapping = [(v, masked.get(key, v)) for key, v in values.items()]
        with keras.StatelessScope(mapping):
            return super()._get_regularization_losses()

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; the first one fixes durations given as fractions of training.

        A method that chooses masks by data draws them from the first batches. None of these is lost
        to training; arrays give a random sample.
        """
        arguments = arguments_of_fit(*args, **kwargs)
        if not self.has_drawn:
            arguments = self._started(arguments)
        follow = FollowTraining(arguments.get("initial_epoch", 0))
        # Before a callback that restores an earlier session, of the same length.
        callbacks = with_callback(arguments.pop("callbacks", None), follow, self, first=True)
        return super().fit(callbacks=callbacks, **arguments)

    def _started(self, arguments):
        """Draws the masks, and returns arguments for `fit` as if the data were untouched."""
        self._assert_compile_called("fit")
        if self._sparse_steps > 0:
            return arguments
        count = self.method.batches if self.method.needs_data else 0
        with self.distribute_strategy.scope():
            batches, arguments = first_batches.of_fit(arguments, count, self.method.seed)
        self.start(batches)
        return arguments

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.export`, of the model that was wrapped, its weights masked."""
        with masked_weights(self) as plain:
            return plain.export(filepath, *args, **kwargs)

    @property
    def _sparse_steps(self) -> int:
        """Finished updates since sparse training began."""
        part = sparse_part(getattr(self, "optimizer", None))
        return 0 if part is None else part.steps

    def resolve(self, total_steps: int) -> None:
        """Fixes durations given as fractions, for a training of `total_steps` optimizer steps.

        `fit` calls this. In a custom loop, call it once, or give the method its `total_steps`.

        Warns:
            UserWarning: If the training is too short to reach the final sparsity, or for a single
                update of the masks.
        """
        self.method = self.method.resolve(total_steps)
        warn_of_short_training(self.method)

    def quantize(self, mode: str | None = None, config: Any = None, **kwargs: Any) -> Any:
        """As `keras.Model.quantize`: dormant weights are 0 first, and then masks stay as they are.

        Such a model is not trained any more; `granet_tf.strip` makes it a plain one.

        Raises:
            ValueError: If `mode` is neither "int8" nor "float8": others change zeros, or pack
                several weights into one. Quantize `granet_tf.strip(model)` then.
        """
        check_mode(mode, config)
        self.watch_layers()
        return self.model.quantize(mode, config=config, **kwargs)

    def quantized_call(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    def make_train_function(self, force=False):
        check_trains(self)
        if not is_watched(self):  # strip() ends that, and training may go on.
            self.watch_layers()
        return super().make_train_function(force)
