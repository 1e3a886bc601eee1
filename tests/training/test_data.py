"""Data in memory: digits, synthetic, and small tensorflow_datasets sets such as CIFAR-10."""

import dataclasses
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.utils import gcs_utils

from granet_train import data
from granet_train.data import salvage
from granet_train.data.pixels import Scaling
from granet_train.errors import UsageError
from tests.support.tfds_on_disk import (
    ONE,
    batches,
    context,
    damage,
    record,
    record_starts,
    same,
    write,
)

TRAIN, TEST = 50, 13
# The constants of CIFAR-10 that all repositories share.
MEAN = np.array([0.4914, 0.4822, 0.4465])
STD = np.array([0.2470, 0.2435, 0.2616])


def some_images(count, shape, classes, **fields):
    random = np.random.default_rng(count)
    return [
        {
            "image": random.integers(1, 256, shape, dtype=np.uint8),
            # The label is a function of the place, so that samples can be told apart.
            "label": i % classes,
            **{key: value(i) for key, value in fields.items()},
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """(data_dir, {split: images}) of a small CIFAR-10 in shards of 20."""
    data_dir = tmp_path_factory.mktemp("data")
    splits = {
        split: some_images(count, (32, 32, 3), 10, id="{:05}".format)
        for split, count in (("train", TRAIN), ("test", TEST))
    }
    write("cifar10", data_dir, splits, shard=20)
    return data_dir, {
        split: np.stack([sample["image"] for sample in samples])
        for split, samples in splits.items()
    }


def load_cifar(cifar, batch_size=8, seed=0, **options):
    return data.load("cifar10", batch_size=batch_size, seed=seed, data_dir=str(cifar[0]), **options)


def pixels(images):
    """Bytes again from what the network is given."""
    values = (images * STD + MEAN) * 255
    assert np.abs(values - values.round()).max() < 1e-3
    return values.round().astype(np.uint8)


def test_what_is_known_without_tensorflow_work():
    assert data.names()[:5] == ("digits", "synthetic", "cifar10", "cifar100", "imagenet2012")


def test_digits():
    digits = data.load("digits", batch_size=64, seed=0)
    assert (digits.steps_per_epoch, digits.input_shape, digits.classes) == (22, (8, 8, 1), 10)
    assert digits.description == "digits: 1,437 training and 360 test images of 8×8×1"
    x, y, weights = map(np.concatenate, zip(*batches(digits.evaluate("test", ONE)), strict=True))
    assert (len(y), weights.sum()) == (384, 360)
    assert set(np.bincount(y[weights > 0])) == {35, 36, 37}  # Stratified.
    assert (x.dtype, y.dtype, weights.dtype) == (np.float32, np.int32, np.float32)
    train = np.concatenate([x for x, _ in batches(digits.train(0, 0, ONE))])
    # Rows of the originals, each at most as often as there, and none of both splits too often.
    originals = sorted((sklearn.datasets.load_digits().images / 16).astype("float32").tolist())
    seen = np.concatenate([train[..., 0], x[weights > 0][..., 0]]).tolist()
    assert len(train) == 22 * 64
    for image in seen:
        originals.remove(image)


def test_the_digits_of_a_split_do_not_depend_on_the_seed():
    first, second = (data.load("digits", batch_size=9, seed=seed) for seed in (1, 2))
    assert same(batches(first.evaluate("test", ONE)), batches(second.evaluate("test", ONE)))
    assert not same(batches(first.train(0, 0, ONE)), batches(second.train(0, 0, ONE)))


def test_synthetic():
    synthetic = data.load("synthetic", batch_size=100, seed=0, image_size=16)
    assert (synthetic.input_shape, synthetic.classes) == ((16, 16, 3), 1000)
    assert synthetic.sizes == {"train": 12_800, "test": 500}
    images, labels = batches(synthetic.train(0, 127, ONE))[0]
    assert images.shape == (100, 16, 16, 3)
    assert -1 <= images.min() < -0.9 and 0.9 < images.max() <= 1
    assert labels.max() < 1000 and len(set(labels)) > 50
    assert data.load("synthetic", batch_size=1, seed=0).input_shape == (224, 224, 3)


def test_cifar_is_read_as_it_was_written(cifar):
    loaded = load_cifar(cifar, augment=False)
    assert loaded.description == "cifar10: 50 training and 13 test images of 32×32×3"
    assert (loaded.classes, loaded.skipped(), loaded.steps_per_epoch) == (10, 0, 6)
    images, labels, weights = map(
        np.concatenate, zip(*batches(loaded.evaluate("test", ONE)), strict=True)
    )
    assert weights.tolist() == [1.0] * 13 + [0.0] * 3
    # The order of the interleaved files is not promised.
    originals = {image.tobytes(): i % 10 for i, image in enumerate(cifar[1]["test"])}
    assert {i.tobytes(): y for i, y in zip(pixels(images[:13]), labels, strict=False)} == originals


def test_each_training_image_is_a_window_of_a_padded_original(cifar):
    padded = np.pad(cifar[1]["train"], [(0, 0), (4, 4), (4, 4), (0, 0)])
    windows = {}
    for i, image in enumerate(padded):
        for top in range(9):
            for left in range(9):
                window = image[top : top + 32, left : left + 32]
                windows[window.tobytes()] = (i, top, left, False)
                windows[window[:, ::-1].tobytes()] = (i, top, left, True)
    loaded = load_cifar(cifar, batch_size=10)
    seen = []
    for epoch in range(12):
        for images, labels in batches(loaded.train(epoch, 0, ONE)):
            places = [windows[image.tobytes()] for image in pixels(images)]
            assert labels.tolist() == [i % 10 for i, *_ in places]
            seen += places
    samples, tops, lefts, flips = map(np.array, zip(*seen, strict=True))
    assert np.bincount(samples).tolist() == [12] * TRAIN
    assert set(tops) == set(lefts) == set(range(9))
    assert 0.4 < flips.mean() < 0.6
    # Independent draws: all combinations of a corner and a flip would not come otherwise.
    assert len(set(zip(tops // 3, lefts // 3, flips, strict=True))) == 18


def test_augment_off_is_a_permutation(cifar):
    loaded = load_cifar(cifar, batch_size=10, augment=False)
    images = np.concatenate([pixels(x) for x, _ in batches(loaded.train(0, 0, ONE))])
    assert {i.tobytes() for i in images} == {i.tobytes() for i in cifar[1]["train"]}


@pytest.mark.parametrize(("replicas", "hosts"), [(2, 1), (2, 2), (4, 2)])
def test_replicas_and_hosts_share_the_batches_of_one(cifar, replicas, hosts):
    loaded = load_cifar(cifar)
    whole = batches(loaded.train(1, 0, ONE))
    local = replicas // hosts
    parts = [batches(loaded.train(1, 0, context(replicas, host, hosts))) for host in range(hosts)]
    for step, expected in enumerate(whole):
        together = [part[step * local + i] for part in parts for i in range(local)]
        assert {len(x) for x, _ in together} == {8 // replicas}
        assert same([expected], [tuple(map(np.concatenate, zip(*together, strict=True)))])
    assert {len(part) for part in parts} == {6 * local}


@pytest.mark.parametrize("where", [context(), context(4, 1, 2)])
def test_a_resumed_epoch_goes_on_where_it_stopped(cifar, where):
    loaded, again = load_cifar(cifar), load_cifar(cifar)
    whole = batches(loaded.train(3, 0, where))
    replicas = where.num_replicas_in_sync // where.num_input_pipelines
    assert same(whole[4 * replicas :], batches(again.train(3, 4, where)))
    assert batches(again.train(3, 6, where)) == []


def test_epochs_and_seeds_differ(cifar):
    first, other_seed = load_cifar(cifar), load_cifar(cifar, seed=1)
    epochs = [
        *(batches(first.train(e, 0, ONE)) for e in (0, 1)),
        batches(other_seed.train(0, 0, ONE)),
    ]
    assert [same(epochs[i], epochs[j]) for i, j in ((0, 0), (0, 1), (0, 2), (1, 2))] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(("replicas", "hosts"), [(1, 1), (2, 1), (4, 2)])
def test_evaluation_covers_each_sample_once(cifar, replicas, hosts):
    loaded = load_cifar(cifar)
    parts = [
        batches(loaded.evaluate("test", context(replicas, host, hosts))) for host in range(hosts)
    ]
    assert {len(part) for part in parts} == {2 * replicas // hosts}
    assert {len(y) for part in parts for _, y, _ in part} == {8 // replicas}
    images, _, weights = map(np.concatenate, zip(*itertools.chain(*parts), strict=True))
    assert set(weights) == {0.0, 1.0} and np.isfinite(images).all()
    seen = [image.tobytes() for image in pixels(images[weights > 0])]
    assert sorted(seen) == sorted(image.tobytes() for image in cifar[1]["test"])


def test_validation_is_held_out_alike_for_all_seeds(cifar):
    splits = []
    for seed in (0, 5):
        loaded = load_cifar(cifar, seed=seed, validation_fraction=0.2, batch_size=5, augment=False)
        assert loaded.sizes == {"train": 40, "validation": 10, "test": TEST}
        held_out = [x for x, *_ in batches(loaded.evaluate("validation", ONE))]
        train = [x for x, _ in batches(loaded.train(0, 0, ONE))]
        held_out, train = (
            {i.tobytes() for i in pixels(np.concatenate(x))} for x in (held_out, train)
        )
        assert (len(held_out), len(train)) == (10, 40)
        assert held_out | train == {i.tobytes() for i in cifar[1]["train"]}
        splits.append(held_out)
    assert splits[0] == splits[1]
    ordered = {i.tobytes() for i in cifar[1]["train"][-10:]}
    assert splits[0] != ordered  # Some sets are sorted by class.


def test_another_image_size(cifar):
    loaded = load_cifar(cifar, image_size=16, augment=False)
    assert loaded.input_shape == (16, 16, 3)
    images, labels, _ = batches(loaded.evaluate("test", ONE))[0]
    # Antialiased to half the size: weights 1, 3, 3, 1 of the four nearest.
    kernel = np.array([1, 3, 3, 1]) / 8
    original = cifar[1]["test"][int(labels[0])].astype(float)
    middle = original[7 * 2 - 1 : 7 * 2 + 3, 7 * 2 - 1 : 7 * 2 + 3]
    expected = np.einsum("ijc,i,j->c", middle, kernel, kernel)
    candidates = [np.abs(pixels(image)[7, 7] - expected).max() for image in images]
    assert min(candidates) < 1


def test_writing_is_neither_flipped_nor_cropped(tmp_path):
    train, test = some_images(6, (28, 28, 1), 10), some_images(2, (28, 28, 1), 10)
    write("mnist", tmp_path, {"train": train, "test": test})
    loaded = data.load("mnist", batch_size=6, seed=0, data_dir=str(tmp_path))
    images = batches(loaded.train(0, 0, ONE))[0][0]
    originals = np.stack([sample["image"] for sample in train])
    assert images.mean() == pytest.approx(0, abs=1e-4) and images.std() == pytest.approx(
        1, abs=1e-4
    )
    restored = (images * originals.std() + originals.mean()).round().astype(np.uint8)
    assert {i.tobytes() for i in restored} == {i.tobytes() for i in originals}


def test_house_numbers_are_cropped_but_not_flipped(tmp_path):
    train = some_images(4, (32, 32, 3), 10, id=str)
    write("svhn_cropped", tmp_path, {"train": train, "test": train})
    loaded = data.load("svhn_cropped", batch_size=4, seed=0, data_dir=str(tmp_path))
    originals = np.stack([sample["image"] for sample in train]).astype(float)
    mean, std = originals.mean((0, 1, 2)), originals.std((0, 1, 2))
    padded = np.pad(originals, [(0, 0), (4, 4), (4, 4), (0, 0)]).astype(np.uint8)
    windows = {
        image[top : top + 32, left : left + 32].tobytes()
        for image in padded
        for top in range(9)
        for left in range(9)
    }
    images = np.concatenate([batches(loaded.train(e, 0, ONE))[0][0] for e in range(5)])
    restored = (images * std + mean).round().astype(np.uint8)
    assert {image.tobytes() for image in restored} <= windows
    assert len({image.tobytes() for image in restored}) > 10


def test_scaling_is_measured_exactly():
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 2), dtype=np.uint8)
    scaling = Scaling.measured(images)
    np.testing.assert_allclose(scaling.mean, images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(scaling.std, images.std((0, 1, 2)), rtol=1e-12)
    flat = Scaling.measured(np.full((2, 1, 1, 1), 9, np.uint8))
    assert flat(tf.constant([[[9.0]]])).numpy().tolist() == [[[0.0]]]


def copy_of(cifar, tmp_path):
    shutil.copytree(cifar[0], tmp_path, dirs_exist_ok=True)
    return tmp_path, sorted((tmp_path / "cifar10").glob("*/*train.tfrecord*"))


def test_a_damaged_record_is_named(cifar, tmp_path):
    data_dir, files = copy_of(cifar, tmp_path)
    damage(files[1], record=7)
    with pytest.raises(UsageError) as error:
        load_cifar((data_dir,))
    assert f"record 7 of 20 in {files[1]} is damaged" in str(error.value)
    assert "--skip_corrupt" in str(error.value)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda path: damage(path, 7), 1),
        (lambda path: (damage(path, 0), damage(path, 7), damage(path, 19)), 3),
        # Where its length is wrong, nobody knows where the next record begins.
        (lambda path: damage(path, 15, byte=3), 5),
        (lambda path: damage(path, 15, byte=9), 1),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), 1),
        (lambda path: path.write_bytes(b""), 20),
    ],
    ids=["one", "first, middle and last", "length", "checksum of the length", "cut", "empty"],
)
def test_damaged_records_are_skipped_and_counted(cifar, tmp_path, change, lost):
    data_dir, files = copy_of(cifar, tmp_path)
    change(files[1])
    with pytest.raises(UsageError, match="damaged"):
        load_cifar((data_dir,))
    loaded = load_cifar((data_dir,), skip_corrupt=True, augment=False, batch_size=1)
    assert (loaded.skipped(), loaded.sizes["train"]) == (lost, TRAIN - lost)
    seen = {pixels(x)[0].tobytes() for x, _ in batches(loaded.train(0, 0, ONE))}
    assert len(seen) == TRAIN - lost
    assert seen < {image.tobytes() for image in cifar[1]["train"]}


def test_a_file_cut_between_two_records_is_noticed(cifar, tmp_path):
    data_dir, files = copy_of(cifar, tmp_path)
    content = files[0].read_bytes()
    files[0].write_bytes(content[: record_starts(content)[18]])
    with pytest.raises(UsageError, match=f"record 18 of 20 in {files[0]} is damaged or missing"):
        load_cifar((data_dir,))


def test_records_are_written_as_tensorflow_writes_them(tmp_path):
    path = str(tmp_path / "records")
    contents = [b"", b"a", bytes(range(256))]
    with tf.io.TFRecordWriter(path) as writer:
        for content in contents:
            writer.write(content)
    assert pathlib.Path(path).read_bytes() == b"".join(map(record, contents))
    assert salvage.readable(path) == (3, 48 + 257)


@pytest.mark.parametrize("harmed", [(0,), (2, 3, 5), (5,), (), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("length", [5, 6, 8])
def test_a_copy_has_an_empty_record_for_each_that_is_lost(tmp_path, harmed, length):
    path, copy = tmp_path / "records", tmp_path / "copy"
    path.write_bytes(b"".join(record(bytes([i] * 4)) for i in range(6)))
    for i in harmed:
        damage(path, i, byte=13)
    expected = [b"" if i in harmed or i > 5 else bytes([i] * 4) for i in range(length)]
    if salvage.repair(str(path), str(copy), length):
        assert copy.read_bytes() == b"".join(map(record, expected))
        assert sorted(os.listdir(tmp_path)) == ["copy", "records"]
    else:
        assert min((*harmed, 6)) >= length and not copy.exists()


def test_a_file_is_missing(cifar, tmp_path):
    data_dir, files = copy_of(cifar, tmp_path)
    files[2].unlink()
    with pytest.raises(UsageError, match=f"1 of its files are missing, first {files[2]}"):
        load_cifar((data_dir,))


def test_the_newest_version_on_disk_is_read(cifar, tmp_path):
    data_dir, _ = copy_of(cifar, tmp_path)
    (version,) = (data_dir / "cifar10").iterdir()
    for name in ("1.0.0", "9.0.0", "10.0.0"):
        shutil.copytree(version, version.with_name(name))
        info = version.with_name(name) / "dataset_info.json"
        info.write_text(json.dumps({**json.loads(info.read_text()), "version": name}))
    shutil.rmtree(version)
    for name in ("1.0.0", "9.0.0"):
        for file in version.with_name(name).glob("*tfrecord*"):
            file.unlink()
    assert load_cifar((data_dir,)).sizes == {"train": TRAIN, "test": TEST}


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("cifra10", "cifar10"), ("digitz", "digits"), ("imagenet", "imagenette")],
)
def test_unknown_names_get_close_ones(name, suggestion, tmp_path):
    with pytest.raises(
        UsageError, match=rf"Did you mean .*{suggestion}.*Received: --dataset={name}$"
    ):
        data.load(name, batch_size=8, seed=0, data_dir=str(tmp_path))


def test_what_is_missing_is_said(tmp_path):
    def message(name, **options):
        with pytest.raises(UsageError) as error:
            data.load(name, batch_size=8, seed=0, data_dir=str(tmp_path), **options)
        return str(error.value)

    place = f"{tmp_path}/cifar100/3.0.2/dataset_info.json"
    assert "--download fetches it" in message("cifar100") and place in message("cifar100")
    # Its builder leaves the download to the user.
    assert f"into {tmp_path}/downloads/manual (tensorflow_datasets:" in message("chexpert")
    first = f"{tmp_path}/cifar10_corrupted/brightness_1/1.0.0/dataset_info.json"
    assert first in message("cifar10_corrupted")
    assert "it has defocus_blur_" in message("cifar10_corrupted/defocus_blur_9")
    assert message("cifar100").endswith(f"Received: --data_dir={tmp_path}")
    missing = tmp_path / "nowhere"
    with pytest.raises(UsageError, match=f"There is no directory {missing}"):
        data.load("cifar10", batch_size=8, seed=0, data_dir=str(missing))
    assert not missing.exists()


def test_nothing_is_asked_of_the_network(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr("socket.socket.connect", never)
    monkeypatch.setattr(gcs_utils, "exists", never)
    with pytest.raises(UsageError, match="not prepared"):
        data.load("cifar10", batch_size=8, seed=0, data_dir=str(tmp_path))


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fails(self, *args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fails)
    with pytest.raises(
        UsageError, match=r"could not be prepared in .*: no route to host\. Received"
    ):
        data.load("cifar10", batch_size=8, seed=0, data_dir=str(tmp_path), download=True)


def test_files_that_are_no_data_set(cifar, tmp_path):
    data_dir, files = copy_of(cifar, tmp_path)
    (files[0].parent / "dataset_info.json").write_text("{")
    with pytest.raises(UsageError, match=rf"cannot be read: .*Received: --data_dir={data_dir}"):
        load_cifar((data_dir,))


def test_sets_that_are_no_image_classification(tmp_path):
    write("iris", tmp_path, {"train": [{"features": np.zeros(4, np.float32), "label": 0}]})
    with pytest.raises(UsageError, match=r"iris is no image classification set.*features: Tensor"):
        data.load("iris", batch_size=1, seed=0, data_dir=str(tmp_path))


def test_a_set_without_a_test_split(tmp_path):
    write("cifar10", tmp_path, {"train": some_images(2, (32, 32, 3), 10, id=str)})
    with pytest.raises(
        UsageError, match=r"one of \['test', 'validation'\].*Received: {'train': 2}"
    ):
        data.load("cifar10", batch_size=1, seed=0, data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 1438}, "more than the 1,437 training samples. Received: --batch_size=1438"),
        ({"validation_fraction": 1.0}, "not all of them. Received: --validation_fraction=1.0"),
        ({"validation_fraction": -0.1}, "Received: --validation_fraction=-0.1"),
        ({"validation_fraction": 1e-5}, "0 would be held out, and 1,437 left"),
        ({"validation_fraction": 0.9999}, "1,437 would be held out, and 0 left"),
        ({"validation_fraction": 0.99, "batch_size": 15}, "more than the 14 training samples"),
    ],
)
def test_too_few_samples(options, text):
    with pytest.raises(UsageError, match=text):
        data.load("digits", **{"batch_size": 8, "seed": 0, **options})


