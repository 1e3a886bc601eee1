"""The command `granet-train`: starts TensorFlow quietly and hands over to `granet_tf.training`."""

from quiet_tensorflow import without_notes


def main() -> None:
    with without_notes():
        from granet_tf.training.main import cli

    cli()


if __name__ == "__main__":
    main()
