"""What a user of granet-train can do next, in its flags."""

from __future__ import annotations

from granet_train.flag_checks import USES
from granet_train.flags import METHODS
from granet_train.training_options import Options


def to_train_longer(values: Options) -> str:
    """How to train longer than a run that is finished.

    Example:

    >>> from granet_train import flags
    >>> values, _ = flags.parse(["--method=dense", "--workdir=work/a"])
    >>> print(to_train_longer(values))
    To train longer, give more --epochs and --extend; or begin another run in another --workdir: \
from the start with more --epochs, as schedules depend on the length; or from where this one ended \
with --weights_from=work/a.
    """
    workdir, masks = values.workdir, ""
    if values.method in METHODS:
        masks = f" --masks_from={workdir} --method=static, which keeps its masks"
    return (
        "To train longer, give more --epochs and --extend; or begin another run in another "
        "--workdir: from the start with more --epochs, as schedules depend on the length; or from "
        f"where this one ended with --weights_from={workdir}{masks}."
    )


_RATES = {
    "cosine": "the learning rate, whose cosine was to end at 0 after epoch {before}, follows one "
    "that ends after epoch {after}",
    "step": "the milestones of the learning rate are those of {after} epochs",
    "constant": "the learning rate stays as it is",
}


def what_extending_does(values: Options, before: int, after: int) -> str:
    """What becomes of the schedules of a run that is extended, as a sentence.

    Args:
        values: The flags.
        before: Epochs that it was to have.
        after: Epochs that it is to have.

    Example:

    >>> from granet_train import flags
    >>> values, _ = flags.parse(["--method=gmp", "--learning_rate_schedule=constant"])
    >>> print(what_extending_does(values, 4, 9))
    Pruning keeps to the schedule of 4 epochs, so masks end as sparse as they were to be; what \
else changes masks follows that of 9; the learning rate stays as it is.
    """
    rate = _RATES[values.learning_rate_schedule].format(before=before, after=after)
    if values.method not in METHODS:
        return f"{rate[0].upper()}{rate[1:]}."
    return (
        f"Pruning keeps to the schedule of {before} epochs, so masks end as sparse as they were to "
        f"be; what else changes masks follows that of {after}; {rate}."
    )


def on_emptied(run: str, path: str, values: Options) -> str:
    """How to keep weights in a layer of which nothing is left; "" where no flag does.

    Args:
        run: Name of the run.
        path: Path of the weight.
        values: The flags.

    Example:

    >>> from granet_train import flags
    >>> values, _ = flags.parse(["--method=gmp"])
    >>> on_emptied("gmp", "net/head/kernel", values)
    'Cap it with --capped=net/head/kernel:0.99, or use --scope=layer.'
    >>> on_emptied("str", "net/head/kernel", values)
    ''
    """
    uses, ways = USES["method"][run], []
    if "capped" in uses:
        ways.append(f"Cap it with --capped={','.join([*values.capped, f'{path}:0.99'])}")
    if "scope" in uses and values.scope != "layer":
        ways.append("use --scope=layer")
    return ", or ".join(ways) + "." if ways else ""