def test_under_a_strategy(cifar, mirrored):
    loaded = load_cifar(cifar)
    whole = batches(loaded.train(0, 2, ONE))
    distributed = mirrored.distribute_datasets_from_function(lambda c: loaded.train(0, 2, c))
    for (images, labels), (x, y) in zip(distributed, whole, strict=True):
        locals_ = [np.concatenate(mirrored.experimental_local_results(v)) for v in (images, labels)]
        assert same([tuple(locals_)], [(x, y)])


def test_shapes_are_static(cifar):
    loaded = load_cifar(cifar)
    image = tf.TensorSpec((4, 32, 32, 3), tf.float32)
    label, weight = tf.TensorSpec((4,), tf.int32), tf.TensorSpec((4,), tf.float32)
    assert loaded.train(0, 0, context(2)).element_spec == (image, label)
    assert loaded.evaluate("test", context(2)).element_spec == (image, label, weight)


def test_a_package_is_missing(cifar, monkeypatch):
    def fails(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'importlib_resources'")

    monkeypatch.setattr(read_only_builder, "builder_from_files", fails)
    with pytest.raises(UsageError, match="not installed: No module named 'importlib_resources'"):
        load_cifar(cifar)


def test_data_is_frozen():
    digits = data.load("digits", batch_size=64, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.batch_size = 1
    error = tf.errors.DataLossError(None, None, "anything")
    assert digits.explain(error) is error
