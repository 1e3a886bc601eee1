"""What `granet_tf.optimizer` is made of: groups of masks, slots, replicas, where it began."""
