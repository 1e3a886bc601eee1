"""Streamed data sets: ImageNet through tfds's own builder, from small tar files."""

import io
import itertools
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from granet_train import data
from granet_train.data import images
from granet_train.errors import UsageError
from tests.support.tfds_on_disk import ONE, batches, context, damage, same, write

# {synset: class}, by the list that comes with ImageNet.
SYNSETS = {"n01440764": 0, "n01443537": 1, "n01484850": 2}
# Classes of the first validation images, by the same.
VALIDATION = [65, 970, 230, 809, 516]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def picture(height, width, seed=0):
    """Smooth, so that JPEG and resizing keep it, and different everywhere."""
    coarse = np.random.default_rng(seed).uniform(30, 225, (3, 3, 3))
    image = tf.image.resize(coarse, (height, width), "bicubic")
    return tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)


def jpeg(*args, **kwargs):
    return tf.io.encode_jpeg(picture(*args, **kwargs), quality=95).numpy()


def png(*args, **kwargs):
    return tf.io.encode_png(picture(*args, **kwargs)).numpy()


def tar(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A directory with the two files that ImageNet's owners hand out."""
    data_dir = tmp_path_factory.mktemp("raw")
    folder = data_dir / "downloads" / "manual"
    folder.mkdir(parents=True)
    train = {
        f"{synset}.tar": tar(
            {f"{synset}_{i}.JPEG": jpeg(40 + 9 * i, 70 - 5 * i, seed=i) for i in range(4)}
        )
        for synset in SYNSETS
    }
    # One of the real ones is a PNG, too, under the name of a JPEG.
    validation = {
        f"ILSVRC2012_val_{i + 1:08}.JPEG": (png if i == 2 else jpeg)(64, 48 + i, seed=i)
        for i in range(len(VALIDATION))
    }
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar(train))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar(validation))
    return data_dir


@pytest.fixture(scope="module")
def imagenet(raw):
    """The directory after the first start."""
    tfds.disable_progress_bar()
    load(raw)
    return raw


COUNT = 30


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """30 training images of one colour each in files of 7, classes 0 to 29, and 10 others."""
    data_dir = tmp_path_factory.mktemp("shards")
    write(
        "imagenet2012",
        data_dir,
        {"train": plain_images(COUNT), "validation": plain_images(10)},
        shard=7,
    )
    return data_dir


def plain_images(count):
    return [
        {
            "image": np.full((20, 24, 3), 8 * i, np.uint8),
            "label": i,
            "file_name": f"{i}.JPEG",
        }
        for i in range(count)
    ]


def load(data_dir, batch_size=4, seed=0, image_size=32, **options):
    return data.load(
        "imagenet2012",
        batch_size=batch_size,
        seed=seed,
        data_dir=str(data_dir),
        image_size=image_size,
        **options,
    )


def labels_of(dataset):
    return np.concatenate([y for _, y, *_ in dataset.as_numpy_iterator()]).tolist()


def test_what_was_prepared_from_the_raw_files(imagenet):
    loaded = load(imagenet)
    assert loaded.description == "imagenet2012: 12 training and 5 test images of 32×32×3"
    assert (loaded.classes, loaded.steps_per_epoch) == (1000, 3)
    assert load(imagenet, image_size=None).input_shape == (224, 224, 3)
    assert sorted(labels_of(loaded.train(0, 0, ONE))) == [0] * 4 + [1] * 4 + [2] * 4
    images, labels, weights = map(
        np.concatenate, zip(*batches(loaded.evaluate("test", ONE)), strict=True)
    )
    assert (images.shape, weights.tolist()) == ((8, 32, 32, 3), [1.0] * 5 + [0.0] * 3)
    assert sorted(labels[:5]) == sorted(VALIDATION)
    assert (images.dtype, labels.dtype, weights.dtype) == (np.float32, np.int32, np.float32)


