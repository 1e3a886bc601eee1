"""The networks of the paper and two for small machines, as Keras functional models.

One file a family. Every function takes the shape of one image (height, width, channels), the
number of classes, and `width`, a factor on all channel counts: since a convolution has channels on
both sides, the number of weights goes with about its square. Models return logits and carry no
regularizers. Layers have the same names in every build, such as `stage2_block1_conv2`.
"""
