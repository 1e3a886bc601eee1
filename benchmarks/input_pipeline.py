"""Images a second of the ImageNet training pipeline, against a plain one.

Both read the same JPEG files of ImageNet's usual size, prepared by tensorflow_datasets' own
imagenet2012 builder, on all cores, and give the same kind of batches: a random part of each image
(Inception-style), resized to 224 × 224, half of them mirrored, normalised.

- plain: `tfds.load` decodes the whole image, then it is cropped.
- granet_tf: decodes only what the crop needs, which also shuffles.

Epochs of the two are timed in turns; the ratio is the median over rounds.

    python benchmarks/input_pipeline.py [--rounds=7] [--images=200] [--batch_size=32]
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterable

import numpy as np
from common import interleaved, middle_half, ratios

from granet_train.quiet_tensorflow import without_notes

MUST = 1.5
PLAIN, OURS = "plain tfds pipeline", "granet_tf"
HEIGHT, WIDTH, SIZE = 375, 500, 224
COPIES = 4  # Of each image in an epoch, so that its start does not count.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(random: np.random.Generator) -> bytes:
    """A JPEG with detail of all scales, as large as photographs of that size are."""
    import tensorflow as tf

    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for cells in (3, 8, 24, 64, 160):
        noise = random.normal(size=(cells, cells * 4 // 3, 3)).astype(np.float32)
        image += tf.image.resize(noise, (HEIGHT, WIDTH), "bicubic").numpy() / cells**0.4
    image = 128 + 40 * image + random.normal(scale=12, size=image.shape)
    return tf.io.encode_jpeg(tf.cast(np.clip(image, 0, 255), tf.uint8), quality=92).numpy()


def archive(file, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes a tar file of these names and contents."""
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_imagenet(data_dir: str, photos: list[bytes]) -> None:
    """The two files that ImageNet comes in, with few images."""
    folder = os.path.join(data_dir, "downloads", "manual")
    os.makedirs(folder)
    synset = io.BytesIO()
    names = (f"n01440764_{i}.JPEG" for i in range(len(photos) * COPIES))
    archive(synset, zip(names, photos * COPIES, strict=True))
    with open(os.path.join(folder, "ILSVRC2012_img_train.tar"), "wb") as file:
        archive(file, [("n01440764.tar", synset.getvalue())])
    with open(os.path.join(folder, "ILSVRC2012_img_val.tar"), "wb") as file:
        archive(file, [("ILSVRC2012_val_00000001.JPEG", photos[0])])


def plain(data_dir: str, batch_size: int):
    """The pipeline as tutorials have it."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def prepare(image, label):
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((1, 0, 4)),
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.resize(tf.slice(image, begin, extent), (SIZE, SIZE))
        image = tf.image.random_flip_left_right(image)
        image.set_shape((SIZE, SIZE, 3))
        return (image / 255.0 - MEAN) / STD, label

    samples = tfds.load(
        "imagenet2012",
        split="train",
        data_dir=data_dir,
        download=False,
        as_supervised=True,
        shuffle_files=True,
        # Sets as small as this one would be kept decoded; ImageNet never is.
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    samples = samples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    return samples.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def ours(data_dir: str, batch_size: int):
    """One epoch of what `granet-train` reads."""
    import tensorflow as tf

    from granet_train import data

    imagenet = data.load(
        "imagenet2012", batch_size=batch_size, seed=0, data_dir=data_dir, deterministic=False
    )
    return imagenet.train(0, 0, tf.distribute.InputContext())


def epoch(batches) -> Callable[[], int]:
    """Reads all batches; returns how many there were."""
    return lambda: sum(1 for _ in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=32)
    flags = parser.parse_args()

    with without_notes():
        import tensorflow_datasets as tfds

        from granet_tf.reports.table import aligned
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)

    random = np.random.default_rng(0)
    photos = [photo(random) for _ in range(flags.images)]
    with tempfile.TemporaryDirectory() as data_dir:
        write_imagenet(data_dir, photos)
        fused = ours(data_dir, flags.batch_size)  # Prepares what the other one loads.
        variants = {PLAIN: epoch(plain(data_dir, flags.batch_size)), OURS: epoch(fused)}
        batches = {name: read() for name, read in variants.items()}
        taken = interleaved(variants, flags.rounds)

    size = statistics.mean(map(len, photos)) / 1000
    print(f"JPEGs of {WIDTH} × {HEIGHT}, {size:.0f} kB, {os.cpu_count()} CPUs")
    rows = [("", "images/s", "images/s of CPU time", "against plain", "middle half")]
    faster = ratios(*([1 / s.wall for s in taken[name]] for name in (OURS, PLAIN)))
    for name, seconds in taken.items():
        images = batches[name] * flags.batch_size
        speeds = [images / statistics.median(clock) for clock in zip(*seconds, strict=True)]
        against = (f"{statistics.median(faster):.2f} ×", middle_half(faster))
        rows.append((name, *(f"{s:.0f}" for s in speeds), *(against if name == OURS else ("", ""))))
    print(aligned(rows, text_columns=1))
    ratio = statistics.median(faster)
    print(f"{'met' if ratio >= MUST else 'MISSED'}: {ratio:.2f} ×, must be {MUST} × or more")


if __name__ == "__main__":
    main()
