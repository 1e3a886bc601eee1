"""The command `granet-train`: reads the flags, starts TensorFlow quietly and hands over to
`granet_tf.training`."""

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence

from quiet_tensorflow import without_notes


def main() -> None:
    start(sys.argv[1:])
    from granet_tf.training.main import cli

    cli()


def start(argv: Sequence[str], command: str = "granet_tf.training.command_line") -> None:
    """Exits at once after --help or a mistake in the flags; otherwise imports TensorFlow.

    Args:
        argv: The command line without the program's name.
        command: The module that reads it.
    """
    with _without_the_library():
        command_line = importlib.import_module(command)
        with command_line.errors_in_one_line():
            command_line.read(argv)
    with without_notes():
        import keras  # noqa: F401


@contextlib.contextmanager
def _without_the_library() -> Iterator[None]:
    """Within it, modules of granet_tf are imported without `granet_tf/__init__.py`.

    That one must import all of the library, so that Keras can load what it registers, and with it
    TensorFlow. Modules imported here are forgotten at the end.
    """
    package = types.ModuleType("granet_tf")
    package.__path__ = importlib.util.find_spec("granet_tf").submodule_search_locations
    before = _granet_tf()
    for name in before:
        del sys.modules[name]
    sys.modules["granet_tf"] = package
    try:
        yield
    finally:
        for name in _granet_tf():
            del sys.modules[name]
        sys.modules.update(before)


def _granet_tf() -> dict[str, types.ModuleType]:
    return {k: v for k, v in sys.modules.items() if k.partition(".")[0] == "granet_tf"}


if __name__ == "__main__":
    main()