def test_evaluation_sees_the_middle(imagenet):
    loaded = load(imagenet)
    seen = {
        label: image
        for x, y, weights in batches(loaded.evaluate("test", ONE))
        for image, label, weight in zip(x, y, weights, strict=True)
        if weight
    }
    for i, label in enumerate(VALIDATION):
        whole = picture(64, 48 + i, seed=i).numpy().astype(float) / 255
        side = round((48 + i) * 224 / 256)
        top, left = (64 - side) // 2, (48 + i - side) // 2
        middle = whole[top : top + side, left : left + side]
        expected = tf.image.resize(middle, (32, 32)).numpy()
        restored = seen[label] * STD + MEAN
        # JPEG loses a little, PNG nothing.
        assert np.abs(restored - expected).max() < (1e-5 if i == 2 else 0.08)


def test_a_random_part_is_a_part():
    rows, columns = np.meshgrid(np.arange(200), np.arange(240), indexing="ij")
    position = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    encoded = tf.io.encode_png(position)
    flips, areas, ratios = [], [], []
    for i in range(200):
        seed = tf.constant([7, i], tf.int64)
        part = images.random_part(encoded, seed, 16, 3, flip=True).numpy()
        assert np.array_equal(part, images.random_part(encoded, seed, 16, 3, flip=True))
        vertical, horizontal = np.diff(part[:, 3, 0]), np.diff(part[3, :, 1])
        # The position is a straight line in each direction, so nothing is rotated or bent.
        np.testing.assert_allclose(vertical[1:-1], vertical[1:-1].mean(), atol=1e-3)
        np.testing.assert_allclose(horizontal[1:-1], horizontal[1:-1].mean(), atol=1e-3)
        flips.append(horizontal[8] < 0)
        height, width = 16 * vertical[8], 16 * abs(horizontal[8])
        areas.append(height * width / (200 * 240))
        ratios.append(width / height)
    assert 0.4 < np.mean(flips) < 0.6
    assert 0.07 < min(areas) < 0.15 and 0.9 < max(areas) <= 1.001
    assert 0.70 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.38
    unflipped = [
        images.random_part(encoded, tf.constant([7, i], tf.int64), 16, 3, flip=False).numpy()
        for i in range(20)
    ]
    assert all(part[3, 0, 1] < part[3, 15, 1] for part in unflipped)


def test_jpeg_and_png_give_the_same_part():
    shown = picture(90, 70)
    for i in range(5):
        seed = tf.constant([3, i], tf.int64)
        parts = [
            images.random_part(encoded, seed, 32, 3, flip=True).numpy()
            for encoded in (tf.io.encode_png(shown), tf.io.encode_jpeg(shown, quality=100))
        ]
        # A colour is kept for four pixels together.
        assert np.abs(parts[0] - parts[1]).max() < 12
        assert np.abs(parts[0] - parts[1]).mean() < 2


def test_an_epoch_is_every_image_once_in_an_order_of_its_own(shards):
    loaded = load(shards, batch_size=5)
    orders = [labels_of(loaded.train(epoch, 0, ONE)) for epoch in (0, 1)]
    other = labels_of(load(shards, batch_size=5, seed=1).train(0, 0, ONE))
    for order in (*orders, other):
        assert sorted(order) == list(range(COUNT))
    assert len({tuple(order) for order in (*orders, other, range(COUNT))}) == 4
    # The label belongs to the image: its colour survives every crop.
    for x, y in batches(loaded.train(0, 0, ONE)):
        colours = (x * STD + MEAN).mean((1, 2, 3)) * 255
        np.testing.assert_allclose(colours, 8 * y, atol=2)


def test_an_epoch_is_a_function_of_its_seed(imagenet):
    whole = batches(load(imagenet, batch_size=2).train(2, 0, ONE))
    again = load(imagenet, batch_size=2)
    assert same(whole, batches(again.train(2, 0, ONE)))
    assert same(whole[4:], batches(again.train(2, 4, ONE)))
    assert not same(whole, batches(again.train(3, 0, ONE)))
    lenient = load(imagenet, batch_size=2, skip_corrupt=True)
    assert same(whole[4:], batches(lenient.train(2, 4, ONE)))


