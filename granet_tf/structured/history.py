"""What has been removed of a model so far, as the model and its files know it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from keras_layers.masking import PrunedWeight


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """What was left when a model was shrunk.

    Attributes:
        step: Number of finished optimizer updates.
        kept: {path of a coupled weight: its outputs that are left, as numbered at the beginning}.
        parameters: Number of parameters before and after.
    """

    step: int
    kept: Mapping[str, tuple[int, ...]]
    parameters: tuple[int, int]

    def get_config(self) -> dict:
        return {
            "step": self.step,
            "kept": {path: list(outputs) for path, outputs in self.kept.items()},
            "parameters": list(self.parameters),
        }

    @classmethod
    def from_config(cls, config: Mapping) -> Shrunk:
        """Of what `get_config` returned, or JSON made of it.

        Example:

        >>> Shrunk.from_config(Shrunk(3, {"kernel": (0, 2)}, (9, 6)).get_config()).kept
        {'kernel': (0, 2)}
        """
        kept = {path: tuple(outputs) for path, outputs in config["kept"].items()}
        return cls(config["step"], kept, tuple(config["parameters"]))


@dataclasses.dataclass(frozen=True)
class Shrinking:
    """What has been removed of a model so far.

    Attributes:
        history: What was left each time.
        full: {path of a weight: its shape at first, and how many channels of its dependency group
            are gone}, of those that are smaller than at first.
    """

    history: tuple[Shrunk, ...] = ()
    full: Mapping[str, tuple[tuple[int, ...], int]] = dataclasses.field(default_factory=dict)

    def applied(self, pruned: Iterable[PrunedWeight]) -> tuple[PrunedWeight, ...]:
        """Masked weights that know what they have lost."""
        return tuple(self._applied(p, *self.full.get(p.path, (None, 0))) for p in pruned)

    def _applied(self, pruned, shape, removed):
        layout = dataclasses.replace(pruned.layout, full_shape=shape, removed=removed)
        return dataclasses.replace(pruned, layout=layout)

    def get_config(self, places: Mapping[str, str]) -> dict:
        """As JSON; `places` are names of the weights that last, by path."""
        full = {places[path]: [list(shape), gone] for path, (shape, gone) in self.full.items()}
        return {"history": [each.get_config() for each in self.history], "full": full}

    @classmethod
    def from_config(cls, config: Mapping, paths: Mapping[str, str]) -> Shrinking:
        """Of what `get_config` returned; `paths` of the weights by place."""
        history = tuple(map(Shrunk.from_config, config.get("history", ())))
        full = {
            paths[place]: (tuple(shape), gone)
            for place, (shape, gone) in config.get("full", {}).items()
        }
        return cls(history, full)
