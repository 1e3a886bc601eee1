"""`python -m granet_train` is `granet-train`."""

from granet_train.commands import train

train()
