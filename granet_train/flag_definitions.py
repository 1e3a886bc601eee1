"""The flags of granet-train, by section, with what --help says of each."""

from __future__ import annotations

from collections.abc import Callable

from absl import flags
from absl.flags import FlagValues

from granet_train import durations, learning_rates, models, optimizers
from granet_train.flag_checks import USES

SECTIONS = ("What to train", "How sparse", "How to train", "How to run", "What to write")
HELP = ("help", "helpshort", "helpfull")

# Those of `granet_tf.masks.pattern_names`, which needs TensorFlow.
PATTERNS = ("element", "filter", "2:4", "litert", "litert_int8")

# Numbers that one method has.
_FLOATS_OF_METHODS = {
    "backward_sparsity": "Fraction of the weights that top_kast does not train, at most "
    "final_sparsity. By default twice as many train as are active.",
    "exploration_decay": "Weight decay of top_kast on the weights that it trains.",
    "gradient_weight": "What |gradient| counts beside |weight| in what mest drops.",
    "growth_momentum": "Momentum of the dense gradient, by which snfs grows.",
    "prune_threshold": "Magnitude below which dsr prunes at first.",
    "threshold_tolerance": "How far dsr may be off drop_fraction before its threshold changes.",
    "l1": "Pull towards zero of deep_r.",
    "noise_temperature": "Temperature of the noise of deep_r.",
    "threshold_init": "What the thresholds of str start from, before the sigmoid.",
    "threshold_decay": "Weight decay of the thresholds of str, which makes it sparse.",
}


