"""`python -m granet_tf.training` is `granet-train`; see also the first lines of granet_tf."""

from granet_tf.training.main import cli

cli()
