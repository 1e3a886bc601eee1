"""Reading and assigning variables in few operations.

What is done for each weight is what a user waits for at the first step, so it is no more than the
operation itself: a read in a graph takes TensorFlow three times as long by way of
`tf.convert_to_tensor`, and an assignment reads the variable again unless told not to.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from granet_tf.masks.traced import NOT_INLINED
from granet_tf.methods.records import Updated


def read(value) -> tf.Tensor:
    """The value of a variable of Keras or TensorFlow, or of a tensor."""
    value = getattr(value, "value", value) if isinstance(value, keras.Variable) else value
    return _read(value.handle, value.dtype) if _is_plain(value) else tf.convert_to_tensor(value)


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assigns to a variable."""
    variable.assign(value, read_value=False)


def where(mask, value, zeros: dict) -> tf.Tensor:
    """`value` where `mask` is True, else a zero: `zeros` keeps those of this graph, by type."""
    value = read(value)
    # A scalar spares writing and reading a tensor of zeros.
    if value.dtype not in zeros:
        zeros[value.dtype] = tf.zeros((), value.dtype)
    return tf.where(read(mask), value, zeros[value.dtype])


def reset(variable: tf.Variable, keep: tf.Tensor, initial: tf.Tensor | None = None) -> None:
    """Sets what `keep` leaves out to `initial`, or to 0."""
    value = read(variable)
    initial = tf.zeros((), value.dtype) if initial is None else initial
    assign(variable, tf.where(tf.reshape(keep, value.shape), value, initial))


def settle(mask: tf.Variable, new: Updated, zeroed: Sequence[tf.Variable]) -> None:
    """Assigns the new mask, and sets to 0 what does not survive in each of the variables.

    Example:

    >>> from granet_tf.methods.records import Updated
    >>> mask, weight = tf.Variable([True, True]), tf.Variable([1.0, 2.0])
    >>> settle(mask, Updated([True, False], [True, False]), [weight])
    >>> weight.numpy().tolist(), mask.numpy().tolist()
    ([1.0, 0.0], [True, False])
    """
    if tf.executing_eagerly() or not all(map(_is_plain, (mask, *zeroed))):
        assign(mask, tf.reshape(new.mask, mask.shape))
        for variable in zeroed:
            reset(variable, new.survivors)
        return
    handles = [mask.handle, *(variable.handle for variable in zeroed)]
    # One operation for each weight, whose parts are traced once for all of them.
    tf.raw_ops.StatefulPartitionedCall(
        args=[new.mask, new.survivors, *handles],
        Tout=[],
        f=_settling(tuple(variable.dtype for variable in zeroed)),
    )


@functools.cache
def _settling(types):
    def settling(new, keep, mask, *handles):
        shape = tf.raw_ops.VariableShape(input=mask)
        tf.raw_ops.AssignVariableOp(resource=mask, value=tf.reshape(new, shape))
        keep = tf.reshape(keep, shape)
        for handle, dtype in zip(handles, types, strict=True):
            kept = tf.where(keep, _read(handle, dtype), tf.zeros((), dtype))
            tf.raw_ops.AssignVariableOp(resource=handle, value=kept)

    with tf.init_scope():
        masks, variables = tf.TensorSpec(None, tf.bool), tf.TensorSpec([], tf.resource)
        return tf.function(
            settling,
            input_signature=[masks, masks, variables, *[variables] * len(types)],
            autograph=False,
            experimental_attributes=NOT_INLINED,
        ).get_concrete_function()


def _is_plain(value):
    return isinstance(value, tf.Variable) and not isinstance(value, tf.distribute.DistributedValues)


def _read(handle, dtype):
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
