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


def test_what_tensorflow_2_18_logs_as_errors_at_each_start(capfd):
    place = "2026-11-29 13:28:42.868255: E external/local_xla/xla/stream_executor/cuda"
    with without_notes():
        os.write(2, f"{place}/cuda_fft.cc:477] Unable to register cuFFT factory: Att".encode())
        os.write(2, b"\nE0000 00:00:1.8 2 cuda_dnn.cc:8310] Unable to register cuDNN factory: A\n")
        os.write(2, f"{place}/cuda_fft.cc:12] out of memory\n".encode())
    assert capfd.readouterr().err == f"{place}/cuda_fft.cc:12] out of memory\n"


@pytest.mark.parametrize("level", ["E0000 00:00:1.2 1 ", "2026-11-29 13:28:42.868255: E external/"])
@pytest.mark.parametrize("driver", [[], ["/dev/nvidia0"]])
def test_a_driver_that_fails_is_told_from_none(driver, level, capfd, monkeypatch):
    monkeypatch.setattr(quiet_tensorflow.glob, "glob", lambda pattern: driver)
    line = f"{level}cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"
    with without_notes():
        os.write(2, line.encode())
    assert capfd.readouterr().err == (line if driver else "")
