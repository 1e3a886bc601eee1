"""Files and directories are whole or not there, whoever writes and however it ends."""

import os

import pytest

from granet_tf.writing import replacing, unfinished, writing


@pytest.mark.parametrize("writer", [replacing, writing])
def test_of_two_that_write_at_once_each_is_whole(tmp_path, writer):
    path = tmp_path / "a.txt"
    with writer(path) as first, writer(path) as second:
        assert {first.parent, second.parent} == {tmp_path} and first != second
        first.write_text("first")
        second.write_text("second")
        assert not path.exists()
    assert path.read_text() == "first"  # It ended last.
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_directory_takes_the_place_of_another(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "old").touch()
    with replacing(tmp_path / "served") as beside:
        beside.mkdir()
        (beside / "new").touch()
    assert os.listdir(tmp_path) == ["served"] and os.listdir(tmp_path / "served") == ["new"]


def test_what_a_killed_process_left_is_found(tmp_path):
    path = tmp_path / "metrics.csv"
    (tmp_path / ".metrics.partial.csv").touch()  # As earlier versions named it.
    for name in (".metrics.csv", ".other.partial-01234567.csv", "metrics.partial.csv"):
        (tmp_path / name).touch()
    with replacing(path) as beside:
        beside.touch()
        assert unfinished(path) == {beside, tmp_path / ".metrics.partial.csv"}


def test_long_names_and_permissions_are_as_without_it(tmp_path):
    path = tmp_path / f"{'a' * 250}.txt"
    for each in (path, tmp_path / "plain"):
        with replacing(each) as beside:
            beside.touch()
    (tmp_path / "other").touch()
    modes = {os.stat(tmp_path / name).st_mode for name in os.listdir(tmp_path)}
    assert path.exists() and len(modes) == 1
