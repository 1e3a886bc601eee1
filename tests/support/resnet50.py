"""The kernels of ResNet-50 v1.5 as the paper's Table 10 lists them, without building a network."""

STAGES = [(64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)]  # width, blocks, output size


def _kernels():
    yield "stem", (7, 7, 3, 64), 112
    channels, size = 64, 56
    for stage, (width, blocks, output) in enumerate(STAGES, start=1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            yield f"{name}_conv1", (1, 1, channels, width), size
            yield f"{name}_conv2", (3, 3, width, width), output
            yield f"{name}_conv3", (1, 1, width, 4 * width), output
            if block == 1:
                yield f"{name}_shortcut", (1, 1, channels, 4 * width), output
            channels, size = 4 * width, output
    yield "head", (2048, 1000), 1


KERNELS = list(_kernels())
"""`(layer name, kernel shape, height and width of the output)` of the 54 kernels."""
