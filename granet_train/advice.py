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
    To train longer, begin another run in another --workdir: from the start with more --epochs, as \
schedules depend on the length; or from where this one ended with --weights_from=work/a.
    """
    workdir, masks = values.workdir, ""
    if values.method in METHODS:
        masks = f" --masks_from={workdir} --method=static, which keeps its masks"
    return (
        "To train longer, begin another run in another --workdir: from the start with more "
        "--epochs, as schedules depend on the length; or from where this one ended with "
        f"--weights_from={workdir}{masks}."
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
