"""Who wants to know what happens during training: the base of all that shows or records it."""

from __future__ import annotations

from collections.abc import Mapping

from granet_train.results import Epoch, Update


class Listener:
    """Does nothing. Override what you want to hear of.

    For each run the training loop calls `begin` once, then the others in the order in which things
    happen, each with what is true from then on, and at last `close`. A listener can hear several
    runs, one after another.
    """

    def begin(self, run: str, epochs: int, steps_per_epoch: int, step: int) -> None:
        """A run begins, or goes on.

        Args:
            run: Name of the run.
            epochs: How many epochs it has in all.
            steps_per_epoch: Optimizer steps of each.
            step: Optimizer steps done before: more than 0 when it goes on from a checkpoint.
                Whatever was heard of later steps will be heard again.
        """

    def progress(self, step: int, figures: Mapping[str, float]) -> None:
        """The device came back with some steps done.

        Args:
            step: Optimizer steps done so far.
            figures: "loss", "accuracy" (on training batches), "sparsity", "images/s".
        """

    def update(self, update: Update) -> None:
        """The masks have changed."""

    def emptied(self, path: str) -> None:
        """Nothing is left of a weight: told once of each, at the begin too."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is over, its evaluation too."""

    def close(self) -> None:
        """Nothing more comes of this run, whatever ended it."""
