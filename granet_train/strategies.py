"""tf.distribute strategies, by name: one device, several, several hosts, a TPU."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from granet_tf.reasons import reason_of, shortened
from granet_train import flags, rendezvous
from granet_train.errors import TrainingStopped, UsageError
from granet_train.quiet_tensorflow import without_notes
from granet_train.training_options import Options

# What hosts of one run may be told differently.
_OF_ONE_HOST = frozenset({"worker_index", "workdir", "data_dir", "connect_timeout"})


def make(values: Options) -> Any:
    """The `tf.distribute.Strategy` that the flags ask for.

    Must run before TensorFlow's first operation, as several hosts and TPUs demand.

    Raises:
        UsageError: If there is no such device, or if other hosts cannot be reached in time.
    """
    return STRATEGIES[values.strategy](values)


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one that writes what a run leaves behind."""
    if not strategy.extended._in_multi_worker_mode():
        return True
    resolver = strategy.cluster_resolver
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def devices_of(strategy: Any) -> str:
    """What it trains on, in words."""
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        return f"{replicas} replicas under {type(strategy).__name__}"
    devices = tf.config.list_logical_devices("GPU")
    return devices[0].name if devices else "CPU"


def _none(values):
    import tensorflow as tf

    return tf.distribute.get_strategy()


def _mirrored(values):
    import tensorflow as tf

    with without_notes():
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [f"{kind}:{i}" for i in range(len(tf.config.list_logical_devices(kind)))]
        return tf.distribute.MirroredStrategy(devices)


def _multiworker(values):
    import tensorflow as tf

    if values.workers:
        task = {"type": "worker", "index": values.worker_index}
        cluster = {"cluster": {"worker": values.workers}, "task": task}
        os.environ["TF_CONFIG"] = json.dumps(cluster)
    try:
        addresses, index = _places(json.loads(os.environ["TF_CONFIG"]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            'TF_CONFIG must be like {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": '
            f'"worker", "index": 0}}}}. Received: TF_CONFIG={os.environ["TF_CONFIG"]}'
        ) from error
    settings = {k: v for k, v in flags.as_dict(values).items() if k not in _OF_ONE_HOST}
    rendezvous.meet(addresses, index, values.connect_timeout, settings)
    others = ", ".join(address for i, address in enumerate(addresses) if i != index)
    with _no_longer_than(values.connect_timeout, f"no connection to {others}"), without_notes():
        return tf.distribute.MultiWorkerMirroredStrategy()


def _places(cluster: Mapping[str, Any]) -> tuple[list[str], int]:
    """Addresses of all hosts that train, and which of them this is.

    Args:
        cluster: As in the environment variable TF_CONFIG.

    Example:

    >>> _places({"cluster": {"worker": ["b:1", "c:1"], "chief": ["a:1"]},
    ...          "task": {"type": "worker", "index": 1}})
    (['a:1', 'b:1', 'c:1'], 2)
    """
    jobs = {job: cluster["cluster"].get(job, []) for job in ("chief", "worker")}
    task = cluster["task"]
    before = len(jobs["chief"]) if task["type"] == "worker" else 0
    return [*jobs["chief"], *jobs["worker"]], before + int(task["index"])


def _tpu(values):
    import tensorflow as tf

    waiting = _no_longer_than(values.connect_timeout, f"no answer from --tpu={values.tpu}")
    try:
        with waiting, without_notes():
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
                values.tpu, zone=values.tpu_zone, project=values.tpu_project
            )
            return tf.distribute.TPUStrategy(resolver)
    # The resolver fails in ways that have no common class: cloud errors, name look-ups, RPCs.
    except Exception as error:
        raise UsageError(
            "There must be a TPU by this name that this machine can reach, `local` on a TPU VM; "
            f"--tpu_zone and --tpu_project say where it is. {type(error).__name__}: "
            f"{reason_of(error)}. Received: --tpu={values.tpu} --tpu_zone={values.tpu_zone} "
            f"--tpu_project={values.tpu_project}"
        ) from error


STRATEGIES: dict[str, Callable[[Options], Any]] = {
    "none": _none,
    "mirrored": _mirrored,
    "multiworker": _multiworker,
    "tpu": _tpu,
}


@contextlib.contextmanager
def losses_as_errors(strategy: Any, last: Callable[[], str]) -> Iterator[None]:
    """TrainingStopped instead of what TensorFlow raises when another host is gone.

    Args:
        strategy: The strategy.
        last: Says where the last good state is, as a sentence.
    """
    import tensorflow as tf

    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    ) as error:
        if not strategy.extended._in_multi_worker_mode():
            raise
        reason = " ".join(error.message.partition("Collective ops is aborted by:")[2].split())
        raise TrainingStopped(
            f"Another worker has ended or is out of reach. {last()} The same commands, without "
            f"--overwrite, go on from it. Received: {shortened(reason) or type(error).__name__}"
        ) from error


# Runs in a process of its own until its input ends. TensorFlow waits in C++ with Python's lock held
# and a handler of its own for signals, so nothing in the same process can end it.
_WATCH = """
import os, select, signal, sys
seconds, process, message = sys.argv[1:]
if not select.select([sys.stdin], [], [], float(seconds))[0]:
    print(message, file=sys.stderr, flush=True)
    os.kill(int(process), signal.SIGKILL)
"""


@contextlib.contextmanager
def _no_longer_than(seconds: float, received: str) -> Iterator[None]:
    """Kills this process if what runs inside takes longer, and says why on stderr."""
    message = (
        f"error: TensorFlow must be able to connect within --connect_timeout={seconds:g} seconds. "
        f"Received: {received}"
    )
    command = [sys.executable, "-I", "-S", "-c", _WATCH, str(seconds), str(os.getpid()), message]
    with subprocess.Popen(command, stdin=subprocess.PIPE):
        yield
