"""The application: the commands `granet-train`, `granet-export`, `granet-compare` and
`granet-plasticity`, on top of the library `granet_tf`."""
