"""The training binary on two replicas, on two hosts, and compiled as a TPU has it."""

import collections
import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_train import data as data_sets
from granet_train import flags, rendezvous, strategies
from granet_train.device import Device
from granet_train.errors import UsageError
from tests.support import ROOT
from tests.support.processes import environment, free_ports

pytestmark = pytest.mark.optimized

STEPS_PER_EPOCH = 22  # 1,437 training images of digits in batches of 64
UPDATES = range(0, 2 * STEPS_PER_EPOCH - 4 + 1, 4)
COMMON = (
    *("--dataset=digits", "--batch_size=64", "--epochs=2", "--frequency=4", "--learning_rate=0.05"),
    *("--momentum=0.9", "--nesterov", "--weight_decay=5e-4", "--checkpoint_every=9"),
    *("--noexport_tflite", "--noplot", "--notensorboard"),
)


def command(workdir, *more):
    return [*COMMON, f"--workdir={workdir}", *more]


def start(out, runs):
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "support" / "observed_runs.py", out, json.dumps(runs)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def observed(*jobs):
    """What processes that run at the same time saw, run by run.

    Args:
        jobs: (path of its output, its runs) of each of them.
    """
    processes = [start(out, runs) for out, runs in jobs]
    try:
        for process in processes:
            printed, _ = process.communicate(timeout=240)
            assert process.returncode in (0, -signal.SIGKILL), printed
    finally:
        for process in processes:
            process.kill()
    return [pickle.loads(out.read_bytes()) for out, _ in jobs]


def files_in(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


# One host


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """{name: what was seen of a run in one process}, and "workdir"."""
    work = tmp_path_factory.mktemp("work")
    mirrored, xla = "--strategy=mirrored", "--xla"
    term = signal.SIGTERM
    runs = {
        "one": {"flags": command(work / "one")},
        "two": {"flags": command(work / "two", mirrored, "--steps_per_loop=3")},
        "to_12_on_one": {"flags": command(work / "both"), "signal": term, "at": 12},
        "to_30_on_two": {"flags": command(work / "both", mirrored), "signal": term, "at": 30},
        "to_44_on_one": {"flags": command(work / "both")},
        "xla": {"flags": command(work / "xla", xla)},
        "float16": {"flags": command(work / "float16", xla, "--precision=float16")},
        "odd": {"flags": command(work / "odd", mirrored, "--batch_size=33")},
    }
    [seen] = observed((work / "seen", list(runs.values())))
    return dict(zip(runs, seen, strict=True)) | {"workdir": work}


def assert_replicas_agree(seen):
    for path, copies in seen["state"].items():
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0], err_msg=path)


def assert_same_masks(seen, other, steps):
    for step in steps:
        assert seen["masks"][step].keys() == other["masks"][step].keys()
        for path, copies in seen["masks"][step].items():
            for mask in (*copies, *other["masks"][step][path]):
                np.testing.assert_array_equal(mask, copies[0], err_msg=f"{path} at {step}")


def assert_same_figures(epochs, others, rtol):
    assert [epoch.step for epoch in epochs] == [other.step for other in others]
    for name in ("loss", "accuracy", "test_loss", "test_accuracy", "learning_rate"):
        ours, theirs = [[getattr(e, name) for e in rows] for rows in (epochs, others)]
        np.testing.assert_allclose(ours, theirs, rtol=rtol, err_msg=name)


def test_two_replicas_do_what_one_device_does(here):
    one, two = here["one"], here["two"]
    assert two["error"] is None
    assert {len(copies) for copies in two["state"].values()} == {2}
    assert_replicas_agree(two)
    assert sorted(two["masks"]) == list(UPDATES)
    assert_same_masks(two, one, UPDATES)
    assert_same_figures(two["epochs"], one["epochs"], rtol=1e-5)
    for path, [value] in one["state"].items():
        np.testing.assert_allclose(two["state"][path][0], value, atol=1e-5, err_msg=path)


def test_the_device_takes_several_steps_by_itself_and_is_traced_once(here):
    # Loops end at mask updates (each 4 steps), checkpoints (each 9) and ends of epochs (22).
    assert here["one"]["loops"] == [4, 4, 1, 3, 4, 2, 2, 2, 2, 3, 1, 4, 4, 4, 4]
    assert here["two"]["loops"][:6] == [3, 1, 3, 1, 1, 3]
    for name in ("one", "two", "xla"):
        assert here[name]["traces"] == [1, 1]


@pytest.mark.parametrize("name", ["one", "two", "xla", "float16"])
def test_evaluation_sees_each_test_image_once(here, name):
    assert here[name]["evaluated"] == [360, 360]


