"""Images in a folder for each class, against NumPy's arrays and tfds's own `ImageFolder`."""

import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from granet_train import data, flags
from granet_train import main as training
from granet_train.errors import UsageError
from tests.support.tfds_on_disk import ONE, batches, context, same

CLASSES = ("bee", "cat", "dog")


def image(number, height=8, width=8):
    """Pixels that tell one image from another."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, pixels, encode=tf.io.encode_png):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels).numpy())


def folder(root, *, train=5, test=2, held="test", **size):
    """{split: {bytes of the pixels: class}} of what was written to `root`."""
    written, number = {"train": {}, held: {}}, 0
    for split, count in (("train", train), (held, test)):
        for label, name in enumerate(CLASSES):
            for i in range(count):
                number += 1
                pixels = image(number, **size)
                write(root / split / name / f"{i}.png", pixels)
                written[split][pixels.tobytes()] = label
    return written


def load(root, batch_size=4, **options):
    return data.load(
        "folder", batch_size=batch_size, seed=0, data_dir=str(root), augment=False, **options
    )


def pixels_of(images, scale):
    """Bytes again from numbers of mean 0 and deviation 1."""
    mean, std = scale
    return (images * std + mean).round().astype(np.uint8)


@pytest.mark.parametrize("held", ["test", "validation", "val"])
def test_images_and_classes_are_those_of_the_folders(tmp_path, held):
    written = folder(tmp_path, held=held)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    loaded = load(tmp_path)
    assert loaded.description == "folder: 15 training and 6 test images of 8×8×3"
    assert (loaded.classes, loaded.steps_per_epoch) == (3, 3)
    originals = np.stack([np.frombuffer(key, np.uint8) for key in written["train"]])
    channels = originals.reshape(-1, 3)
    scale = channels.mean(axis=0), channels.std(axis=0)
    images, labels, weights = map(
        np.concatenate, zip(*batches(loaded.evaluate("test", ONE)), strict=True)
    )
    found = {
        pixels_of(i, scale).tobytes(): label
        for i, label, weight in zip(images, labels, weights, strict=True)
        if weight
    }
    assert found == written[held]


def test_classes_are_numbered_as_tfds_does(tmp_path):
    folder(tmp_path)
    builder = tfds.ImageFolder(str(tmp_path))
    assert builder.info.features["label"].names == list(CLASSES)
    loaded = load(tmp_path, batch_size=1)
    assert loaded.sizes == {k: v.num_examples for k, v in builder.info.splits.items()}


def test_the_order_is_mixed_and_of_the_seed(tmp_path):
    folder(tmp_path, train=20)
    first, second = (batches(load(tmp_path).train(0, 0, ONE)) for _ in range(2))
    assert same(first, second)
    labels = np.concatenate([y for _, y in first])
    assert len(set(labels[:8].tolist())) == 3
    assert not same(first, batches(load(tmp_path).train(1, 0, ONE)))


def test_what_is_held_out_is_no_class(tmp_path):
    folder(tmp_path, train=20)
    for size in ({}, {"image_size": 4}):
        loaded = load(tmp_path, validation_fraction=0.5, **size)
        held = np.concatenate([y for _, y, _ in batches(loaded.evaluate("validation", ONE))])
        assert loaded.sizes == {"train": 30, "validation": 30, "test": 6}
        assert set(held.tolist()) == {0, 1, 2}


def test_images_of_different_sizes_need_a_size(tmp_path):
    folder(tmp_path)
    write(tmp_path / "train" / "dog" / "wide.jpg", image(99, 10, 14), tf.io.encode_jpeg)
    with pytest.raises(UsageError) as error:
        load(tmp_path)
    message = str(error.value)
    assert "8×8" in message and "wide.jpg 10×14" in message
    assert "Give --image_size" in message and message.endswith(f"Received: --data_dir={tmp_path}")

    loaded = load(tmp_path, image_size=6)
    assert (loaded.input_shape, loaded.sizes) == ((6, 6, 3), {"train": 16, "test": 6})
    seen = np.concatenate([y for _, y in batches(loaded.train(0, 0, ONE))])
    assert seen.shape == (16,) and np.bincount(seen).tolist() == [5, 5, 6]
    # Hosts read different images, together all of them.
    both = [
        np.concatenate([x for x, _ in batches(loaded.train(0, 0, context(2, host, 2)))])
        for host in (0, 1)
    ]
    images = np.concatenate(both)
    assert len(images) == 16 == len({x.tobytes() for x in images})


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg], ids=["png", "jpeg"])
@pytest.mark.parametrize("gray", [False, True])
def test_sizes_are_read_from_the_files(tmp_path, encode, gray):
    for split in ("train", "test"):
        for name in CLASSES:
            pixels = image(len(name), 7, 9)
            write(tmp_path / split / name / "a.PNG", pixels[..., :1] if gray else pixels, encode)
    assert load(tmp_path, batch_size=1).input_shape == (7, 9, 3)


def damaged(root):
    (root / "train" / "cat" / "0.png").write_bytes(b"no image at all, of any size or kind")


def cut_off(root):
    path = root / "test" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("harm", "name"), [(damaged, "train/cat/0.png"), (cut_off, "test/cat/0.png")]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_image_that_cannot_be_read_is_named_or_skipped(tmp_path, harm, name, streamed):
    folder(tmp_path)
    options = {}
    if streamed:
        write(tmp_path / "train" / "dog" / "wide.png", image(99, 10, 14))
        options = {"image_size": 6}
    harm(tmp_path)
    with pytest.raises(UsageError, match=f"{name} is no image.*--skip_corrupt.*--data_dir="):
        loaded = load(tmp_path, **options)
        try:
            batches(loaded.train(0, 0, ONE))
            batches(loaded.evaluate("test", ONE))
        except tf.errors.OpError as error:
            raise loaded.explain(error) from error
    loaded = load(tmp_path, skip_corrupt=True, **options)
    batches(loaded.train(0, 0, ONE))
    batches(loaded.evaluate("test", ONE))
    assert loaded.skipped() == 1


def nothing(root):
    pass


def no_test(root):
    folder(root, test=0)
    for name in CLASSES:
        (root / "test" / name).mkdir(parents=True, exist_ok=True)


def classes_only(root):
    write(root / "cat" / "a.png", image(0))
    write(root / "dog" / "a.png", image(1))


def one_class(root):
    write(root / "train" / "cat" / "a.png", image(0))
    write(root / "test" / "cat" / "a.png", image(1))


def unknown_class(root):
    folder(root)
    write(root / "test" / "eel" / "a.png", image(0))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (nothing, "must hold train/CLASS/ and test/CLASS/.*this one holds no folder"),
        (classes_only, "this one holds the folders cat, dog"),
        (no_test, r"must be images \(.jpg, .jpeg, .png\) in the folders of the classes in .*/test"),
        (one_class, "of two classes or more.*with the classes cat in train/ and cat in test/"),
        (unknown_class, "among them.*bee, cat, dog in train/ and bee, cat, dog, eel in test/"),
    ],
)
def test_a_folder_that_is_laid_out_otherwise(tmp_path, make, text):
    make(tmp_path)
    with pytest.raises(UsageError, match=f"{text}.*|.*{text}") as error:
        load(tmp_path)
    assert f"Received: --data_dir={tmp_path}" in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"There is no such directory. Received: --data_dir=.*no"):
        load(tmp_path / "no")
    with pytest.raises(UsageError, match="--dataset=folder needs --data_dir"):
        flags.parse(["--dataset=folder"])
    with pytest.raises(UsageError, match="has no use for --download"):
        flags.parse(["--dataset=folder", f"--data_dir={tmp_path}", "--download"])


def test_the_name_of_a_folder_is_no_data_set(tmp_path):
    for name, text in [(str(tmp_path), "this is a path"), ("flowers", "no such data set")]:
        with pytest.raises(UsageError, match=f"{text}.* are --dataset=folder --data_dir=DIR"):
            data.load(name, batch_size=1, seed=0)


def test_training_and_export(tmp_path, capsys):
    folder(tmp_path / "images", train=6)
    training.cli(
        [
            *("--dataset=folder", f"--data_dir={tmp_path / 'images'}", "--width=0.1", "--epochs=1"),
            *("--method=static", "--batch_size=6", f"--workdir={tmp_path / 'work'}"),
            *("--notensorboard", "--noplot", "--noexport_tflite"),
        ]
    )
    assert "folder: 18 training and 6 test images of 8×8×3" in capsys.readouterr().out

    from granet_train.export_command import main as export

    export.cli([f"--model={tmp_path / 'work'}", "--nolatency", "--format=int8"])
    assert "Checked on 6 test images of folder." in capsys.readouterr().out
    export.cli(
        [
            *(f"--model={tmp_path / 'work' / 'stripped.keras'}", "--nolatency"),
            *("--data=folder", f"--data_dir={tmp_path / 'images'}"),
        ]
    )
    assert "Checked on 6 test images of folder." in capsys.readouterr().out
    assert os.path.exists(tmp_path / "work" / "stripped.tflite")
