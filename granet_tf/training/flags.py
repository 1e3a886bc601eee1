"""The flags of granet-train, and which of them may not stand together.

Nothing here needs TensorFlow, so a mistake on the command line is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags
from absl.flags import FlagValues

from granet_tf.training import durations, optimizers
from granet_tf.training.data import DATASETS
from granet_tf.training.errors import UsageError
from granet_tf.training.models import MODELS

USAGE = """\
granet-train trains a network sparse and compares it with others trained alike.

  granet-train --flagfile=configs/digits_granet.flags
  granet-train --flagfile=configs/digits_granet.flags --final_sparsity=0.95 --workdir=work/95

What stands later wins, so any flag of a flagfile can be overridden after it.
"""

DENSE = "dense"
# Names of classes in `granet_tf`: the classes themselves need TensorFlow.
METHODS = {
    "granet": "GraNet",
    "gmp": "GMP",
    "rigl": "RigL",
    "set": "SET",
    "static": "StaticSparse",
}
RUNS = (*METHODS, DENSE)

# {flag: parameter of a method}
METHOD_FLAGS = {
    "final_sparsity": "final_sparsity",
    "initial_sparsity": "initial_sparsity",
    "begin": "begin_step",
    "end": "end_step",
    "frequency": "frequency",
    "drop_fraction": "drop_fraction",
    "scope": "scope",
    "distribution": "distribution",
}
DURATIONS = ("begin", "end", "frequency")
SECTIONS = ("What to train", "How sparse", "How to train", "What to write")


def define() -> FlagValues:
    """New flags at their defaults. None means: as the method or the optimizer has it."""
    values = FlagValues()

    def section(name: str) -> Callable[..., None]:
        def add(definer, *args, **kwargs):
            definer(*args, flag_values=values, module_name=name, **kwargs)

        return add

    what, sparse, train, write = map(section, SECTIONS)

    what(flags.DEFINE_enum, "dataset", "digits", list(DATASETS), "What to learn.")
    what(flags.DEFINE_enum, "model", "small_cnn", list(MODELS), "The network.")
    what(flags.DEFINE_enum, "method", "granet", RUNS, "How the network becomes sparse.")
    what(
        flags.DEFINE_list,
        "compare",
        [],
        "Methods whose twins are trained as well, from the same initial weights on the same "
        f"batches. Any of {', '.join(RUNS)}.",
    )
    what(flags.DEFINE_integer, "seed", 0, "Seed of weights, batches and masks.", lower_bound=0)

    sparse(flags.DEFINE_float, "final_sparsity", None, "Fraction of zeros at the end, in [0, 1).")
    sparse(flags.DEFINE_float, "initial_sparsity", None, "Fraction of zeros before training.")
    sparse(flags.DEFINE_string, "begin", None, f"First update: {durations.SYNTAX}.")
    sparse(flags.DEFINE_string, "end", None, "End of pruning (granet, gmp) or of updates (rigl).")
    sparse(flags.DEFINE_string, "frequency", None, "Period of the updates: a duration, too.")
    sparse(
        flags.DEFINE_float,
        "drop_fraction",
        None,
        "Fraction of the active weights that an update replaces at first.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
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
        "How a sparsity is spread over the layers.",
    )
    sparse(
        flags.DEFINE_bool,
        "mask_only",
        False,
        "Whether pruned weights keep their values behind the mask, instead of being zero.",
    )

    train(flags.DEFINE_integer, "epochs", 30, "Length of training.", lower_bound=1)
    train(flags.DEFINE_integer, "batch_size", 64, "Samples of a step.", lower_bound=1)
    train(flags.DEFINE_enum, "optimizer", "sgd", list(optimizers.OPTIMIZERS), "The optimizer.")
    train(flags.DEFINE_float, "learning_rate", 0.1, "Highest learning rate.")
    train(
        flags.DEFINE_enum,
        "learning_rate_schedule",
        "cosine",
        list(optimizers.LEARNING_RATE_SCHEDULES),
        "How the learning rate falls: by a cosine to 0, to a tenth at 1/2 and again at 3/4 of "
        "training, or not.",
    )
    train(
        flags.DEFINE_float,
        "momentum",
        None,
        "Momentum of sgd and rmsprop.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    train(flags.DEFINE_bool, "nesterov", None, "Whether sgd uses Nesterov's momentum.")
    train(
        flags.DEFINE_float,
        "weight_decay",
        0.0,
        "Coupled weight decay of kernels, as in PyTorch: adds this times the weight to the "
        "gradient.",
        lower_bound=0.0,
    )

    write(flags.DEFINE_string, "workdir", "work/run", "Directory for all that the run writes.")
    write(flags.DEFINE_bool, "overwrite", False, "Whether to replace an earlier run in it.")
    write(flags.DEFINE_bool, "export_tflite", True, "Whether to write model.tflite.")
    write(flags.DEFINE_bool, "plot", True, "Whether to draw training.png.")
    for name in ("help", "helpshort", "helpfull"):
        write(flags.DEFINE_bool, name, False, "Show this text.")

    def check(name, test, text):
        flags.register_validator(name, test, text, flag_values=values)

    for name in ("final_sparsity", "initial_sparsity"):
        check(name, _is_sparsity, "must be a fraction of zeros in [0, 1)")
    for name in DURATIONS:
        check(name, _is_duration, f"must be {durations.SYNTAX}")
    check("frequency", _is_positive, "must be longer than nothing")
    check("learning_rate", lambda rate: 0 < rate < float("inf"), "must be above 0")
    check(
        "compare",
        lambda names: set(names) <= set(RUNS),
        f"must be a comma-separated list of any of {', '.join(RUNS)}",
    )
    return values


def parse(argv: Sequence[str]) -> tuple[FlagValues, frozenset[str]]:
    """Flags from a command line without the program's name, and which of them were given.

    Where --method stands on the command line itself, those from a flagfile do not count as given:
    the file was written for another method, and what the new one cannot use is left out.

    Raises:
        UsageError: On anything that cannot be meant.
    """
    values = _parsed(argv)
    if values.help or values.helpshort or values.helpfull:
        return values, frozenset()
    _check_together(values)
    on_command_line = _given(_parsed(_without_flagfiles(argv)))
    given = on_command_line if "method" in on_command_line else _given(values)
    return values, given


def help_text() -> str:
    """What --help shows."""
    values = define()
    sections = (f"\n{name}:\n{_section_help(values, name)}" for name in SECTIONS)
    flagfile = "\n  --flagfile: Reads flags from a file, one a line; # begins a comment.\n"
    return USAGE + "".join(sections) + flagfile


def runs(values: FlagValues) -> tuple[str, ...]:
    """The run asked for, then its twins, each once."""
    return tuple(dict.fromkeys([values.method, *values.compare]))


def as_dict(values: FlagValues) -> dict[str, Any]:
    """All flags and their values, to be written down."""
    skip = {"help", "helpshort", "helpfull", "flagfile", "undefok"}
    return {name: values[name].value for name in sorted(values) if name not in skip}


def check_use(
    given: Iterable[str], owner: str, flags_of: Iterable[str], known: Iterable[str]
) -> None:
    """Raises UsageError if a flag was given that its owner has no use for.

    Args:
        given: Names of the flags that were given.
        owner: The flag that says who is to use them, with its value: "--method=static".
        flags_of: Names of the flags that some owner uses.
        known: Names of those that this one uses.
    """
    unused = sorted(set(given) & set(flags_of) - set(known))
    if unused:
        names = ", ".join(f"--{name}" for name in unused)
        raise UsageError(f"{owner} has no use for {names}. Received: both")


def _parsed(argv):
    values = define()
    try:
        rest = values(["granet-train", *argv])[1:]
    except flags.Error as error:
        raise UsageError(f"{_sentence(error)} See --help.") from error
    if rest:
        raise UsageError(
            f"Everything is a flag here, such as --method=granet. Received: {' '.join(rest)}"
        )
    return values


def _given(values: FlagValues) -> frozenset[str]:
    return frozenset(name for name in values if values[name].present)


def _without_flagfiles(argv: Sequence[str]) -> list[str]:
    """The command line without `--flagfile=FILE` and `--flagfile FILE`, one dash or two."""
    kept, tokens = [], iter(argv)
    for token in tokens:
        if token in ("--flagfile", "-flagfile"):
            next(tokens, None)
        elif not token.startswith(("--flagfile=", "-flagfile=")):
            kept.append(token)
    return kept


def _check_together(values: FlagValues) -> None:
    initial, final = values.initial_sparsity, values.final_sparsity
    if initial is not None and final is not None and initial > final:
        raise UsageError(
            "--initial_sparsity must not be above --final_sparsity: pruning only removes. "
            f"Received: --initial_sparsity={initial} --final_sparsity={final}"
        )
    if values.begin and values.end:
        (begin, begin_unit), (end, end_unit) = map(durations.parse, (values.begin, values.end))
        if begin_unit == end_unit and begin > end:
            raise UsageError(
                "--begin must not be after --end. "
                f"Received: --begin={values.begin} --end={values.end}"
            )
    if values.nesterov and values.momentum == 0.0:
        raise UsageError("--nesterov needs a momentum above 0. Received: --nesterov --momentum=0.0")


def _is_sparsity(value: float | None) -> bool:
    return value is None or 0.0 <= value < 1.0


def _is_duration(text: str | None) -> bool:
    try:
        return text is None or bool(durations.parse(text))
    except ValueError:
        return False


def _is_positive(text: str | None) -> bool:
    return text is None or durations.parse(text)[0] > 0


def _section_help(values: FlagValues, name: str) -> str:
    _, _, text = values.module_help(name).partition(f"{name}:\n")
    return text + "\n"


def _sentence(error: Exception) -> str:
    """absl's text, without its line breaks and shouting."""
    text = " ".join(str(error).split()).removeprefix("ERROR:: ").replace(" ?", "?")
    return text if text.endswith((".", "?")) else f"{text}."
