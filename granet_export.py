"""The command `granet-export`: reads the flags, starts TensorFlow quietly and hands over to
`granet_tf.export_command`."""

import sys

import granet_train


def main() -> None:
    granet_train.start(sys.argv[1:], "granet_tf.export_command.command_line")
    from granet_tf.export_command.main import cli

    cli()


if __name__ == "__main__":
    main()
