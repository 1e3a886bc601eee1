"""Keras objects that files may name, so that they load wherever granet_tf is imported."""