def test_a_run_moves_from_one_device_to_two_replicas_and_back(here):
    parts = [here[name] for name in ("to_12_on_one", "to_30_on_two", "to_44_on_one")]
    assert [(part["begin"], part["end"]) for part in parts] == [(0, 12), (12, 32), (32, 44)]
    assert [part["error"] and part["error"][0] for part in parts] == [143, 143, None]
    assert_replicas_agree(parts[1])
    for part in parts:
        assert_same_masks(part, here["one"], part["masks"])
    assert_same_figures(
        [epoch for part in parts for epoch in part["epochs"]], here["one"]["epochs"], rtol=1e-5
    )
    for path, [value] in here["one"]["state"].items():
        np.testing.assert_allclose(parts[2]["state"][path][0], value, atol=1e-5, err_msg=path)


def test_xla_compiles_the_step_with_its_mask_updates(here):
    assert here["xla"]["error"] is None
    assert_same_masks(here["xla"], here["one"], UPDATES)
    assert_same_figures(here["xla"]["epochs"], here["one"]["epochs"], rtol=1e-4)


def test_xla_with_float16_and_loss_scaling(here):
    seen = here["float16"]
    assert seen["error"] is None
    # 3·3·8 + 3·3·8·16 + 4·4·16·10 weights at 90 %.
    assert sum(copies[0].sum() for copies in seen["masks"][40].values()) == 378
    np.testing.assert_allclose(seen["epochs"][0].loss, here["one"]["epochs"][0].loss, rtol=0.05)


def test_a_batch_that_replicas_cannot_share_is_refused(here):
    code, text = here["odd"]["error"]
    assert code == UsageError.exit_code == 2
    assert "multiple of the 2 replicas" in text and "Received: --batch_size=33" in text
    assert not files_in(here["workdir"] / "odd")


# Two hosts


@pytest.fixture(scope="module")
def hosts(here, tmp_path_factory):
    """What two hosts saw, run by run, and their work directories.

    The second is told to stop; they go on in vain where it does not see the checkpoints, and then
    where it does. In another run the first is killed: only the second sees its end.
    """
    work = tmp_path_factory.mktemp("hosts")
    shared, other = work / "shared", work / "other"
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    jobs = []
    for index in range(2):
        more = ("--strategy=multiworker", f"--workers={workers}", f"--worker_index={index}")
        own = command([shared, other][index], *more)
        stop = {"signal": signal.SIGTERM, "at": 30} if index else {}
        kill = {} if index else {"signal": signal.SIGKILL, "at": 30}
        runs = [{"flags": own} | stop, {"flags": own}, {"flags": command(shared, *more)}]
        runs += [{"flags": command(work / "killed", *more)} | kill]
        jobs.append((work / f"seen{index}", runs))
    first, second = observed(*jobs)
    return [*zip(first, second, strict=False), second[len(first) :]], shared, other


def test_hosts_agree_to_the_bit_and_with_one_device(here, hosts):
    (first, _, third, _), _, _ = hosts
    for seen, other in (first, third):
        assert seen["masks"].keys() == other["masks"].keys()
        assert_same_masks(seen, other, seen["masks"])
        assert_same_masks(seen, here["one"], seen["masks"])
        assert_same_figures(seen["epochs"], other["epochs"], rtol=0)
        assert seen["evaluated"] == other["evaluated"] == [360]
        for path, [value] in seen["state"].items():
            np.testing.assert_array_equal(other["state"][path][0], value, err_msg=path)
    epochs = [*first[0]["epochs"], *third[0]["epochs"]]
    assert_same_figures(epochs, here["one"]["epochs"], rtol=1e-5)
    assert [*first[0]["masks"], *third[0]["masks"]] == list(UPDATES)


def test_a_signal_to_one_host_stops_all_with_a_checkpoint(hosts):
    ((chief, other), _, third, _), _, _ = hosts
    assert chief["end"] == other["end"] == 32
    assert [seen["error"][0] for seen in (chief, other)] == [143, 143]
    assert "Stopped by another host at step 32" in chief["error"][1]
    assert "Stopped by SIGTERM at step 32" in other["error"][1]
    assert [(seen["begin"], seen["end"], seen["error"]) for seen in third] == [(32, 44, None)] * 2


def test_only_the_first_host_writes(here, hosts):
    _, shared, other = hosts
    assert not any(other.iterdir())
    # Which checkpoints are left depends on where a run was stopped.
    assert {"ckpt-44.index" in file for file in files_in(shared)} == {True, False}
    kinds = [
        {file for file in files_in(workdir) if "ckpt-" not in file}
        for workdir in (shared, here["workdir"] / "one")
    ]
    assert kinds[0] == kinds[1]


