"""The training loop, from the host's side: device loops, mask updates, epochs, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from granet_tf.methods import Method
from granet_train.checkpoints import Checkpoints, Position
from granet_train.cost import Cost
from granet_train.data import Data
from granet_train.device import Device, Totals
from granet_train.errors import Interrupted, TrainingStopped
from granet_train.listeners import Listener
from granet_train.mask_updates import Masks, calendar
from granet_train.results import Epoch, Update
from granet_train.stopping import Stop

# {--select_on: the figure of an epoch that decides}
SELECTED_BY = {"last": None, "validation": "validation_accuracy", "test": "test_accuracy"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a run is, and when the host has a say.

    Attributes:
        epochs: Number of epochs.
        steps_per_loop: Most steps that a device takes on its own.
        checkpoint_every: Steps between checkpoints.
        select_on: A key of `SELECTED_BY`.
        shrink_at: Steps after which what coupled filters have pruned is removed.
    """

    epochs: int
    steps_per_loop: int
    checkpoint_every: int
    select_on: str
    shrink_at: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Training:
    """A model, and all that it takes to train it.

    Attributes:
        name: Name of the run.
        model: A compiled model, a `SparseModel` with its durations resolved, or a dense one.
        device: Made for it.
        data: What to learn.
        plan: How long.
        checkpoints: Restored already where there are any.
        cost: That of the model.
        make_device: Makes the device for a model that has been shrunk.
    """

    name: str
    model: keras.Model
    device: Device
    data: Data
    plan: Plan
    checkpoints: Checkpoints
    cost: Cost
    make_device: Callable[[keras.Model], Device] | None = None

    def go_on(self, listeners: Sequence[Listener], stop: Stop) -> None:
        """Trains from where the checkpoints left it to the last epoch.

        Device loops end where masks change, so that each change can be seen and its cost counted.

        Args:
            listeners: Are told what happens.
            stop: When it becomes true, the run is saved and ends.

        Raises:
            Interrupted: If asked to stop.
            TrainingStopped: If the loss is no number, or a checkpoint cannot be written.
        """
        model, data, plan, position = self.model, self.data, self.plan, self.position
        steps_per_epoch, method = data.steps_per_epoch, self.method
        now = self  # When the model shrinks, its device and its cost become others.
        next_update = calendar(method)
        masks = Masks.of(model)
        held_out = {
            split: self.device.batches(lambda ctx, split=split: data.evaluate(split, ctx))
            for split in data.sizes
            if split != "train"
        }

        for listener in listeners:
            listener.begin(self.name, plan.epochs, steps_per_epoch, position.batches)
        if method is not None and position.batches == 0:
            self._tell_update(listeners, masks, masks)
        emptied = _tell_emptied(listeners, masks, set())

        while position.batches < self.steps:
            epoch, done = divmod(position.batches, steps_per_epoch)
            epoch_end = (epoch + 1) * steps_per_epoch
            batches = now.device.batches(lambda ctx, e=epoch, d=done: data.train(e, d, ctx))
            iterator = iter(batches)
            while position.batches < epoch_end:
                first = self._steps_done + 1
                checkpoint_at = _next_multiple(position.batches, plan.checkpoint_every)
                shrink_at = _next_of(plan.shrink_at, position.batches)
                loop_end = position.batches + plan.steps_per_loop
                loop_end = min(loop_end, epoch_end, checkpoint_at, shrink_at)
                loop = loop_end - position.batches
                update = next_update(first, first + loop - 1)
                loop = loop if update is None else update - first + 1

                started = time.perf_counter()
                totals = drawing(data, lambda it=iterator, n=loop, on=now.device: on.train(it, n))
                elapsed = time.perf_counter() - started
                self._check(totals.mean_loss, "loss", position.batches + loop)

                # A step that loss scaling skips updates nothing.
                updated = next_update(first, self._steps_done) is not None
                dense = 0 if method is None else method.dense_gradients(loop, int(updated))
                _advance(position, loop, totals, elapsed)
                position.flops += now.cost.training(masks.nonzeros, loop, dense)
                if updated:
                    before, masks = masks, Masks.of(model)
                    now._tell_update(listeners, before, masks)
                    emptied = _tell_emptied(listeners, masks, emptied)
                if position.batches == shrink_at:
                    now, masks = now._shrunk(), Masks.of(model)
                figures = {
                    "loss": totals.mean_loss,
                    "accuracy": totals.accuracy,
                    "sparsity": masks.sparsity,
                    "images/s": totals.samples / elapsed,
                }
                for listener in listeners:
                    listener.progress(position.batches, figures)
                asked = now.device.any_host(bool(stop))
                in_epoch = position.batches < epoch_end
                if in_epoch and (asked or position.batches == checkpoint_at):
                    self._save()
                if in_epoch and asked:
                    raise self._interrupted(stop)

            record = now._evaluated(held_out, masks)
            self._check(record.test_loss, "loss on the test set", position.batches)
            for listener in listeners:
                listener.epoch(record)
            settled = _settled(method, self._steps_done)
            best = _is_best(record, SELECTED_BY[plan.select_on], position, settled)
            _begin_epoch(position)
            last = position.batches == self.steps
            asked = now.device.any_host(bool(stop))
            if best or last or asked or position.batches % plan.checkpoint_every == 0:
                self._save(best=best)
            if asked and not last:
                raise self._interrupted(stop)

    @property
    def position(self) -> Position:
        """Where it is."""
        return self.checkpoints.position

    @property
    def method(self) -> Method | None:
        """How the model becomes sparse; None for a dense one."""
        return getattr(self.model, "method", None)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.plan.epochs * self.data.steps_per_epoch

    @property
    def _steps_done(self) -> int:
        """Optimizer steps done, without those that loss scaling skipped."""
        return int(self.model.optimizer.iterations.numpy())

    def _shrunk(self) -> Training:
        """The training that goes on after what coupled filters have pruned is removed."""
        position, model = self.position, self.model
        shrunk = model.shrink()
        if shrunk is None:
            return self
        position.kept = shrunk.get_config()
        # What was best till now has another shape than the model that training ends with.
        position.best = position.best_epoch = None
        self.checkpoints.use(variables_of(model))
        return dataclasses.replace(
            self, device=self.make_device(model), cost=self.cost.of_smaller(model)
        )

    def _evaluated(self, held_out, masks: Masks) -> Epoch:
        """The epoch that has just ended, held-out and test samples included."""
        model, position = self.model, self.position
        results = {
            split: drawing(self.data, lambda split=split: self._evaluate(held_out, split))
            for split in held_out
        }
        validation, test = results.get("validation"), results["test"]
        return Epoch(
            run=self.name,
            epoch=position.batches // self.data.steps_per_epoch,
            step=position.batches,
            seconds=round(position.seconds, 2),
            images_per_second=round(position.samples / position.epoch_seconds, 1),
            learning_rate=float(model.optimizer.learning_rate),
            loss=position.loss_sum / position.samples,
            accuracy=position.correct / position.samples,
            validation_loss=validation and validation.mean_loss,
            validation_accuracy=validation and validation.accuracy,
            test_loss=test.mean_loss,
            test_accuracy=test.accuracy,
            sparsity=masks.sparsity,
            nonzeros=masks.active,
            inference_flops=self.cost.inference_ratio(masks.nonzeros),
            training_flops=self.cost.relative(position.flops, self.steps),
            itop_rate=model.itop_rate if getattr(model, "track_explored", False) else None,
        )

    def _evaluate(self, batches, split) -> Totals:
        steps = -(-self.data.sizes[split] // self.data.batch_size)
        return self.device.evaluate(iter(batches[split]), steps)

    def _tell_update(self, listeners, before: Masks, after: Masks) -> None:
        grown, dropped = before.flipped(after)
        update = Update(
            run=self.name,
            step=self.position.batches,
            epoch=self.position.batches / self.data.steps_per_epoch,
            pruned=before.active - after.active,
            regenerated=grown,
            changed=(grown + dropped) / after.size,
            nonzeros=after.active,
            sparsity=after.sparsity,
            inference_flops=self.cost.inference_ratio(after.nonzeros),
            layers=after.layers(),
        )
        for listener in listeners:
            listener.update(update)

    def _check(self, value: float, name: str, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingStopped(
                f"The {name} became {value} by step {step:,}. {self.checkpoints.last()} Lower the "
                f"learning rate, or raise --warmup or --begin. Received: {name}={value}"
            )

    def _save(self, *, best: bool = False) -> None:
        # The last step before may have spoilt what only the next one's loss would show.
        for variable in self.model.variables:
            if keras.backend.is_float_dtype(variable.dtype):
                # 0 · x is 0, unless x is no finite number.
                nothing = float(tf.reduce_sum(0.0 * tf.convert_to_tensor(variable)))
                self._check(nothing, f"weight {variable.path}", self.position.batches)
        self.checkpoints.save(best=best)

    def _interrupted(self, stop: Stop) -> Interrupted:
        return Interrupted(
            f"Stopped by {stop.signal.name if stop else 'another host'} at step "
            f"{self.position.batches:,}. {self.checkpoints.last()} The same command, without "
            "--overwrite, goes on from it.",
            stop.signal or signal.SIGTERM,
        )


def variables_of(model: keras.Model) -> list[tf.Variable]:
    """What a checkpoint of a compiled model holds."""
    return [v.value for v in (*model.variables, *model.optimizer.variables)]


def drawing(data: Data, work):
    """Names the damaged file if what went wrong was reading the data."""
    try:
        return work()
    except tf.errors.OpError as error:
        explained = data.explain(error)
        if explained is error:
            raise
        raise explained from error


def _advance(position: Position, steps: int, totals: Totals, elapsed: float) -> None:
    position.batches += steps
    position.seconds += elapsed
    position.epoch_seconds += elapsed
    position.loss_sum += totals.loss
    position.correct += totals.correct
    position.samples += totals.samples


def _begin_epoch(position: Position) -> None:
    position.epoch_seconds = position.loss_sum = position.correct = position.samples = 0.0


def _tell_emptied(listeners, masks: Masks, told: set[str]) -> set[str]:
    """Tells of weights that are gone and were not told of; returns all that have been by now."""
    for path in masks.nonzeros:
        if path in masks.emptied - told:
            for listener in listeners:
                listener.emptied(path)
    return told | masks.emptied


def _settled(method, iterations: int) -> bool:
    """Whether the sparsity is final: models still to be pruned are not candidates for the best."""
    final = None if method is None else method.make_schedule().final_update
    return final is None or iterations >= final


def _is_best(record: Epoch, figure: str | None, position: Position, settled: bool) -> bool:
    if figure is None or not settled:
        return False
    value = getattr(record, figure)
    if position.best is not None and value <= position.best:
        return False
    position.best, position.best_epoch = value, record.epoch
    return True


def _next_of(points: Sequence[int], step: int) -> float:
    """The first of some steps that is still to come."""
    return min((point for point in points if point > step), default=math.inf)


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every
