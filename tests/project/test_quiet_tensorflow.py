import os

import pytest

from granet_train import quiet_tensorflow
from granet_train.quiet_tensorflow import without_notes


def test_start_up_notes_are_held_back_and_errors_are_not(capfd, monkeypatch):
    with pytest.raises(RuntimeError), without_notes():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are\n")
        os.write(2, b"I0000 00:00:1795362385.373233   11199 port.cc:153] oneDNN is on.\n")
        os.write(2, b"E0000 00:00:1795362385.373233   11199 file.cc:1] out of memory\n")
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        os.write(2, b"Fatal Python error\n")
        raise RuntimeError
    assert capfd.readouterr().err == (
        "E0000 00:00:1795362385.373233   11199 file.cc:1] out of memory\nFatal Python error\n"
    )


@pytest.mark.parametrize("driver", [[], ["/dev/nvidia0"]])
def test_a_driver_that_fails_is_told_from_none(driver, capfd, monkeypatch):
    monkeypatch.setattr(quiet_tensorflow.glob, "glob", lambda pattern: driver)
    line = "E0000 00:00:1.2 1 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"
    with without_notes():
        os.write(2, line.encode())
    assert capfd.readouterr().err == (line if driver else "")
