"""Checkpoints of a run: the newest few and the best, and going on from the newest that is whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from granet_tf.reasons import reason_of
from granet_train.errors import TrainingStopped, UsageError
from granet_train.files import remove, replacing

# What TensorFlow raises where a file is altered, missing, or cut off, the index or the data.
_DAMAGE = (tf.errors.OpError, ValueError, IndexError)
_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass
class Position:
    """Where a run is, beside what model and optimizer know: saved with them.

    Attributes:
        batches: Global batches drawn from the data. The optimizer has done as many steps, fewer
            where loss scaling skipped some.
        flops: FLOPs of training so far, for one sample of each batch.
        seconds: Time of training so far.
        epoch_seconds: Time of training in this epoch.
        loss_sum: Sum of the losses of this epoch's samples.
        correct: How many of them were classified correctly.
        samples: How many there were.
        best: The best figure so far of what models are selected by, or None.
        best_epoch: The epoch that had it.
        kept: What is left of each coupled weight, where the model has been shrunk: the last of its
            `shape_history`, as `get_config` has it.
    """

    batches: int = 0
    flops: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    loss_sum: float = 0.0
    correct: float = 0.0
    samples: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    kept: dict | None = None


class Checkpoints:
    """Saves and restores the variables of a run and its `Position`.

    TensorFlow writes a checkpoint beside and names it as the newest when it is whole, so whatever
    ends the process, an earlier one is left.

    Args:
        directory: Where to write. On several hosts each needs one of its own to write to.
        variables: TensorFlow variables, always in the same order.
        position: Is saved along, and set by `restore`.
        keep: How many of the newest are kept; the best is kept besides.
        source: Directory to restore from, where that is another one.
        reshape: Is given `Position.kept` of a checkpoint that is about to be read; returns the
            variables of the model, once it has that shape.
    """

    def __init__(
        self,
        directory: Path,
        variables: Sequence[tf.Variable],
        position: Position,
        keep: int,
        source: Path | None = None,
        reshape: Callable[[dict], Sequence[tf.Variable]] | None = None,
    ):
        self.position = position
        self._directory, self._keep, self._reshape = directory, keep, reshape
        with tf.device("CPU:0"):
            self._text = tf.Variable("", dtype=tf.string, trainable=False)
        for managed in (directory, directory / "best"):
            _mend_list(managed)
        self.use(variables)
        self._source = source or directory
        self._good: Path | None = None  # what was read or written last

    def use(self, variables: Sequence[tf.Variable]) -> None:
        """From now on saves and restores other variables."""
        self._checkpoint = tf.train.Checkpoint(variables=list(variables), position=self._text)
        directory = self._directory
        self._newest = tf.train.CheckpointManager(self._checkpoint, str(directory), self._keep)
        self._best = tf.train.CheckpointManager(self._checkpoint, str(directory / "best"), 1)

    def save(self, *, best: bool = False) -> None:
        """Saves the state as it is.

        Args:
            best: Whether it is also to be kept as the best so far.

        Raises:
            TrainingStopped: If it cannot be written. Earlier checkpoints are left as they are.
        """
        self._text.assign(json.dumps(dataclasses.asdict(self.position)))
        for manager in (self._best, self._newest) if best else (self._newest,):
            self._save(manager)
        self._good = self._source / f"ckpt-{self.position.batches}"

    def restore(self) -> bool:
        """Goes on from the newest checkpoint that is whole; returns whether there is one.

        Raises:
            UsageError: If there are some, but none can be read.
        """
        paths = _paths(self._source)
        for path in reversed(paths):
            if self._read(path):
                self._good = Path(path)
                return True
        if paths:
            raise UsageError(
                "No checkpoint can be read. Start again with --overwrite. "
                f"Received: {', '.join(paths)}"
            )
        return False

    def restore_best(self) -> bool:
        """Sets the variables to those of the best checkpoint; returns whether it can be read.

        If not, all is as the newest checkpoint has it. `position` goes on saying where the run is,
        and which epoch the variables are of.
        """
        last = dataclasses.asdict(self.position)
        if any(self._read(path) for path in _paths(self._source / "best")):
            del last["best"], last["best_epoch"]
            _set(self.position, last)
            return True
        self.restore()
        self.position.best = self.position.best_epoch = None
        return False

    def last(self) -> str:
        """Where the last good state is, as a sentence."""
        if self._good is None:
            return "There is no checkpoint yet."
        return f"The last good checkpoint is {self._good}."

    def _save(self, manager):
        try:
            manager.save(checkpoint_number=self.position.batches)
        except (tf.errors.OpError, OSError) as error:
            _remove_partial(Path(manager.directory), self.position.batches)
            raise TrainingStopped(
                f"The checkpoint of step {self.position.batches:,} could not be written: "
                f"{reason_of(error)}. {self.last()} Make room, and the same command, without "
                f"--overwrite, goes on from it. Received: {manager.directory}"
            ) from error

    def _read(self, path):
        try:
            self._take_shape(path)
            if difference := self._difference(path):
                print(
                    f"warning: checkpoint {path} is of another model and left out: {difference}",
                    flush=True,
                )
                return False
            self._checkpoint.restore(path).assert_consumed()
            _set(self.position, json.loads(self._text.numpy()))
        except _DAMAGE as error:
            reason = reason_of(error)
            print(f"warning: checkpoint {path} is damaged and left out: {reason}", flush=True)
            return False
        return True

    def _take_shape(self, path):
        text = tf.train.load_checkpoint(path).get_tensor(f"position/{_VALUE}")
        kept = json.loads(text).get("kept")
        if kept is not None and self._reshape is not None:
            self.use(self._reshape(kept))

    def _difference(self, path) -> str:
        """What the checkpoint has that the variables have not, or the other way round."""
        variables = self._checkpoint.variables
        saved = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        there = [saved.get(f"variables/{i}/{_VALUE}") for i in range(len(saved))]
        there = [tuple(shape) for shape in there if shape is not None]
        for variable, shape in zip(variables, there, strict=False):
            if tuple(variable.shape) != shape:
                return f"{variable.name} has shape {tuple(variable.shape)} here, and {shape} there"
        if len(there) != len(variables):
            return f"{len(variables)} variables here, and {len(there)} there"
        return ""


def _set(position: Position, values: dict) -> None:
    for name, value in values.items():
        setattr(position, name, value)


def _paths(directory: Path) -> list[str]:
    """Checkpoints that were written to their end, the oldest first."""
    return _listed(directory) or []


def _listed(directory: Path) -> list[str] | None:
    """None where the list cannot be read, or there is none."""
    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except ValueError:
        return None
    return state and list(state.all_model_checkpoint_paths)


def _mend_list(directory: Path) -> None:
    """Lists the checkpoints anew where their list is damaged, as a power failure may leave it."""
    path = directory / "checkpoint"
    if not path.exists() or _listed(directory):
        return
    print(f"warning: the list of checkpoints {path} is damaged and made anew", flush=True)
    names = sorted((index.stem for index in directory.glob("ckpt-*.index")), key=_number)
    lines = [f'model_checkpoint_path: "{name}"\n' for name in names[-1:]]
    lines += [f'all_model_checkpoint_paths: "{name}"\n' for name in names]
    lines += [f"all_model_checkpoint_timestamps: {_number(name)}\n" for name in names]
    with replacing(path) as beside:
        beside.write_text("".join(lines), encoding="utf-8")
    if not names:
        remove(path)


def _number(name: str) -> int:
    return int(name.removeprefix("ckpt-"))


def _remove_partial(directory: Path, number: int) -> None:
    if any(_number(Path(path).name) == number for path in _paths(directory)):
        return  # It is whole.
    for pattern in (f"ckpt-{number}.*", f"ckpt-{number}_temp*"):
        for path in directory.glob(pattern):
            remove(path)
