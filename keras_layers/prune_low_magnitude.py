"""`PruneLowMagnitude`: a Keras layer that carries masks for the layer it wraps."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_layers.carrier import CarriesMasks, carries_masks
from keras_layers.keras_internals import is_called_in_training, is_default
from keras_layers.masking import add_masks, masked_value
from keras_layers.prunable import KnownWeights, Weight, silent_layers, weights_of
from keras_layers.prune_settings import check_are_of_layer, check_reselect, checked_units
from keras_layers.saved_masks import (
    masks_config,
    quantizations,
    quantize_again,
    settled_again,
    with_masks,
    without_masks,
)
from keras_layers.settling import check_trains, settle_when_changed
from keras_layers.transparent import with_signature

# {what granet_tf adds, which has the schedules and the methods: a schedule or function}
_REGISTERED: dict[str, Callable] = {}


def register_methods(method_of: Callable[[PruneLowMagnitude], Any], schedule: Callable) -> None:
    """Says what the settings of wrapped layers mean.

    Args:
        method_of: What makes a method of a layer's settings.
        schedule: That of a layer which is given none.
    """
    _REGISTERED.update(method_of=method_of, schedule=schedule)


@keras.saving.register_keras_serializable("granet_tf")
class PruneLowMagnitude(CarriesMasks, keras.layers.Wrapper):
    """Wraps one layer and prunes its weights to the sparsity that a schedule asks for.

    The wrapper holds the masks and the settings; `granet_tf.SparseOptimizer` updates the masks,
    each weight tensor for itself. `granet_tf.wrap` on a model leaves its wrapped layers their
    settings.

    Args:
        layer: A Keras layer with weights to prune.
        pruning_schedule: A pruning schedule, ours or tfmot's: `step -> (should_prune, sparsity)`.
            One that also regenerates (`granet_tf.GraNetSchedule`) does so in this layer. Without
            one, half of the weights, from step 0 on, every 100 steps, as in tfmot.
        block_size: (inputs, outputs) of the blocks that are pruned as one; of a convolution kernel,
            at each position of the window. (1, 1) is single weights.
        block_pooling_type: "AVG" or "MAX": what of the |w| in a block ranks it.
        sparsity_m_by_n: (m, n): m zeros in every n consecutive inputs of an output, chosen once,
            before the first step, whatever the schedule says. (2, 4) is what others call 2:4
            sparsity; (1, 4) is their 3:4.
        pattern: In place of the three above, a pattern of `granet_tf` or its name, such as
            "litert".
        reselect: Whether the groups of `sparsity_m_by_n` are chosen anew at each update of
            `pruning_schedule`, of which only the steps count, instead of once: by |w| with
            `mask_only=True`, else by what the schedule regenerates.
        mask_only: If True, the original semantics of gradual magnitude pruning: the layer computes
            with w · mask and w keeps its value. If False, a pruned weight is 0.
        prunable: Which weights, also frozen ones: see `granet_tf.wrap`.

    What the wrapper lacks is read from the layer inside: `wrapper.units` is `wrapper.layer.units`,
    and `wrapper.kernel` what the layer computes with: w · mask, if its mask is not in w.
    `get_weights` and `set_weights` are those of the layer, without masks.

    Attributes:
        layer: The layer inside.
        pruned: Its masked weights, each with `path`, `variable` and `mask`; empty until built.
        prunable_weights: The variables among them.

    Raises:
        TypeError: If `pruning_schedule` can't be called.
        ValueError: If `layer` is not a Keras layer, or wrapped already; on blocks or groups that
            are none; on a `dtype` or `autocast` that is not the layer's; when built, if it has
            nothing to prune and is none of Keras's own layers of which nothing ever is, such as a
            normalisation; on a call with mask_only=True, if the layer is rematerialized or a
            `tf.function`.

    Warns:
        UserWarning: When trained without a `granet_tf.SparseOptimizer`, which would leave it
            dense; when built, if a layer in it stays dense, as it does not say what to prune.

    Source: `tfmot.sparsity.keras.PruneLowMagnitude`; Zhu & Gupta (2017).

    Example:

    >>> import granet_tf
    >>> schedule = granet_tf.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=4, frequency=1)
    >>> layer = PruneLowMagnitude(keras.layers.Dense(4), schedule)
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> model.compile(granet_tf.SparseOptimizer("sgd", model), "mse")
    >>> x = keras.random.normal((8, 4))
    >>> history = model.fit(x, x, batch_size=2, verbose=0)
    >>> int(keras.ops.count_nonzero(layer.layer.kernel))
    4
    """

    inside_name = "layer"

    def __init__(
        self,
        layer: keras.Layer,
        pruning_schedule: Callable | None = None,
        block_size: tuple[int, int] = (1, 1),
        block_pooling_type: str = "AVG",
        sparsity_m_by_n: tuple[int, int] | None = None,
        *,
        pattern=None,
        reselect: bool = False,
        mask_only: bool = False,
        prunable=None,
        _masks: Mapping[str, bool] | None = None,
        _is_of_old_file: bool = False,
        **kwargs,
    ):
        if not isinstance(layer, keras.Layer):
            raise ValueError(
                f"`layer` must be a Keras 3 layer. Received: layer={layer!r} of {type(layer)}"
            )
        if carries_masks(layer):
            raise ValueError(f"`layer` has masks of its own already. Received: layer={layer}")
        if pruning_schedule is None:
            pruning_schedule = _REGISTERED.get("schedule")
        if not callable(pruning_schedule):
            raise TypeError(
                "`pruning_schedule` must be a pruning schedule, a callable "
                f"step -> (should_prune, sparsity). Received: {pruning_schedule!r}"
            )
        blocks, groups = checked_units(block_size, block_pooling_type, sparsity_m_by_n, pattern)
        check_reselect(reselect, groups, mask_only, pruning_schedule)
        check_are_of_layer(layer, kwargs)
        kwargs.setdefault("name", f"prune_low_magnitude_{layer.name}")
        # Keras reads off their signatures what to hand to call() and build().
        self.call = with_signature(self.call, layer.call)
        self.build = with_signature(self.build, layer.build)
        super().__init__(layer, **kwargs)
        if not self._trainable:
            layer.trainable = False
        self.pruning_schedule = pruning_schedule
        self.block_size = blocks
        self.block_pooling_type = block_pooling_type
        self.sparsity_m_by_n = groups
        self.pattern = pattern
        self.reselect = reselect
        self.mask_only = mask_only
        self.prunable = prunable
        if not hasattr(layer, "get_prunable_weights"):
            layer.get_prunable_weights = KnownWeights(layer)  # tfmot's users ask the layer.
        self._masks = _masks  # Which to add, where that was decided before it was saved.
        self._has_decided = False
        self._is_of_old_file = _is_of_old_file
        if getattr(layer, "_input_shape_arg", None) is not None:
            self._input_shape_arg = layer._input_shape_arg  # Sequential asks its first layer.
        if layer.built and layer.weights:
            self._add_masks()

    def _maybe_build(self, call_spec):
        # Keras builds a layer that leaves that to its sublayers with the very inputs of the call.
        if not (self.built or self.layer.built):
            with self.layer._open_name_scope():
                self.layer._maybe_build(call_spec)
        super()._maybe_build(call_spec)

    def build(self, *args, **kwargs):
        if not (self.layer.built and self.layer.weights):
            self._build_layer(*args, **kwargs)
        if not self.pruned:
            self._add_masks()
        self.built = True

    def _build_layer(self, *args, **kwargs):
        if not is_default(self.layer.build):
            self.layer.build(*args, **kwargs)
            return
        # A layer without a build() of its own has its sublayers built when it is called.
        shape = next(iter((*args, *kwargs.values())))
        self.layer(keras.tree.map_shape_structure(keras.KerasTensor, shape))

    def _add_masks(self):
        saved = self._masks
        if saved is not None:
            weights = with_masks(self.layer, weights_of(self.layer), saved)
        else:
            weights = weights_of(self.layer, self.prunable)
        if self._is_of_old_file and not any(w.prunable for w in weights):
            # Version 0.1 wrapped nothing frozen: all that is, was frozen later.
            weights = [dataclasses.replace(w, prunable=w.reason == "frozen") for w in weights]
        self.pruned = add_masks(self, weights)
        settle_when_changed(self, [w.layer for w in weights if w.prunable])
        self._has_decided, self._masks = True, None
        if saved is not None:
            self.pruned = settled_again(self.layer, self.pruned, saved)
            return
        # tfmot wraps any layer of Keras, and pruned nothing in, say, a normalisation then.
        as_expected = callable(self.prunable) or (
            self.prunable is None and all(w.is_never_pruned for w in weights)
        )
        if not self.pruned and not as_expected:
            raise ValueError(
                "`layer` must have a weight to prune: a kernel of a dense, convolutional, "
                "recurrent or embedding layer, or what it names in get_prunable_weights(). Name "
                "frozen ones with `prunable`. "
                f"Received: layer={self.layer}, with {[(w.path, w.reason) for w in weights]}"
            )
        silent = silent_layers(self.layer) if self.prunable is None else []
        if silent:
            warnings.warn(
                f"{self.name} leaves {[each.name for each in silent]} dense, as they do not say "
                "what of them to prune. Give them a get_prunable_weights(), or pass "
                "prunable=granet_tf.default_prunable if that is what you want.",
                stacklevel=2,
            )

    def call(self, *args, **kwargs):
        is_training = is_called_in_training(self)
        if is_training:
            check_trains(self)
        if self.pruned and not self.has_optimizer and is_training:
            self.give_to_optimizer()  # To warn once is enough.
            warnings.warn(
                f"{self.name} stays dense, as nothing updates its masks: pass callbacks="
                "[UpdatePruningStep()] to fit(), or train with granet_tf.SparseOptimizer("
                "optimizer, model).",
                stacklevel=2,
            )
        return self.call_inside(args, kwargs)

    @property
    def method(self) -> Any:
        """The `granet_tf.Method` that the settings ask for."""
        if not _REGISTERED:
            raise ImportError(
                "What the settings mean is known to granet_tf, which must be imported. "
                f"Received: layer={self.name}, and keras_layers alone"
            )
        return _REGISTERED["method_of"](self)

    @property
    def updated_with(self) -> tuple:
        """Layers of the same settings are, as that is less to trace in the training step."""
        return repr(self.method), self.mask_only

    @property
    def weight_verdicts(self) -> list[Weight]:
        """All weights of the layer inside, with the verdict on each."""
        return weights_of(self.layer, self.prunable)

    def quantize(self, *args, **kwargs):
        """As the layer inside: dormant weights are 0 first, and then masks stay as they are."""
        return self.layer.quantize(*args, **kwargs)

    def quantized_call(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    @property
    def prunable_weights(self) -> list[keras.Variable]:
        """The weights that have a mask."""
        return [p.variable for p in self.pruned]

    @property
    def trainable(self) -> bool:
        """Whether the layer inside is."""
        return self.layer.trainable if "layer" in vars(self) else self._trainable

    @trainable.setter
    def trainable(self, value):
        self._trainable = self.layer.trainable = bool(value)

    def get_weights(self) -> list:
        """Those of the layer inside."""
        return self.layer.get_weights()

    def set_weights(self, weights):
        self.layer.set_weights(weights)

    def __getattr__(self, name: str) -> Any:
        # A model's own code may read `self.embedding.embeddings` of a layer that is wrapped now.
        if name.startswith("_") or "layer" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = getattr(self.layer, name)
        if not self.mask_only:
            return value
        masked = (p for p in self.pruned if p.variable is value)
        return next(map(self._masked_value, masked), value)

    def _masked_value(self, pruned):
        return masked_value(pruned, straight_through=self.method.straight_through)

    def get_build_config(self):
        return None  # The layer inside has its own, and is built again from that.

    def get_config(self):
        self.pruned = without_masks(self, self.pruned, self.layer.variables)
        config = super().get_config()
        del config["dtype"]  # It is in that of the layer inside.
        return {
            **config,
            "masks": self._masks_config(),
            "quantizations": quantizations(self.layer),
            "pruning_schedule": keras.saving.serialize_keras_object(self.pruning_schedule),
            "block_size": self.block_size,
            "block_pooling_type": self.block_pooling_type,
            "sparsity_m_by_n": self.sparsity_m_by_n,
            "pattern": keras.saving.serialize_keras_object(self.pattern),
            "reselect": self.reselect,
            "mask_only": self.mask_only,
            "prunable": keras.saving.serialize_keras_object(self.prunable),
        }

    def _masks_config(self):
        if self._has_decided:
            return masks_config(self.layer, self.pruned)
        return None if self._masks is None else dict(self._masks)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        layer = keras.saving.deserialize_keras_object(config["layer"], custom_objects)
        return cls.around(layer, config, custom_objects)

    @classmethod
    def around(
        cls, layer: keras.Layer, config: Mapping[str, Any], custom_objects: Mapping | None = None
    ) -> PruneLowMagnitude:
        """`layer` wrapped with the settings of `config`, whatever layer that is about."""
        is_old = "masks" not in config
        config = {**config, "layer": layer, "_is_of_old_file": is_old}
        config.pop("dtype", None)  # In old files, that of the wrapper.
        config["_masks"] = config.pop("masks", None)
        # A layer that a user's class has made knows nothing of these.
        quantize_again(layer, config.pop("quantizations", {}))
        if layer.trainable and not config.get("trainable", True):
            layer.trainable = False
        for name in ("pruning_schedule", "pattern", "prunable"):
            config[name] = keras.saving.deserialize_keras_object(config.get(name), custom_objects)
        return cls(**config)
