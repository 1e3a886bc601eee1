"""`python -m granet_tf.training` is `granet-train`."""

from granet_tf.training.main import cli

cli()
