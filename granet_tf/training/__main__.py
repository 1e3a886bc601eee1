"""`python -m granet_tf.training` is `granet-train`, less its quiet start."""

from granet_tf.training.main import cli

cli()
