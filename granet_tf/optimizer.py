"""`SparseOptimizer`: any Keras optimizer, made to keep masks and update them when due."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from granet_tf.masks.traced import by_itself, when
from granet_tf.methods.records import Needed
from granet_tf.optimization.beginning import begin_as_saved, begin_of, count_of
from granet_tf.optimization.groups import Group, groups_in
from granet_tf.optimization.replicas import replicas, snapshots, summed
from granet_tf.optimization.slots import check_slots, parts_of, record_slots
from granet_tf.optimization.variables import assign, read, reset, settle, where
from granet_tf.optimization.wrapper import WrapsOptimizer
from granet_tf.schedules import PACKAGE
from granet_tf.structured.channels_held import begin_channels, hold_channels
from keras_layers.keras_internals import variables_trained_by


@keras.saving.register_keras_serializable(PACKAGE)
class SparseOptimizer(WrapsOptimizer):
    """Wraps a Keras optimizer so that a model's masks hold and are updated when due.

    `SparseModel.compile` does the wrapping for `fit`; in a custom training loop, make one of these
    and use it as any optimizer. Each `apply` masks the gradients, lets the inner optimizer step,
    zeroes what is dormant and, when the method says so, updates the masks from the dense gradients
    (which it alone ever needs). The step is counted by the inner optimizer's `iterations`.

    Steps count from where sparse training begins: an optimizer that has trained the dense model
    before goes on with its learning rate schedule and its slots, and pruning begins at its step 0.
    Restore a checkpoint of the optimizer after it is given here, so that this is the begin.

    Weights that the optimizer does not train, as they are frozen, keep their masks and values.

    What is due at step 0 is pruned by the first `apply`, and by `fit` before the first step.

    With `gradient_accumulation_steps`, masks are updated after whole optimizer updates only, and
    growth ranks the gradient of the last batch.

    Args:
        optimizer: A Keras optimizer, its name or its config; also one that holds others, such as
            `keras.optimizers.MultiOptimizer`.
        model: A `granet_tf.SparseModel`, or any built Keras model with `PruneLowMagnitude` layers.
        trains_all: Whether it trains the whole model. False where other optimizers train the rest
            of it, and update its masks.

    Raises:
        ValueError: If `model` has no masks, or if the optimizer keeps variables that can't be told
            apart by weight (Adafactor), so that they can't be reset. mask_only=True needs no reset,
            and Adafactor an `epsilon_1` of 1e-16 then, lest it divide 0 by 0.

    Source: Algorithm 1 of the paper; the shape of `keras.optimizers.LossScaleOptimizer`.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    >>> sparse = granet_tf.wrap(model, granet_tf.RigL(0.75, frequency=2, total_steps=4))
    >>> optimizer = SparseOptimizer(keras.optimizers.Adam(), sparse)
    >>> x = keras.random.normal((8, 4))
    >>> for _ in range(4):
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_mean((sparse(x, training=True) - x) ** 2)
    ...     gradients = tape.gradient(loss, sparse.trainable_variables)
    ...     optimizer.apply(gradients, sparse.trainable_variables)
    >>> int(optimizer.iterations), int(keras.ops.count_nonzero(model.layers[0].kernel)) <= 4
    (4, True)
    """

    def __init__(
        self,
        optimizer,
        model: keras.Model | None = None,
        name: str | None = None,
        *,
        trains_all: bool = True,
    ):
        optimizer = keras.optimizers.get(optimizer)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = optimizer
        self.trains_all = trains_all
        self._all_groups = groups_in(model) if model is not None else ()
        self._groups = self._all_groups
        self.has_stepped = False
        self.begin_iteration = 0 if model is None else begin_of(optimizer, model, self._groups)
        if model is not None and optimizer.built:
            # Now, as what it takes can't be done inside of a compiled step.
            self.build([v for v in variables_trained_by(optimizer) if v.trainable])

    def build(self, variables):
        if self.built:
            return
        if not self.trains_all:
            self._check_several()
        groups = (g.trained_by(variables, alone=self.trains_all) for g in self._all_groups)
        groups = [group for group in groups if group.pruned]
        slots = record_slots(self.inner_optimizer, list(variables))
        if any(not group.mask_only for group in groups):
            check_slots(self.inner_optimizer, slots, variables)
        self._groups = tuple(group.with_slots(slots) for group in groups)
        self.built = True

    def bind(self, model: keras.Model) -> None:
        """Goes on with the masks that `model` has now, after its weights have been exchanged."""
        self._all_groups = groups_in(model)
        self.built = False
        if self.inner_optimizer.built:
            self.build([v for v in variables_trained_by(self.inner_optimizer) if v.trainable])

    # AutoGraph, which converts what a user's tf.function calls, takes long and is not needed.
    @tf.autograph.experimental.do_not_convert
    def apply(self, grads, trainable_variables=None):
        self._get_ready(trainable_variables)
        context = tf.distribute.get_replica_context()
        # A compiled step is traced once, and asks at each run.
        if not (self.has_stepped and tf.executing_eagerly()) and self._prunes_at_start():
            context.merge_call(self._prune_if_new)
        self.has_stepped = True
        variables = trainable_variables or variables_trained_by(self.inner_optimizer)
        gradients = dict(zip(map(id, variables), grads, strict=True))
        dense = self._dense_gradients(gradients)
        masks = self._mask_gradients(gradients)
        before, rates = tf.identity(self.iterations), self._learning_rates()
        self.inner_optimizer.apply([gradients[id(v)] for v in variables], trainable_variables)
        # Unconditionally: a replica may not meet the others inside a condition.
        context.merge_call(self._after_step, args=(before, rates, dense, masks))

    def _get_ready(self, trainable_variables):
        if not self.built:
            if trainable_variables is None:
                raise ValueError(
                    "The first apply() must be given `trainable_variables`, or build() be called "
                    "before it. Received: trainable_variables=None"
                )
            with keras.name_scope(self.name):
                self.build(trainable_variables)
        if not self._all_groups:
            raise ValueError(
                "This SparseOptimizer was loaded from a file, where it has no model. To go on "
                "training, pass callbacks=[UpdatePruningStep()] to fit(), or compile with "
                "SparseOptimizer(optimizer.inner_optimizer, model). "
                "Received: no masks"
            )
        for group in () if self.has_stepped else self._groups:
            group.method().check_drawn(group.pruned)

    def _learning_rates(self):
        """Those of the optimizers at work, if a method follows their steps."""
        follows = any(group.method().follows_steps for group in self._groups)
        parts = parts_of(self.inner_optimizer) if follows else ()
        return [tf.identity(part.learning_rate) for part in parts]

    def _check_several(self):
        # Keras builds only the one that compile() was given, and TensorFlow can't build several
        # inside a step: "You must feed a value for placeholder tensor".
        strategy, inner = tf.distribute.get_strategy(), self.inner_optimizer
        if strategy.num_replicas_in_sync > 1 and not (tf.executing_eagerly() or inner.built):
            raise ValueError(
                "Under a strategy, each of a model's optimizers must be built before training: "
                "optimizer.build(variables), in the strategy's scope. "
                f"Received: {inner}, not built, under {type(strategy).__name__}"
            )

    def catch_up(self) -> None:
        """Zeroes what is dormant and updates the masks after a step that was made without this.

        For loops that train with the inner optimizer. Call it once after each of its steps, outside
        of any compiled function.

        Raises:
            ValueError: If a method needs more than the weights, such as gradients to grow by.

        Example:

        >>> import granet_tf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        >>> method = granet_tf.GMP(0.75, schedule=granet_tf.ConstantSparsity(0.75, 0, frequency=1))
        >>> sparse, inner = granet_tf.wrap(model, method), keras.optimizers.SGD()
        >>> optimizer = SparseOptimizer(inner, sparse)
        >>> optimizer.build(sparse.trainable_variables)
        >>> inner.apply([tf.ones((4, 4)), tf.ones(4)], sparse.trainable_variables)
        >>> optimizer.catch_up()
        >>> int(keras.ops.count_nonzero(model.layers[0].kernel))
        4
        """
        for group in self._groups:
            method = group.method()
            looks = method.dense_gradient is not Needed.NEVER
            if method.regenerates or looks or method.follows_steps:
                raise ValueError(
                    "A method that needs more than the weights cannot catch up: train with the "
                    f"SparseOptimizer itself. Received: method={method}"
                )
        masks = {id(p.variable): p.mask.value for group in self._groups for p in group.pruned}
        nothing: list[dict] = [{} for _ in self._groups]
        self._after_step(tf.distribute.get_strategy(), self.iterations - 1, [], nothing, masks)

    def prune_at_start(self) -> None:
        """Prunes what is due at step 0, if that is where it is. Nothing is regenerated.

        `fit` calls this. In a custom training loop the first `apply` does it, after the first
        gradient; to have it before, call this once. To be called outside of compiled functions.

        Example:

        >>> import granet_tf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        >>> sparse = granet_tf.wrap(model, granet_tf.GMP(0.75, end_step=0))
        >>> optimizer = SparseOptimizer("sgd", sparse)
        >>> optimizer.build(sparse.trainable_variables)
        >>> optimizer.prune_at_start()
        >>> sparse.nonzeros
        4
        """
        if self.steps == 0:
            self._prune_at_start(tf.distribute.get_strategy())

    def _prunes_at_start(self):
        return any(group.method().at_start() is not None for group in self._groups)

    def _prune_if_new(self, strategy):
        is_new = self._step() == 0
        for group in self._groups_at_start():
            _if(strategy, group, is_new, self._update, {}, tf.constant(0, tf.int64))

    def _prune_at_start(self, strategy):
        for group in self._groups_at_start():
            self._update(strategy, group, {}, tf.constant(0, tf.int64))

    def _groups_at_start(self):
        """Those that something prunes before the first step, with what does so."""
        firsts = [(group, group.method().at_start()) for group in self._groups]
        return [
            dataclasses.replace(group, method=lambda first=first: first)
            for group, first in firsts
            if first is not None
        ]

    @property
    def has_masks(self) -> bool:
        """Whether there are masks that it updates; not so when loaded without its model."""
        return bool(self._all_groups)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The masks that it updates: once built, of the weights only that it trains."""
        return self._groups

    @property
    def steps(self) -> int:
        """Number of finished updates since sparse training began. Not for compiled functions."""
        return count_of(self.inner_optimizer) - self.begin_iteration

    def _step(self):
        """`steps`, as a tensor."""
        return tf.identity(self.iterations) - self.begin_iteration

    def _mask_gradients(self, gradients):
        """Returns {id of a weight: its mask}, of those whose gradients are masked."""
        zeros = {}
        masks = {}
        for group in self._groups:
            for pruned in group.pruned if group.masks_gradients else ():
                key = id(pruned.variable)
                masks[key] = read(pruned.mask)
                gradient = gradients.get(key)
                mask = group.method().gradient_mask(masks[key], pruned.state)
                if gradient is not None and mask is not None:
                    gradients[key] = where(mask, gradient, zeros)
            if group.held is not None:
                group.held.mask_gradients(gradients)
        return masks

    def _dense_gradients(self, gradients):
        """{id of a weight: its gradient} for each group whose method looks at them.

        Zeros where the loss has none.
        """
        looked_at = [
            group.pruned if group.method().dense_gradient is not Needed.NEVER else ()
            for group in self._groups
        ]
        return [
            {id(p.variable): _dense(gradients.get(id(p.variable)), p.variable.shape) for p in each}
            for each in looked_at
        ]

    def _after_step(self, strategy, before, rates, dense, masks):
        """Runs once for all replicas: collectives only when an update is due."""
        before = strategy.experimental_local_results(before)[0] - self.begin_iteration
        step = self._step()
        rates = [strategy.experimental_local_results(rate)[0] for rate in rates]
        for group, gradients in zip(self._groups, dense, strict=True):
            if not group.mask_only:
                self._zero_dormant(strategy, group, masks)
            if group.method().follows_steps:
                _if(strategy, group, step > before, self._follow, gradients, step, rates)
            due = (step > before) & group.method().is_due(step)
            _if(strategy, group, due, self._update, gradients, step)
            hold_channels(strategy, group)

    def _zero_dormant(self, strategy, group, masks):
        # Most optimizers leave a dormant weight at 0 by themselves; those that mix entries (Muon),
        # add noise or apply constraints do not.
        for own in replicas(strategy, group.pruned[0].variable.value):
            zeros = {}
            for pruned in group.pruned:
                averages = (slot.variable for slot in pruned.slots if slot.is_average)
                mask = own(masks[id(pruned.variable)])
                for variable in (pruned.variable, *averages):
                    value = own(variable.value)
                    assign(value, where(mask, value, zeros))

    def _follow(self, strategy, group, gradients, step, rates):
        """What the method changes after each step."""
        looks = group.method().dense_gradient is Needed.AT_EVERY_STEP
        gradients = summed(strategy, group, gradients if looks else {})
        for part, rate in zip(parts_of(self.inner_optimizer), rates, strict=True):
            # Each with the learning rate of its own optimizer.
            some = group.trained_by(variables_trained_by(part), alone=True)
            if some.pruned:
                self._follow_part(strategy, some, gradients, step, rate)

    def _follow_part(self, strategy, group, gradients, step, rate):
        for own in replicas(strategy, group.pruned[0].variable.value):
            before = snapshots(group, own, gradients)
            after = group.method().after_step(step, before, rate)
            for pruned, old, new in zip(group.pruned, before, after, strict=True):
                if new.weight is not old.weight:
                    assign(own(pruned.variable.value), new.weight)
                _assign_state(pruned, own, old.state, new.state)

    def _update(self, strategy, group, gradients, step):
        gradients = summed(strategy, group, gradients)
        for own in replicas(strategy, group.pruned[0].variable.value):
            with tf.device(own(group.pruned[0].variable.value).device):
                by_itself(self._update_replica)(group, own, gradients, step)

    def _update_replica(self, group, own, gradients, step):
        before = snapshots(group, own, gradients)
        method = group.method()
        updates = method.update(step, before, dormant_compete=group.mask_only)
        for pruned, old, new in zip(group.pruned, before, updates, strict=True):
            if pruned.explored is not None:
                explored = own(pruned.explored.value)
                assign(explored, explored | tf.reshape(new.mask, explored.shape))
            _assign_state(pruned, own, old.state, new.state)
            slots = () if group.mask_only else pruned.slots
            zeroed = () if group.mask_only else (pruned.variable,)
            zeroed += tuple(slot.variable for slot in slots if slot.starts_at_zero)
            settle(own(pruned.mask.value), new, [own(v.value) for v in zeroed])
            for slot in slots:
                if not slot.starts_at_zero:
                    reset(own(slot.variable.value), new.survivors, slot.initial_value())
        if group.held is not None and method.regenerates:
            begin_channels(group, own, method.seeded(before, step), updates)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {
            "name": self.name,
            "inner_optimizer": inner,
            "begin_iteration": self.begin_iteration,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Without its model: `SparseModel.compile` binds the inner optimizer anew."""
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        loaded = cls(inner, name=config["name"])
        loaded.begin_iteration = config.get("begin_iteration", 0)  # Not in files of version 0.1.
        begin_as_saved(inner, loaded.begin_iteration)
        return loaded


def _if(strategy, group, condition, function, *args):
    # Sums over replicas, and weights on several devices, need what tf.cond does.
    devices = {p.variable.value.device for p in group.pruned}
    apart = strategy.num_replicas_in_sync == 1 and len(devices) == 1
    when(condition, lambda: function(strategy, group, *args), apart=apart)


def _dense(gradient, shape):
    if gradient is None:
        return tf.zeros(shape)
    gradient = tf.convert_to_tensor(gradient)
    # Where a batch's shape is not known, as of a generator's, that of a gradient may not be either.
    return gradient if gradient.shape.is_fully_defined() else tf.ensure_shape(gradient, shape)


def _assign_state(pruned, own, old, new):
    for name, value in new.items():
        if value is not old[name]:
            assign(own(pruned.state[name].value), value)
