"""Processes that tests start."""

import os
import socket
import subprocess
import sys

from tests.support import ROOT


def run_python(script):
    """Runs `script` in a fresh interpreter and returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def environment():
    """For a process that imports what is tested, without a GPU."""
    return os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}


def free_ports(count):
    """Numbers of ports of this machine that nothing listens to."""
    with_port = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in with_port]
    for server in with_port:
        server.close()
    return ports