def define() -> FlagValues:
    """New flags at their defaults. None means: as the method or the optimizer has it.

    Example:

    >>> define()["epochs"].value
    30
    """
    values = FlagValues()
    values.mark_as_parsed()  # granet-train may be asked for without any.

    def section(name: str) -> Callable[..., None]:
        def add(definer, *args, **kwargs):
            definer(*args, flag_values=values, module_name=name, **kwargs)

        return add

    what, sparse, train, run, write = map(section, SECTIONS)

    what(
        flags.DEFINE_string,
        "dataset",
        "digits",
        "digits (no download), synthetic (random images, to measure speed), folder (images in "
        "data_dir/train/CLASS/ and data_dir/test/CLASS/), or an image classification set of "
        "tensorflow_datasets, such as cifar10, cifar100 or imagenet2012.",
    )
    what(flags.DEFINE_string, "data_dir", None, "Where tensorflow_datasets keeps its data.")
    what(flags.DEFINE_bool, "download", False, "Whether the data may be downloaded.")
    what(
        flags.DEFINE_integer,
        "image_size",
        None,
        "Height and width of the images. By default that of the data set, or 224 where it varies.",
    )
    what(flags.DEFINE_bool, "augment", True, "Whether training images are cropped and flipped.")
    what(
        flags.DEFINE_float,
        "validation_fraction",
        0.0,
        "Fraction of the training images to hold out, for --select_on=validation.",
    )
    what(flags.DEFINE_bool, "skip_corrupt", False, "Whether to skip images that cannot be read.")
    what(
        flags.DEFINE_string,
        "model",
        "small_cnn",
        f"The network: {', '.join(models.NETWORKS)}, or a class of keras.applications such as "
        "MobileNetV2.",
    )
    what(flags.DEFINE_float, "width", 1.0, "Multiplies the number of channels.")
    what(
        flags.DEFINE_enum,
        "method",
        "granet",
        list(USES["method"]),
        "How the network becomes sparse. dense stays dense; small_dense too, with so few channels "
        "that it has as many parameters as a network of final_sparsity.",
    )
    what(
        flags.DEFINE_list,
        "compare",
        [],
        "Methods whose twins are trained as well, from the same initial weights on the same "
        f"batches: any of {', '.join(USES['method'])}.",
    )
    what(flags.DEFINE_integer, "seed", 0, "Seed of weights, batches and masks.")

    sparse(flags.DEFINE_float, "final_sparsity", None, "Fraction of zeros at the end, in [0, 1).")
    sparse(flags.DEFINE_float, "initial_sparsity", None, "Fraction of zeros before training.")
    sparse(
        flags.DEFINE_string,
        "begin",
        None,
        f"First update of the masks, a duration: {durations.SYNTAX}.",
    )
    sparse(
        flags.DEFINE_string,
        "end",
        None,
        "End of pruning (granet, gmp, dpf), when drop_fraction is down (rigl, itop, set, mest, "
        "snfs, dsr), or begin of the last sparse phase (acdc): a duration.",
    )
    sparse(flags.DEFINE_string, "frequency", None, "Period of the updates: a duration.")
    sparse(
        flags.DEFINE_float,
        "drop_fraction",
        None,
        "Fraction of the active weights that an update replaces at first; falls by a cosine.",
    )
    sparse(flags.DEFINE_float, "final_drop_fraction", None, "The same fraction at last.")
    sparse(
        flags.DEFINE_enum,
        "scope",
        None,
        ["global", "layer"],
        "Whether pruning ranks all weights together or each layer for itself.",
    )
    sparse(
        flags.DEFINE_enum,
        "distribution",
        None,
        ["erk", "er", "uniform"],
        "How a sparsity is spread over the layers, for random masks and in scope layer.",
    )
    sparse(
        flags.DEFINE_list,
        "pinned",
        [],
        "Weights of a sparsity of their own, such as 0:0.0,-1:0.8,*/fc/kernel:0.8. What is before "
        "the colon is a position (0 is the first, -1 the last) or a pattern of the path.",
    )
    sparse(flags.DEFINE_list, "capped", [], "Weights with a highest sparsity, written alike.")
    sparse(
        flags.DEFINE_enum,
        "pattern",
        None,
        PATTERNS,
        "What is pruned as one: single weights, whole filters, 2 of every 4 inputs, or blocks that "
        "LiteRT computes sparsely, of float32 or int8, in dense layers.",
    )
    sparse(
        flags.DEFINE_bool,
        "prune_outputs",
        None,
        "Whether a pattern that removes whole units, such as filter, removes outputs of the model "
        "(classes), too; off in a new run.",
    )
    for flag, text in _FLOATS_OF_METHODS.items():
        sparse(flags.DEFINE_float, flag, None, text)
    for phase in ("sparse", "dense"):
        text = f"Length of a {phase} phase of acdc: a duration."
        sparse(flags.DEFINE_string, f"{phase}_phase", None, text)
    sparse(
        flags.DEFINE_bool,
        "track_explored",
        False,
        "Whether to report itop_rate, the fraction of the weights that have ever been active.",
    )
    sparse(
        flags.DEFINE_integer,
        "score_batches",
        None,
        "How many of the first training batches snip and grasp choose the masks by.",
    )
    sparse(
        flags.DEFINE_integer,
        "rounds",
        None,
        "In how many rounds snip, grasp and synflow come to the final sparsity, before training.",
    )
    sparse(flags.DEFINE_float, "temperature", None, "What grasp divides the logits by.")
    sparse(
        flags.DEFINE_bool,
        "mask_only",
        False,
        "Whether pruned weights keep their values behind the mask, instead of being zero.",
    )

    sparse(
        flags.DEFINE_string,
        "masks_from",
        None,
        "Work directory of a finished run with whose masks to train from beginning to end; for "
        "--method=static.",
    )

    train(
        flags.DEFINE_string,
        "weights_from",
        None,
        "Work directory of a finished run with whose weights to begin. With its masks, too, this "
        "is learning rate rewinding; with --weights_at=start, retraining of a lottery ticket.",
    )
    train(
        flags.DEFINE_enum,
        "weights_at",
        "end",
        ["end", "start"],
        "Which weights of --weights_from: those it ended with, or those it began with.",
    )
    train(flags.DEFINE_integer, "epochs", 30, "Length of training.")
    train(
        flags.DEFINE_float,
        "schedule_multiplier",
        1.0,
        "Stretches epochs, begin, end, warmup and milestones, in whichever unit they are written. "
        "Not frequency and checkpoint_every, which are periods.",
    )
    train(flags.DEFINE_integer, "batch_size", 64, "Samples of a step, on all devices together.")
    train(flags.DEFINE_enum, "optimizer", "sgd", list(optimizers.OPTIMIZERS), "The optimizer.")
    train(flags.DEFINE_float, "learning_rate", 0.1, "Highest learning rate.")
    train(
        flags.DEFINE_integer,
        "learning_rate_per",
        None,
        "The batch size that learning_rate is meant for: it is scaled in proportion to "
        "batch_size. By default it is not scaled.",
    )
    train(
        flags.DEFINE_enum,
        "learning_rate_schedule",
        "cosine",
        list(learning_rates.SCHEDULES),
        "How the learning rate falls: by a cosine to 0, to a tenth at each milestone, or not.",
    )
    train(
        flags.DEFINE_list,
        "milestones",
        ["0.5", "0.75"],
        "Durations after which the step schedule falls.",
    )
    train(
        flags.DEFINE_string,
        "warmup",
        "0",
        "Duration in which the learning rate rises linearly from 0.",
    )
    train(flags.DEFINE_float, "momentum", None, "Momentum of sgd and rmsprop.")
    train(flags.DEFINE_bool, "nesterov", None, "Whether sgd uses Nesterov's momentum.")
    train(
        flags.DEFINE_float,
        "weight_decay",
        0.0,
        "Coupled weight decay, as in PyTorch: adds this times the weight to the gradient.",
    )
    train(
        flags.DEFINE_enum,
        "decay",
        "kernels",
        ["kernels", "all"],
        "What decays: kernels, or all trainable variables, as PyTorch's SGD does.",
    )
    train(
        flags.DEFINE_float,
        "label_smoothing",
        0.0,
        "Probability that the targets spread evenly over all classes.",
    )

    run(
        flags.DEFINE_enum,
        "strategy",
        "none",
        list(USES["strategy"]),
        "One device, all GPUs of this host, several hosts, or a TPU.",
    )
    run(
        flags.DEFINE_list,
        "workers",
        [],
        "For multiworker: host:port of each, the same list on every host. Start the same command "
        "on all of them, with another worker_index. Without it TF_CONFIG is read.",
    )
    run(flags.DEFINE_integer, "worker_index", None, "Which of the workers this is, from 0.")
    run(flags.DEFINE_float, "connect_timeout", 300.0, "Seconds to wait for the others.")
    run(flags.DEFINE_string, "tpu", None, "Name of the TPU, or local.")
    run(flags.DEFINE_string, "tpu_zone", None, "Zone of the TPU.")
    run(flags.DEFINE_string, "tpu_project", None, "Project of the TPU.")
    run(
        flags.DEFINE_enum,
        "precision",
        "float32",
        ["float32", "bfloat16", "float16"],
        "What layers compute in; float16 scales the loss. Variables are float32.",
    )
    run(flags.DEFINE_bool, "xla", False, "Whether to compile the step; not for several replicas.")
    run(flags.DEFINE_integer, "steps_per_loop", 50, "Steps run on the device in one go.")
    run(
        flags.DEFINE_bool,
        "deterministic",
        True,
        "Whether the same seed gives the same result, on CPU to the bit.",
    )

    write(flags.DEFINE_string, "workdir", "work/run", "Directory for all that the run writes.")
    write(flags.DEFINE_bool, "overwrite", False, "Whether to replace an earlier run in it.")
    write(flags.DEFINE_string, "checkpoint_every", "1e", "Period of checkpoints: a duration.")
    write(flags.DEFINE_integer, "keep_checkpoints", 3, "How many to keep, besides the best.")
    write(
        flags.DEFINE_enum,
        "select_on",
        "last",
        ["last", "validation", "test"],
        "Which epoch's model is the result: the last, the best on images held out, or the best on "
        "the test set. The latter is how the paper's authors did it; its accuracy is too high.",
    )
    write(flags.DEFINE_bool, "tensorboard", True, "Whether to write for TensorBoard.")
    write(flags.DEFINE_bool, "export_tflite", True, "Whether to write model.tflite.")
    write(flags.DEFINE_bool, "plot", True, "Whether to draw training.png.")
    for name in HELP:
        write(flags.DEFINE_bool, name, False, "Show this text.")
    return values