def test_hosts_that_see_different_checkpoints_do_not_go_on(hosts):
    (_, second, *_), shared, other = hosts
    for seen, workdir, step in zip(second, (shared, other), (32, 0), strict=True):
        code, text = seen["error"]
        assert code == UsageError.exit_code
        assert "same work directory" in text and f"{workdir}, here at step {step}" in text


def test_a_host_that_dies_ends_the_others(hosts):
    (*_, [left]), shared, _ = hosts
    code, text = left["error"]
    assert code == 1
    assert text.startswith("Another worker has ended or is out of reach.")
    checkpoint = shared.parent / "killed" / "checkpoints" / "granet" / "ckpt-27"
    assert f"last good checkpoint is {checkpoint}." in text


# How hosts meet


def meet_all(addresses, settings, timeout=10.0):
    """What each host was told: "" if it may go on."""
    told = [None] * len(addresses)

    def one(index):
        try:
            rendezvous.meet(addresses, index, timeout, settings[index])
            told[index] = ""
        except UsageError as error:
            told[index] = str(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(addresses))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_hosts_meet():
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    assert meet_all(addresses, [{"epochs": 2, "pinned": ("a",)}] * 3) == ["", "", ""]
    # The address is free again, for TensorFlow.
    socket.create_server(("127.0.0.1", int(addresses[0].split(":")[1]))).close()


def test_whoever_else_calls_is_ignored():
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    result = []

    def lead():
        result.append(rendezvous.meet(addresses, 0, 10.0, {}))

    thread = threading.Thread(target=lead)
    thread.start()
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"host": 7, "settings": {}}\n', b""):
        address = ("127.0.0.1", int(addresses[0].split(":")[1]))
        while True:
            try:
                with socket.create_connection(address) as connection:
                    connection.sendall(said)
                break
            except ConnectionRefusedError:
                continue
    rendezvous.meet(addresses, 1, 10.0, {})
    thread.join()
    assert result == [None]


def test_hosts_with_different_flags_are_all_told():
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    settings = [{"epochs": 2}, {"epochs": 2}, {"epochs": 3}]
    text = (
        "All workers must be given the same flags. "
        f"Received: --epochs=2 on {addresses[0]}, --epochs=3 on {addresses[2]}"
    )
    assert meet_all(addresses, settings) == [text] * 3


def test_all_are_told_who_is_missing():
    present, also, missing = [f"127.0.0.1:{port}" for port in free_ports(3)]
    told = [None, None]

    def one(index):
        with pytest.raises(UsageError) as error:
            rendezvous.meet([present, also, missing], index, 0.5, {})
        told[index] = str(error.value)

    other = threading.Thread(target=one, args=(1,))
    other.start()
    one(0)
    other.join()
    text = f"--connect_timeout=0.5 seconds. Received: no answer from {missing}"
    assert all(message.endswith(text) for message in told)


def test_without_the_first_host_nobody_goes_on():
    first, second = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with pytest.raises(UsageError, match=f"Received: no answer from {first}$"):
        rendezvous.meet([first, second], 1, 0.5, {})


def test_an_address_of_somebody_else_is_refused():
    [port] = free_ports(1)
    with socket.create_server(("", port)), pytest.raises(UsageError, match="already in use"):
        rendezvous.meet([f"127.0.0.1:{port}", "127.0.0.1:1"], 0, 0.5, {})


