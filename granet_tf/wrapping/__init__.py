"""What `granet_tf.model` is made of: a model inside, masks around it, and `fit` that minds them."""
