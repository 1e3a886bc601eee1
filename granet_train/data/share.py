"""Which part of each global batch belongs to which replica."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Share:
    """A host's share of the work.

    Attributes:
        batch: Samples of one replica in one step.
        replicas: Replicas of this host.
        host: Number of this host, from 0.
        hosts: Number of hosts.
    """

    batch: int
    replicas: int
    host: int
    hosts: int

    @classmethod
    def of(cls, context: Any, batch_size: int) -> Share:
        """From a `tf.distribute.InputContext` and the global batch size."""
        return cls(
            batch=context.get_per_replica_batch_size(batch_size),
            replicas=context.num_replicas_in_sync // context.num_input_pipelines,
            host=context.input_pipeline_id,
            hosts=context.num_input_pipelines,
        )

    def start(self, draw: Any) -> Any:
        """Place in the order of all samples at which a batch begins.

        Replica r of all takes samples [r · batch, (r + 1) · batch) of each global batch, and host
        h owns replicas [h · replicas, (h + 1) · replicas), which draw in turn.

        Args:
            draw: Number of the batch among those of this host in the epoch: an int or a tensor.

        Example:

        >>> second_host = Share(batch=2, replicas=2, host=1, hosts=2)
        >>> [second_host.start(draw) for draw in range(4)]
        [4, 6, 12, 14]
        """
        step, replica = draw // self.replicas, draw % self.replicas
        return ((step * self.hosts + self.host) * self.replicas + replica) * self.batch

    def part(self, size: int) -> tuple[int, int]:
        """First and last + 1 of the host's samples, where each host reads a range of its own.

        Example:

        >>> [Share(batch=1, replicas=1, host=host, hosts=3).part(10) for host in range(3)]
        [(0, 3), (3, 6), (6, 10)]
        """
        return self.host * size // self.hosts, (self.host + 1) * size // self.hosts
