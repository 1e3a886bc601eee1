"""Images in a folder for each class, laid out as for `ImageFolder` of tensorflow_datasets.

    DIR/train/cat/1.jpg   DIR/train/dog/1.png   DIR/test/cat/1.jpg   DIR/test/dog/1.jpg

The names of the folders are those of the classes, in alphabetic order. As tensorflow_datasets does
by default, images are read in colour.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from granet_train.data import facts, images, loading
from granet_train.data.interface import TEST, TRAIN, VALIDATION, Data, Options
from granet_train.data.records import Piece, Source
from granet_train.errors import UsageError

NAME = "folder"
SUFFIXES = (".jpg", ".jpeg", ".png")
# Folders to test on: the first that is there.
_TEST = (TEST, VALIDATION, "val")
_CHANNELS = 3
_LAYOUT = "train/CLASS/ and test/CLASS/ or validation/CLASS/ with images in them"

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Markers in a JPEG file after which its height and width stand.
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def load(name: str, options: Options) -> Data:
    """The images: in memory if they are of one size and small together, else streamed.

    Args:
        name: What the set is called.
        options: `data_dir` is the directory that holds the splits.

    Raises:
        UsageError: If the directory is laid out otherwise, an image cannot be read, or the images
            are of different sizes and `image_size` is not given.

    Example:

    >>> for path in ("train/a/1", "train/a/2", "train/b/1", "test/a/1", "test/b/1"):
    ...     path = f"/tmp/folder_of_images/{path}.png"
    ...     tf.io.gfile.makedirs(os.path.dirname(path))
    ...     tf.io.write_file(path, tf.io.encode_png(np.ones((8, 8, 3), np.uint8)))
    >>> load("folder", Options(1, seed=0, data_dir="/tmp/folder_of_images")).description
    'folder: 3 training and 2 test images of 8×8×3'
    """
    root = _directory(options)
    splits = _splits(root, options)
    source = _source(name, splits, options)
    return loading.load(source, tuple(splits), facts.of(name), options)


def _directory(options: Options) -> str:
    wording = options.wording
    if options.data_dir is None:
        raise UsageError(
            f"The directory of the images must be given: it holds {_LAYOUT}. "
            f"Received: {wording.dataset.format(NAME)} without {wording.data_dir.format('DIR')}"
        )
    root = os.path.expanduser(options.data_dir)
    if not os.path.isdir(root):
        raise UsageError(
            f"There is no such directory. Received: {wording.data_dir.format(options.data_dir)}"
        )
    return root


def _splits(root: str, options: Options) -> dict[str, list[str]]:
    """{split: paths of its images}, the training split first; in a fixed, random order.

    Hosts, and what is held out, take ranges of that order, which must not be classes.
    """
    received = options.wording.data_dir.format(options.data_dir)
    there = _folders(root)
    test = next((split for split in _TEST if split in there), None)
    if TRAIN not in there or test is None:
        held = f"the folders {', '.join(there)}" if there else "no folder"
        raise UsageError(
            f"The directory of the images must hold {_LAYOUT}; this one holds {held}. "
            f"Received: {received}"
        )
    splits = {split: _images(os.path.join(root, split)) for split in (TRAIN, test)}
    for split, paths in splits.items():
        if not paths:
            raise UsageError(
                f"There must be images ({', '.join(SUFFIXES)}) in the folders of the classes in "
                f"{os.path.join(root, split)}. Received: {received}"
            )
    known, tested = (set(map(_class, paths)) for paths in splits.values())
    if len(known) < 2 or not tested <= known:
        raise UsageError(
            "The training images must be of two classes or more, those of the test images among "
            f"them. Received: {received}, with the classes {', '.join(sorted(known))} in train/ "
            f"and {', '.join(sorted(tested))} in {test}/"
        )
    order = np.random.default_rng(0)
    return {
        split: [paths[i] for i in order.permutation(len(paths))] for split, paths in splits.items()
    }


def _folders(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _images(split: str) -> list[str]:
    found = []
    for folder in _folders(split):
        with os.scandir(os.path.join(split, folder)) as entries:
            names = (e.name for e in entries if e.name.lower().endswith(SUFFIXES))
            found += sorted(os.path.join(split, folder, n) for n in names if n[0] != ".")
    return found


def _class(path: str) -> str:
    return os.path.basename(os.path.dirname(path))


def _source(name: str, splits: dict[str, list[str]], options: Options) -> Source:
    import tensorflow as tf

    classes = sorted(set(map(_class, splits[TRAIN])))
    height, width = _common_size([path for paths in splits.values() for path in paths], options)

    def pieces(split: str, begin: int, end: int) -> list[Piece]:
        return [Piece(path, skip=0, take=1, length=1) for path in splits[split][begin:end]]

    def read(pieces: Sequence[Piece], *, salvage: Any, deterministic: bool) -> Any:
        del salvage, deterministic  # Only the paths are read here, in their order.
        paths = tf.constant([piece.path for piece in pieces], tf.string)
        return tf.data.Dataset.from_tensor_slices(paths)

    def parse(path: Any) -> tuple[Any, Any]:
        own = tf.strings.split(path, os.sep)[-2]
        return tf.io.read_file(path), tf.argmax(tf.equal(own, classes), output_type=tf.int32)

    return Source(
        name=name,
        pieces=pieces,
        parse=parse,
        height=height,
        width=width,
        channels=_CHANNELS,
        classes=len(classes),
        sizes={split: len(paths) for split, paths in splits.items()},
        read=read,
        damage=lambda pieces: _damage(pieces, options),
    )


def _common_size(paths: Sequence[str], options: Options) -> tuple[int | None, int | None]:
    """Height and width of all images; None if they are of different sizes, and made one size.

    Reads the first bytes of each file up to the first that differs.
    """
    first, first_path = None, None
    for path in paths:
        size = _size(path)
        if size is None:
            if options.skip_corrupt:
                continue
            raise _unreadable(path, options)
        if first is None:
            first, first_path = size, path
        if size != first and options.image_size is None:
            raise UsageError(
                f"The images are of different sizes: {first_path} is {first[0]}×{first[1]}, {path} "
                f"{size[0]}×{size[1]}. Give {options.wording.resize}. "
                f"Received: {options.wording.data_dir.format(options.data_dir)}"
            )
        if size != first:
            return None, None
    return first or (None, None)


def _size(path: str) -> tuple[int, int] | None:
    """Height and width of a PNG or JPEG file; None if it is neither, or cut off."""
    try:
        with open(path, "rb") as file:
            begin = file.read(24)
            if begin.startswith(_PNG) and len(begin) == 24:
                return int.from_bytes(begin[20:24], "big"), int.from_bytes(begin[16:20], "big")
            if begin.startswith(_JPEG):
                file.seek(len(_JPEG))
                return _jpeg_size(file)
    except OSError:
        pass
    return None


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """From segments that begin with a marker and their own length."""
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        if head[1] in _SIZES:
            size = file.read(5)
            if len(size) < 5:
                return None
            return int.from_bytes(size[1:3], "big"), int.from_bytes(size[3:5], "big")
        file.seek(int.from_bytes(head[2:4], "big") - 2, os.SEEK_CUR)
    return None


def _damage(pieces: Sequence[Piece], options: Options) -> UsageError | None:
    import tensorflow as tf

    for piece in pieces:
        try:
            images.whole(tf.io.read_file(piece.path), _CHANNELS)
        except tf.errors.OpError:
            return _unreadable(piece.path, options)
    return None


def _unreadable(path: str, options: Options) -> UsageError:
    return UsageError(
        f"{path} is no image that can be read. Restore the file{options.wording.skip}. "
        f"Received: {options.wording.data_dir.format(options.data_dir)}"
    )
