"""Runs `granet-train` and ends this process with SIGKILL.

    python tests/support/killed_run.py MOMENT STEP FLAGS...

MOMENT is a key of MOMENTS, STEP the step at which, or the first after which, it comes.
"""

import os
import signal
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from tensorflow.python.checkpoint import checkpoint_management
from tensorflow.python.ops import gen_io_ops

from granet_train import main
from granet_train.progress import Progress


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def _in_training(step):
    def progress(self, now, figures):
        if now >= step:
            die()

    Progress.progress = progress


def _at(module, name, prefix_of, step):
    """Dies instead of calling module.name for a checkpoint of this step or a later one."""
    original = getattr(module, name)

    def call(*args, **kwargs):
        if int(prefix_of(*args, **kwargs).rpartition("-")[2]) >= step:
            die()
        return original(*args, **kwargs)

    setattr(module, name, call)


def _in_writing(step):
    """The data is written, but not put together."""
    _at(
        gen_io_ops,
        "merge_v2_checkpoints",
        lambda prefixes, destination, **options: destination.numpy().decode(),
        step,
    )


def _before_naming(step):
    """The files are whole, but not named as the newest checkpoint."""
    _at(
        checkpoint_management,
        "update_checkpoint_state_internal",
        lambda directory, model_checkpoint_path, **options: model_checkpoint_path,
        step,
    )


MOMENTS = {
    "in training": _in_training,
    "in writing": _in_writing,
    "before naming": _before_naming,
}

if __name__ == "__main__":
    moment, step, *flags = sys.argv[1:]
    MOMENTS[moment](int(step))
    main.cli(flags)
