"""The command `granet-compare`: reads the flags, starts TensorFlow quietly and hands over to
`granet_tf.studies.compare`."""

import sys

import granet_train


def main() -> None:
    granet_train.start(sys.argv[1:], "granet_tf.studies.compare.flags")
    from granet_tf.studies.compare.main import cli

    cli()


if __name__ == "__main__":
    main()