def test_without_augmentation_training_sees_the_middle(imagenet):
    loaded = load(imagenet, augment=False)
    images, labels = map(np.concatenate, zip(*batches(loaded.train(0, 0, ONE)), strict=True))
    for label in SYNSETS.values():
        for i in range(4):
            height, width = 40 + 9 * i, 70 - 5 * i
            whole = picture(height, width, seed=i).numpy().astype(float) / 255
            side = round(min(height, width) * 224 / 256)
            top, left = (height - side) // 2, (width - side) // 2
            middle = tf.image.resize(whole[top : top + side, left : left + side], (32, 32))
            differences = np.abs(images[labels == label] * STD + MEAN - middle.numpy())
            assert differences.max((1, 2, 3)).min() < 0.04


@pytest.mark.parametrize("deterministic", [True, False])
def test_any_order_is_complete(shards, deterministic):
    loaded = load(shards, batch_size=5, deterministic=deterministic)
    assert sorted(labels_of(loaded.train(0, 0, ONE))) == list(range(COUNT))
    assert sorted(labels_of(loaded.evaluate("test", ONE))) == list(range(10))


@pytest.mark.parametrize(("replicas", "hosts"), [(2, 1), (2, 2), (4, 2), (3, 3)])
def test_hosts_read_disjoint_images_and_equally_many(shards, replicas, hosts):
    loaded = load(shards, batch_size=12)
    where = [context(replicas, host, hosts) for host in range(hosts)]
    parts = [batches(loaded.train(0, 0, c)) for c in where]
    assert {len(part) for part in parts} == {2 * replicas // hosts}
    assert {len(y) for part in parts for _, y in part} == {12 // replicas}
    seen = [label for part in parts for _, y in part for label in y]
    assert len(seen) == len(set(seen)) == 24
    parts = [batches(loaded.evaluate("test", c)) for c in where]
    assert {len(part) for part in parts} == {replicas // hosts}
    samples = [(y, w) for part in parts for _, ys, ws in part for y, w in zip(ys, ws, strict=True)]
    assert len(samples) == 12
    assert sorted(y for y, w in samples if w == 1) == list(range(10))


def test_more_hosts_than_images_to_test_on(tmp_path):
    write("imagenet2012", tmp_path, {"train": plain_images(8), "validation": plain_images(2)})
    loaded = load(tmp_path, batch_size=4)
    parts = [batches(loaded.evaluate("test", context(4, host, 4))) for host in range(4)]
    assert [[w.tolist() for *_, w in part] for part in parts] == [[[0]], [[1]], [[0]], [[1]]]


def test_shapes_are_static(shards):
    loaded = load(shards, batch_size=6)
    image = tf.TensorSpec((3, 32, 32, 3), tf.float32)
    label, weight = tf.TensorSpec((3,), tf.int32), tf.TensorSpec((3,), tf.float32)
    assert loaded.train(0, 0, context(2)).element_spec == (image, label)
    assert loaded.evaluate("test", context(2)).element_spec == (image, label, weight)


def test_held_out_images_are_not_trained_on(shards):
    loaded = load(shards, batch_size=5, validation_fraction=0.2)
    assert loaded.sizes == {"train": 24, "validation": 6, "test": 10}
    assert set(labels_of(loaded.train(0, 0, ONE))) < set(range(24))
    held_out = [
        label
        for _, y, w in batches(loaded.evaluate("validation", ONE))
        for label, weight in zip(y, w, strict=True)
        if weight
    ]
    assert sorted(held_out) == [24, 25, 26, 27, 28, 29]


def damaged(shards, tmp_path):
    shutil.copytree(shards, tmp_path, dirs_exist_ok=True)
    files = sorted((tmp_path / "imagenet2012").glob("*/*train.tfrecord*"))
    assert len(files) == 5
    return files


def test_a_damaged_record_stops_the_run_and_is_named(shards, tmp_path):
    files = damaged(shards, tmp_path)
    damage(files[2], record=3)
    loaded = load(tmp_path, batch_size=5)
    with pytest.raises(tf.errors.DataLossError) as raised:
        batches(loaded.train(0, 0, ONE))
    error = loaded.explain(raised.value)
    assert isinstance(error, UsageError)
    assert f"record 3 of 7 in {files[2]} is damaged" in str(error)


def replace_images(path, undecodable):
    """Rewrites a file with bytes that are no image in some of its records."""
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, record in enumerate(records):
            example = tf.train.Example.FromString(record)
            if i in undecodable:
                example.features.feature["image"].bytes_list.value[0] = b"\xff\xd8\xffno JPEG"
            writer.write(example.SerializeToString())


def test_an_image_that_cannot_be_decoded_is_named(shards, tmp_path):
    files = damaged(shards, tmp_path)
    replace_images(files[3], {1})
    loaded = load(tmp_path, batch_size=5)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        batches(loaded.train(0, 0, ONE))
    error = loaded.explain(raised.value)
    assert f"record 1 of 7 in {files[3]} is no image" in str(error)


def test_other_errors_are_left_alone(shards):
    loaded = load(shards, batch_size=5)
    for error in (
        ValueError("any"),
        tf.errors.DataLossError(None, None, "but all files are good"),
        tf.errors.InvalidArgumentError(None, None, "of a layer"),
    ):
        assert loaded.explain(error) is error


def test_what_cannot_be_read_is_skipped_and_counted(shards, tmp_path):
    files = damaged(shards, tmp_path)
    damage(files[0], record=2)  # Class 2.
    damage(files[1], record=6)  # Class 13.
    replace_images(files[3], {1})  # Class 22.
    lost = {2, 13, 22}
    loaded = load(tmp_path, batch_size=9, skip_corrupt=True)
    # 27 of 30 are left, which is just enough for an epoch of three steps.
    seen = labels_of(loaded.train(0, 0, ONE))
    assert sorted(seen) == sorted(set(range(COUNT)) - lost)
    assert loaded.skipped() == 3

    full = load(tmp_path, batch_size=10, skip_corrupt=True)
    seen = labels_of(full.train(0, 0, ONE))
    assert len(seen) == 30 and set(seen) == set(range(COUNT)) - lost  # Three came twice.
    assert full.skipped() >= 3
    assert same(batches(full.train(0, 1, ONE)), batches(full.train(0, 0, ONE))[1:])


@pytest.mark.parametrize(("replicas", "hosts"), [(1, 1), (2, 2)])
def test_evaluation_weighs_what_was_read(shards, tmp_path, replicas, hosts):
    shutil.copytree(shards, tmp_path, dirs_exist_ok=True)
    first, second = sorted((tmp_path / "imagenet2012").glob("*/*validation.tfrecord*"))
    damage(first, record=0)
    damage(first, record=4)
    replace_images(second, {2})  # The last one, class 9.
    loaded = load(tmp_path, batch_size=4, skip_corrupt=True)
    samples = [
        (int(y), w)
        for host in range(hosts)
        for _, ys, ws in batches(loaded.evaluate("test", context(replicas, host, hosts)))
        for y, w in zip(ys, ws, strict=True)
    ]
    assert len(samples) == 12
    assert sorted(y for y, w in samples if w) == [1, 2, 3, 5, 6, 7, 8]
    assert loaded.skipped() == 3


def test_missing_raw_files_are_named(tmp_path):
    folder = tmp_path / "downloads" / "manual"
    with pytest.raises(UsageError) as error:
        load(tmp_path)
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        assert f"{folder}/{name}" in str(error.value)
    assert f"{tmp_path}/imagenet2012/5.1.0/dataset_info.json" in str(error.value)
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_img_val.tar").write_bytes(b"")
    with pytest.raises(UsageError) as error:
        load(tmp_path)
    assert f"Put {folder}/ILSVRC2012_img_train.tar in place" in str(error.value)


def test_raw_files_that_are_none(tmp_path):
    folder = tmp_path / "downloads" / "manual"
    folder.mkdir(parents=True)
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (folder / name).write_bytes(b"no tar file" * 100)
    with pytest.raises(UsageError, match=f"could not be prepared in {tmp_path}: "):
        load(tmp_path)
    with pytest.raises(UsageError, match="could not be prepared"):  # Nothing half done is read.
        load(tmp_path)


def test_under_a_strategy(shards, mirrored):
    loaded = load(shards, batch_size=10)
    distributed = mirrored.distribute_datasets_from_function(lambda c: loaded.train(0, 1, c))
    labels = [
        np.concatenate(mirrored.experimental_local_results(y)).tolist() for _, y in distributed
    ]
    assert [len(step) for step in labels] == [10, 10]
    assert len(set(itertools.chain(*labels))) == 20