def test_the_strategy_is_not_made_without_the_other_hosts(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")
    here, there = [f"127.0.0.1:{port}" for port in free_ports(2)]
    place = (f"--workers={here},{there}", "--worker_index=0", "--connect_timeout=0.5")
    values, _ = flags.parse(["--strategy=multiworker", *place])
    with pytest.raises(UsageError, match=f"Received: no answer from {there}$"):
        strategies.make(values)


@pytest.mark.parametrize("config", ["[1]", "{", '{"cluster": {"worker": ["a:1"]}}'])
def test_a_cluster_in_another_form_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    values, _ = flags.parse(["--strategy=multiworker"])
    with pytest.raises(UsageError) as error:
        strategies.make(values)
    assert str(error.value).endswith(
        f'"task": {{"type": "worker", "index": 0}}}}. Received: TF_CONFIG={config}'
    )


@pytest.mark.parametrize(
    ("jobs", "task", "chief"),
    [
        (["worker"], ("worker", 0), True),
        (["worker"], ("worker", 1), False),
        (["chief", "worker"], ("chief", 0), True),
        (["chief", "worker"], ("worker", 0), False),
    ],
)
def test_one_host_is_the_chief(jobs, task, chief):
    resolver = types.SimpleNamespace(
        task_type=task[0],
        task_id=task[1],
        cluster_spec=lambda: types.SimpleNamespace(jobs=jobs),
    )
    several = types.SimpleNamespace(_in_multi_worker_mode=lambda: True)
    strategy = types.SimpleNamespace(extended=several, cluster_resolver=resolver)
    assert strategies.is_chief(strategy) is chief
    assert strategies.is_chief(tf.distribute.get_strategy())


# TPU


def train_in_shell(*argv):
    return subprocess.run(
        [sys.executable, "-m", "granet_train", "--strategy=tpu", *argv],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_no_tpu_is_one_line(tmp_path):
    done = train_in_shell("--tpu=local", "--tpu_zone=a", "--tpu_project=b", f"--workdir={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: There must be a TPU by this name")
    assert line.endswith("Received: --tpu=local --tpu_zone=a --tpu_project=b")


def test_a_tpu_that_does_not_answer_is_given_up(tmp_path):
    # TensorFlow would try for ever, and cannot be interrupted.
    address = f"grpc://127.0.0.1:{free_ports(1)[0]}"
    done = train_in_shell(f"--tpu={address}", "--connect_timeout=2", f"--workdir={tmp_path}")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert done.stderr.splitlines() == [
        "error: TensorFlow must be able to connect within --connect_timeout=2 seconds. "
        f"Received: no answer from --tpu={address}"
    ]


METHODS = {
    "granet": (granet_tf.GraNet(0.8, initial_sparsity=0.3, frequency=3), False),
    "gmp": (granet_tf.GMP(0.8, frequency=3), False),
    "gmp_mask_only": (granet_tf.GMP(0.8, frequency=3), True),
    "granet_mask_only": (granet_tf.GraNet(0.8, frequency=3), True),
    "set": (granet_tf.SET(0.8, frequency=3), False),
}


def compiled(strategy, name, steps=24):
    """A model for images of 8 × 8 × 1 and 10 classes."""
    method, mask_only = METHODS[name]
    keras.utils.set_random_seed(3)
    with strategy.scope():
        layers = [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.BatchNormalization(momentum=0.5, name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(10, name="head"),
        ]
        model = granet_tf.wrap(keras.Sequential(layers), method, mask_only=mask_only)
        model.resolve(steps)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        model.optimizer.build(model.trainable_variables)
    return model


def digits(epoch, device):
    data = data_sets.load("digits", batch_size=64, seed=0)
    return iter(device.batches(lambda context: data.train(epoch, 0, context)))


def all_values(model):
    variables = (*model.variables, *model.optimizer.variables)
    return {variable.path: variable.numpy() for variable in variables}


@pytest.fixture
def as_on_a_tpu(monkeypatch):
    """SparseOptimizer takes the way it takes under TPUStrategy: one program for every core."""
    monkeypatch.setattr(tf.distribute, "TPUStrategy", tf.distribute.Strategy)


@pytest.mark.parametrize("name", ["granet", "gmp_mask_only", "granet_mask_only", "set"])
def test_the_step_of_a_tpu_compiles_and_does_what_the_plain_one_does(name, request):
    strategy = tf.distribute.get_strategy()
    plain = compiled(strategy, name)
    device = Device(strategy, plain, 64)
    loss = device.train(digits(0, device), 14).mean_loss

    request.getfixturevalue("as_on_a_tpu")
    keras.backend.clear_session(free_memory=False)
    model = compiled(strategy, name)
    device = Device(strategy, model, 64, xla=True)
    np.testing.assert_allclose(device.train(digits(0, device), 14).mean_loss, loss, rtol=1e-5)

    assert int(model.optimizer.iterations) == 14
    for one, other in zip(plain.pruned, model.pruned, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_allclose(one.variable, other.variable, atol=1e-5)
    # Half of training, where the sparsity is reached: 3·3·8 + 6·6·8·10 weights at 80 %.
    assert abs(model.nonzeros - 590.4) <= 2.0


class TwoCores:
    """Stands for the resolver of a TPU of two cores."""

    names = tuple(f"/job:localhost/replica:0/task:0/device:TPU:{core}" for core in range(2))

    def get_tpu_system_metadata(self):
        return types.SimpleNamespace(
            num_cores=2,
            num_hosts=1,
            num_of_cores_per_host=2,
            devices=[types.SimpleNamespace(name=name) for name in self.names],
        )


@pytest.fixture(scope="module")
def tpu():
    """A TPUStrategy whose variables are on CPUs: steps can be traced under it, though not run."""
    strategy = tf.distribute.TPUStrategy(TwoCores())
    cpus = [[name.replace("TPU", "CPU")] for name in TwoCores.names]
    strategy.extended._tpu_devices = np.array(cpus, dtype=object)
    return strategy


@pytest.mark.parametrize(
    ("name", "reduced", "assigned"),
    [
        # Dense gradients of two kernels; two masks, kernels and momenta.
        ("granet", 2, 6),
        ("gmp", 0, 6),
        ("gmp_mask_only", 0, 2),
    ],
)
def test_the_step_can_be_traced_under_tpu_strategy(tpu, name, reduced, assigned):
    model = compiled(tpu, name)
    device = Device(tpu, model, 64)
    step = device._training(model, 64, 0.0)
    after = device._averaging(model)

    def operations(function, *arguments):
        @tf.function
        def program(*args):
            tpu.run(function, args=args)

        specs = [tf.TensorSpec(shape, dtype) for shape, dtype in arguments]
        return program.get_concrete_function(*specs).graph.as_graph_def()

    def count(nodes):
        return collections.Counter(node.op for node in nodes)

    batch = (((32, 8, 8, 1), tf.float32), ((32,), tf.int32))
    graph = operations(step, *batch)
    # One sum for the gradient of each variable, however many updates there are to come.
    assert count(graph.node)["CrossReplicaSum"] == len(model.trainable_variables) == 6
    [due] = [node for node in graph.node if node.op in ("If", "StatelessIf")]
    functions = {f.signature.name: count(f.node_def) for f in graph.library.function}
    update = functions[due.attr["then_branch"].func.name]
    assert update["CrossReplicaSum"] == reduced
    assert update["AssignVariableOp"] == assigned
    assert not functions[due.attr["else_branch"].func.name]["AssignVariableOp"]

    assert count(operations(after).node)["CrossReplicaSum"] == 2
    weights = ((32,), tf.float32)
    assert count(operations(device._evaluation(model), *batch, weights).node)[
        "TPUReplicateMetadata"
    ]


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_batches_have_the_fixed_shapes_that_a_tpu_needs(name):
    data = data_sets.load(name, batch_size=64, seed=0)
    context = tf.distribute.InputContext(2, 1, 4)
    for batches in (data.train(0, 0, context), data.evaluate("test", context)):
        for spec in batches.element_spec:
            assert spec.shape.is_fully_defined() and spec.shape[0] == 16


# The device


def test_steps_per_loop_change_nothing_and_new_epochs_do_not_trace_anew():
    strategy, results = tf.distribute.get_strategy(), []
    for loop in (1, 7, 50):
        keras.backend.clear_session(free_memory=False)
        model = compiled(strategy, "granet", steps=30)
        device = Device(strategy, model, 64)
        samples = 0
        for epoch in range(2):
            iterator, done = digits(epoch, device), 0
            while done < 15:
                steps = min(loop, 15 - done)
                samples += device.train(iterator, steps).samples
                done += steps
        assert samples == 2 * 15 * 64
        assert device._train.experimental_get_tracing_count() == 1
        results.append(all_values(model))
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        for path, value in results[0].items():
            np.testing.assert_array_equal(other[path], value, err_msg=path)


@pytest.mark.parametrize("loops", [[1, 1, 1, 1], [4]])
def test_replicas_end_a_loop_with_the_mean_of_their_moving_statistics(mirrored, loops):
    with mirrored.scope():
        layers = [keras.Input((3,)), keras.layers.BatchNormalization(momentum=0.5, name="norm")]
        layers += [keras.layers.Dense(2, trainable=False, name="head")]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.optimizer.build(model.trainable_variables)
    images = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
    device = Device(mirrored, model, 8)
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros((8, 4), "int32")))
    iterator = iter(device.batches(lambda context: batches))
    for steps in loops:
        device.train(iterator, steps)

    expected = {"moving_mean": np.zeros((2, 3)), "moving_variance": np.ones((2, 3))}
    for step in range(4):
        for replica in range(2):
            batch = images[2 * step + replica]
            for name, value in (("moving_mean", batch.mean(0)), ("moving_variance", batch.var(0))):
                expected[name][replica] = 0.5 * expected[name][replica] + 0.5 * value
    for name, value in expected.items():
        variable = getattr(model.get_layer("norm"), name)
        for copy in mirrored.experimental_local_results(variable.value):
            np.testing.assert_allclose(copy, value.mean(0), rtol=1e-5)
