"""The options of granet-train, but for those of the methods: each declared once, here."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

from granet_tf.masks.patterns.criteria import CRITERIA
from granet_tf.methods.parameters import parameters_of
from granet_train import data, learning_rates, models, optimizers
from granet_train.method_options import METHODS, SPARSE, MethodOptions, users_of
from granet_train.options import option

DENSE = "dense"
# The dense network with as many parameters as a sparse one.
SMALL_DENSE = "small_dense"
RUNS = (*METHODS, DENSE, SMALL_DENSE)
# What final_sparsity can follow from.
BUDGETS = ("max_bytes", "max_flops", "max_latency_ms")
# Any other name of a data set is one of those, which read files.
OTHER_SETS = "of tensorflow_datasets"
DATA_SETS = (*data.OWN, OTHER_SETS)

WHAT, TRAIN, RUN, WRITE = "What to train", "How to train", "How to run", "What to write"
_what, _sparse, _train, _run, _write = (
    functools.partial(option, section=section) for section in (WHAT, SPARSE, TRAIN, RUN, WRITE)
)
_of_tpu = {"strategy": ("tpu",)}
_of_hosts = {"strategy": ("multiworker",)}
_on_disk = {"dataset": (data.folder.NAME, OTHER_SETS)}


def _taking(parameter):
    """Optimizers that have this parameter."""
    return {"optimizer": [k for k, names in optimizers.OPTIONS.items() if parameter in names]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MethodOptions):
    """What granet-train is asked for."""

    SECTIONS: ClassVar[tuple[str, ...]] = (WHAT, SPARSE, TRAIN, RUN, WRITE)

    dataset: str = _what(
        "digits",
        "digits (no download), synthetic (random images, to measure speed), folder (images in "
        "data_dir/train/CLASS/ and data_dir/test/CLASS/), or an image classification set of "
        "tensorflow_datasets, such as cifar10, cifar100 or imagenet2012.",
        unit="name",
    )
    data_dir: str | None = _what(
        None, "Where tensorflow_datasets keeps its data.", unit="name", only_for=_on_disk
    )
    download: bool = _what(
        False, "Whether the data may be downloaded.", only_for={"dataset": (OTHER_SETS,)}
    )
    image_size: int | None = _what(
        None,
        "Height and width of the images. By default that of the data set, or 224 where it varies.",
        at_least=1,
    )
    augment: bool = _what(True, "Whether training images are cropped and flipped.")
    validation_fraction: float = _what(
        0.0,
        "Fraction of the training images to hold out, for --select_on=validation.",
        at_least=0,
        below=1,
    )
    skip_corrupt: bool = _what(
        False, "Whether to skip images that cannot be read.", only_for=_on_disk
    )
    model: str = _what(
        "small_cnn",
        f"The network: {', '.join(models.NETWORKS)}, or a class of keras.applications such as "
        "MobileNetV2.",
    )
    width: float = _what(1.0, "Multiplies the number of channels.", above=0)
    method: str = _what(
        "granet",
        "How the network becomes sparse. dense stays dense; small_dense too, with so few channels "
        "that it has as many parameters as a network of final_sparsity.",
        choices=RUNS,
    )
    compare: tuple[str, ...] = _what(
        (),
        "Methods whose twins are trained as well, from the same initial weights on the same "
        f"batches: any of {', '.join(RUNS)}.",
        rule=(
            lambda names: set(names) <= set(RUNS),
            f"must be a list of any of {', '.join(RUNS)}",
        ),
    )
    seed: int = _what(0, "Seed of weights, batches and masks.", at_least=0, at_most=2**32 - 1)

    max_bytes: int | None = _sparse(
        None,
        "Instead of --final_sparsity: the least at which the float32 .tflite file has that many "
        "bytes at most.",
        at_least=1,
        only_for={"method": tuple(METHODS)},
    )
    max_flops: int | None = _sparse(
        None,
        "The same, for FLOPs of inference on one image that involve a nonzero weight.",
        at_least=1,
        only_for={"method": tuple(METHODS)},
    )
    max_latency_ms: float | None = _sparse(
        None,
        "The same, for milliseconds an image on this machine with one thread, in the fastest "
        "engine that is installed.",
        above=0,
        only_for={"method": tuple(METHODS)},
    )
    criterion: str | None = _sparse(
        None,
        "What whole filters are ranked by when pruned: their l1 or l2 norm, taylor, the sum of "
        "|w · gradient|, or the scale of the batch normalisation behind. By default the sum of "
        "what the method ranks weights by.",
        choices=tuple(CRITERIA),
        only_for={"method": users_of("pattern")},
    )
    round_to: int = _sparse(
        1,
        "Each layer keeps a multiple of this number of whole filters.",
        at_least=1,
        only_for={"method": users_of("pattern")},
    )
    shrink_at: tuple[str, ...] = _sparse(
        (),
        "Durations after which what coupled filters have pruned is removed, so that training goes "
        "on in a smaller network; for --pattern=coupled_filter.",
        unit="points",
        only_for={"method": users_of("pattern")},
    )
    prune_outputs: bool | None = _sparse(
        None,
        "Whether a pattern that removes whole units, such as filter, removes outputs of the model "
        "(classes), too; off in a new run.",
        only_for={"method": users_of("pattern")},
    )
    track_explored: bool = _sparse(
        False,
        "Whether to report itop_rate, the fraction of the weights that have ever been active.",
        only_for={"method": tuple(METHODS)},
    )
    mask_only: bool = _sparse(
        False,
        "Whether pruned weights keep their values behind the mask, instead of being zero.",
        only_for={"method": [k for k, kind in METHODS.items() if kind.keeps_values is None]},
    )
    masks_from: str | None = _sparse(
        None,
        "Work directory of a finished run with whose masks to train from beginning to end; for "
        "--method=static.",
        unit="name",
        only_for={"method": ("static",)},
    )

    weights_from: str | None = _train(
        None,
        "Work directory of a finished run with whose weights to begin. With its masks, too, this "
        "is learning rate rewinding; with --weights_at=start, retraining of a lottery ticket.",
        unit="name",
    )
    weights_at: str = _train(
        "end",
        "Which weights of --weights_from: those it ended with, or those it began with.",
        choices=("end", "start"),
    )
    epochs: int = _train(30, "Length of training.", at_least=1)
    schedule_multiplier: float = _train(
        1.0,
        "Stretches epochs, begin, end, warmup and milestones, in whichever unit they are written. "
        "Not frequency and checkpoint_every, which are periods.",
        above=0,
    )
    batch_size: int = _train(64, "Samples of a step, on all devices together.", at_least=1)
    optimizer: str = _train("sgd", "The optimizer.", choices=tuple(optimizers.OPTIMIZERS))
    learning_rate: float = _train(0.1, "Highest learning rate.", above=0)
    learning_rate_per: int | None = _train(
        None,
        "The batch size that learning_rate is meant for: it is scaled in proportion to "
        "batch_size. By default it is not scaled.",
        at_least=1,
    )
    learning_rate_schedule: str = _train(
        "cosine",
        "How the learning rate falls: by a cosine to 0, to a tenth at each milestone, or not.",
        choices=tuple(learning_rates.SCHEDULES),
    )
    milestones: tuple[str, ...] = _train(
        ("0.5", "0.75"),
        "Durations after which the step schedule falls.",
        unit="durations",
        only_for={"learning_rate_schedule": ("step",)},
    )
    warmup: str = _train(
        "0", "Duration in which the learning rate rises linearly from 0.", unit="duration"
    )
    momentum: float | None = _train(
        None, "Momentum of sgd and rmsprop.", at_least=0, at_most=1, only_for=_taking("momentum")
    )
    nesterov: bool | None = _train(
        None, "Whether sgd uses Nesterov's momentum.", only_for=_taking("nesterov")
    )
    global_clipnorm: float | None = _train(
        None,
        "Norm of all gradients together, to which larger ones are scaled down; on each replica.",
        above=0,
    )
    weight_decay: float = _train(
        0.0,
        "Coupled weight decay, as in PyTorch: adds this times the weight to the gradient.",
        at_least=0,
    )
    decay: str = _train(
        "kernels",
        "What decays: kernels, or all trainable variables, as PyTorch's SGD does.",
        choices=("kernels", "all"),
    )
    label_smoothing: float = _train(
        0.0,
        "Probability that the targets spread evenly over all classes.",
        at_least=0,
        below=1,
    )

    teacher: str | None = _train(
        None,
        "Work directory of a finished run, or a .keras file that returns logits: a teacher whose "
        "outputs are learned beside the labels, by twins, too.",
        unit="name",
    )
    distillation_weight: float | None = _train(
        None,
        "Share of the loss that is the teacher's; 0.5 if there is a teacher.",
        at_least=0,
        at_most=1,
    )
    distillation_temperature: float | None = _train(
        None,
        "What logits are divided by when they are compared with the teacher's; 4 if there is one.",
        above=0,
    )

    strategy: str = _run(
        "none",
        "One device, all GPUs of this host, several hosts, or a TPU.",
        choices=("none", "mirrored", "multiworker", "tpu"),
    )
    workers: tuple[str, ...] = _run(
        (),
        "For multiworker: host:port of each, the same list on every host. Start the same command "
        "on all of them, with another worker_index. Without it TF_CONFIG is read.",
        unit="addresses",
        only_for=_of_hosts,
    )
    worker_index: int | None = _run(
        None, "Which of the workers this is, from 0.", at_least=0, only_for=_of_hosts
    )
    connect_timeout: float = _run(
        300.0,
        "Seconds to wait for the others.",
        above=0,
        only_for={"strategy": ("multiworker", "tpu")},
    )
    tpu: str | None = _run(None, "Name of the TPU, or local.", unit="name", only_for=_of_tpu)
    tpu_zone: str | None = _run(None, "Zone of the TPU.", unit="name", only_for=_of_tpu)
    tpu_project: str | None = _run(None, "Project of the TPU.", unit="name", only_for=_of_tpu)
    precision: str = _run(
        "float32",
        "What layers compute in; float16 scales the loss. Variables are float32.",
        choices=("float32", "bfloat16", "float16"),
    )
    xla: bool = _run(False, "Whether to compile the step; not for several replicas.")
    steps_per_loop: int = _run(50, "Steps run on the device in one go.", at_least=1)
    deterministic: bool = _run(
        True, "Whether the same seed gives the same result, on CPU to the bit."
    )

    workdir: str = _write("work/run", "Directory for all that the run writes.", unit="name")
    overwrite: bool = _write(False, "Whether to replace an earlier run in it.")
    extend: bool = _write(
        False,
        "Whether an earlier run in it goes on for more epochs than it was begun with: pruning "
        "keeps to the schedule of the first length, all else follows that of the new one.",
    )
    checkpoint_every: str = _write("1e", "Period of checkpoints: a duration.", unit="period")
    keep_checkpoints: int = _write(3, "How many to keep, besides the best.", at_least=1)
    select_on: str = _write(
        "last",
        "Which epoch's model is the result: the last, the best on images held out, or the best on "
        "the test set. The latter is how the paper's authors did it; its accuracy is too high.",
        choices=("last", "validation", "test"),
    )
    verbose: bool = _write(
        False,
        "Whether a terminal shows each mask update and each epoch on a line of its own; else a "
        "line for each epoch, about ten where they take less than ten seconds.",
    )
    tensorboard: bool = _write(True, "Whether to write for TensorBoard.")
    export_tflite: bool = _write(True, "Whether to write model.tflite.")
    plot: bool = _write(True, "Whether to draw training.png.")


if _clashes := parameters_of(MethodOptions).keys() & Options.__annotations__.keys():
    raise ValueError(
        "A parameter of a method must have a name that is no other flag's; `_NAMES` in "
        f"method_options.py gives it another. Received: {', '.join(sorted(_clashes))}"
    )
