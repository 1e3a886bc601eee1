"""`PruneLowMagnitude`: a Keras layer that carries masks for the layer it wraps."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from keras_layers.masking import add_masks, masked_call
from keras_layers.prunable import carries_masks, weights_of


@keras.saving.register_keras_serializable("granet_tf")
class PruneLowMagnitude(keras.layers.Wrapper):
    """Wraps one layer and prunes its weights to the sparsity that a schedule asks for.

    The wrapper holds the masks and the settings; `granet_tf.SparseOptimizer` updates the masks,
    each weight tensor for itself. `granet_tf.wrap` on a model leaves its wrapped layers their
    settings.

    Args:
        layer: A Keras layer with weights to prune.
        pruning_schedule: A pruning schedule, ours or tfmot's: `step -> (should_prune, sparsity)`.
            One that also regenerates (`granet_tf.GraNetSchedule`) does so in this layer.
        mask_only: If True, the original semantics of gradual magnitude pruning: the layer computes
            with w · mask and w keeps its value. If False, a pruned weight is 0.
        prunable: Which weights: see `granet_tf.wrap`.

    Raises:
        TypeError: If `layer` is not a Keras layer, or `pruning_schedule` can't be called.
        ValueError: If `layer` is wrapped already; when built, if it has nothing to prune.

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

    def __init__(
        self,
        layer: keras.Layer,
        pruning_schedule: Callable,
        *,
        mask_only: bool = False,
        prunable=None,
        **kwargs,
    ):
        if not isinstance(layer, keras.Layer):
            raise TypeError(
                f"`layer` must be a Keras 3 layer. Received: layer={layer!r} of {type(layer)}"
            )
        if carries_masks(layer):
            raise ValueError(f"`layer` has masks of its own already. Received: layer={layer}")
        if not callable(pruning_schedule):
            raise TypeError(
                "`pruning_schedule` must be a pruning schedule, a callable "
                f"step -> (should_prune, sparsity). Received: {pruning_schedule!r}"
            )
        kwargs.setdefault("name", f"prune_low_magnitude_{layer.name}")
        # Keras reads off their signatures what to hand to call() and build().
        self.call = _with_signature(self.call, layer.call)
        self.build = _with_signature(self.build, layer.build)
        super().__init__(layer, **kwargs)
        self.pruning_schedule = pruning_schedule
        self.mask_only = mask_only
        self.prunable = prunable
        self.pruned = ()
        self.supports_masking = layer.supports_masking
        if layer.built and layer.weights:
            self._add_masks()

    def build(self, *args, **kwargs):
        if not (self.layer.built and self.layer.weights):
            self._build_layer(*args, **kwargs)
        if not self.pruned:
            self._add_masks()
        self.built = True

    def _build_layer(self, *args, **kwargs):
        if not getattr(self.layer.build, "_is_default", False):
            self.layer.build(*args, **kwargs)
            return
        # A layer without a build() of its own has its sublayers built when it is called.
        shape = next(iter((*args, *kwargs.values())))
        self.layer(keras.tree.map_shape_structure(keras.KerasTensor, shape))

    def _add_masks(self):
        self.pruned = add_masks(self, weights_of(self.layer, self.prunable))
        if not self.pruned:
            raise ValueError(
                "`layer` must have a weight to prune: a kernel of a dense, convolutional, "
                "recurrent or embedding layer, or what it names in get_prunable_weights(). "
                f"Received: layer={self.layer}"
            )

    def call(self, *args, **kwargs):
        if not self.mask_only:
            return self.layer(*args, **kwargs)
        regenerates = getattr(self.pruning_schedule, "regenerates", False)
        return masked_call(
            self.layer, self.pruned, args, kwargs, straight_through=regenerates, owner=self
        )

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        return self.layer.compute_mask(*args, **kwargs)

    def get_build_config(self):
        return None  # The layer inside has its own, and is built again from that.

    def get_config(self):
        return {
            **super().get_config(),
            "pruning_schedule": keras.saving.serialize_keras_object(self.pruning_schedule),
            "mask_only": self.mask_only,
            "prunable": keras.saving.serialize_keras_object(self.prunable),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("layer", "pruning_schedule", "prunable"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)


def _with_signature(function, other):
    return functools.wraps(other)(lambda *args, **kwargs: function(*args, **kwargs))
