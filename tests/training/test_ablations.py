"""Training again with masks and weights of a finished run."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_train import files, flags, models, retraining
from granet_train.errors import UsageError
from tests.support.short_runs import QUIET, SHORT, run, summary, table

NETWORK = ("--width=0.25", *SHORT, *QUIET)
INITIAL = ((8, 8, 1), 10, 0.25)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A run of GraNet from seed 3."""
    workdir = tmp_path_factory.mktemp("found") / "run"
    run(*NETWORK, "--frequency=3", "--seed=3", f"--workdir={workdir}")
    return workdir


def arrays(workdir):
    """(masks, weights) of the model that a run left behind."""
    model = keras.models.load_model(workdir / files.SPARSE, compile=False)
    return [p.mask.numpy() for p in model.pruned], model.model.get_weights()


def retrained(found, workdir, *argv):
    run(*NETWORK, "--method=static", f"--masks_from={found}", f"--workdir={workdir}", *argv)
    return workdir


def started(argv):
    """(masks, weights) that a run of these flags begins with."""
    values, _ = flags.parse([*NETWORK, "--method=static", *argv])
    keras.utils.set_random_seed(values.seed)
    model = granet_tf.wrap(models.make("small_cnn", *INITIAL), granet_tf.StaticSparse(0.5))
    retraining.begin(model, "static", values)
    return [p.mask.numpy() for p in model.pruned], model.model.get_weights(), model


def initial(seed):
    keras.utils.set_random_seed(seed)
    return models.make("small_cnn", *INITIAL).get_weights()


def masked(weights, masks):
    """Kernels come in the order of their masks; everything else as it is."""
    left = list(masks)
    return [w * left.pop(0) if w.ndim > 1 else w for w in weights]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_lottery_ticket_begins_as_the_run_did(found):
    masks, _ = arrays(found)
    argv = (f"--masks_from={found}", f"--weights_from={found}", "--weights_at=start", "--seed=8")
    assert sum(m.sum() for m in masks) == summary(found)["runs"]["granet"]["nonzeros"]
    begun, weights, model = started(argv)
    assert_equal(begun, masks)
    assert_equal(weights, masked(initial(3), masks))
    assert model.method.final_sparsity == model.sparsity


def test_learning_rate_rewinding_begins_as_the_run_ended(found):
    masks, last = arrays(found)
    begun, weights, _ = started((f"--masks_from={found}", f"--weights_from={found}", "--seed=3"))
    assert_equal(begun, masks)
    assert_equal(weights, last)
    assert not np.array_equal(last[0], initial(3)[0])


def test_a_run_that_began_with_weights_of_another_has_those_as_its_first(found, tmp_path):
    later = tmp_path / "later"
    later.mkdir()
    noted = {"flags": {**summary(found)["flags"], "weights_from": str(found), "seed": 7}}
    (later / files.SUMMARY).write_text(json.dumps(noted))
    argv = (f"--masks_from={found}", f"--weights_from={later}", "--weights_at=start")
    assert_equal(started(argv)[1], arrays(found)[1])


def test_random_reinitialization_begins_anew(found):
    masks, _ = arrays(found)
    begun, weights, _ = started((f"--masks_from={found}", "--seed=4"))
    assert_equal(begun, masks)
    assert_equal(weights, masked(initial(4), masks))


def test_the_masks_stay_to_the_end_and_the_schedule_begins_anew(found, tmp_path):
    argv = (f"--weights_from={found}", "--seed=3", "--compare=dense")
    workdir = retrained(found, tmp_path / "rewound", *argv)
    assert_equal(arrays(workdir)[0], arrays(found)[0])
    figures = summary(workdir)["runs"]
    assert figures["static"]["nonzeros"] == summary(found)["runs"]["granet"]["nonzeros"]
    assert figures["dense"]["nonzeros"] == figures["dense"]["weights"]
    rates = [
        [line["learning_rate"] for line in table(path / files.METRICS) if line["run"] == name]
        for path, name in ((workdir, "static"), (found, "granet"))
    ]
    assert rates[0] == rates[1]
    # A training that begins where the other ended is better after its first epoch.
    first, last = (table(path / files.METRICS) for path in (workdir, found))
    assert float(first[0]["loss"]) < float(last[0]["loss"])


def test_going_on_does_not_begin_again(found, tmp_path):
    rest = retrained(found, tmp_path, "--seed=4")
    whole = arrays(rest)
    # As if it had been stopped: the newest checkpoint is that of the third epoch.
    (rest / files.SUMMARY).unlink()
    state = tf.train.get_checkpoint_state(str(rest / files.CHECKPOINTS / "static"))
    paths = list(state.all_model_checkpoint_paths)
    tf.compat.v1.train.update_checkpoint_state(
        str(rest / files.CHECKPOINTS / "static"), paths[-2], paths[:-1]
    )
    assert "going on after step 15" in run(
        *NETWORK, "--method=static", f"--masks_from={found}", "--seed=4", f"--workdir={rest}"
    )
    for a, b in zip(whole, arrays(rest), strict=True):
        assert_equal(a, b)


def test_weights_of_a_dense_run_are_pruned_as_if_pretrained(found, tmp_path):
    dense = tmp_path / "dense"
    run(*NETWORK, "--method=dense", f"--workdir={dense}")
    weights = keras.models.load_model(dense / files.STRIPPED).get_weights()
    values, _ = flags.parse([*NETWORK, f"--weights_from={dense}"])
    model = models.make("small_cnn", *INITIAL)
    retraining.begin(model, "granet", values)
    assert_equal(model.get_weights(), weights)
    with pytest.raises(UsageError, match="must be a run with masks, and this one was dense"):
        check(f"--masks_from={dense}", "--method=static", "--seed=9")


def check(*argv, width=0.25):
    values, _ = flags.parse([*SHORT, *argv])
    retraining.check(models.make("small_cnn", (8, 8, 1), 10, width), values)


def test_mistakes(found, tmp_path):
    static = ("--method=static", f"--masks_from={found}")
    with pytest.raises(UsageError, match=r"--masks_from must be the work directory of a finished"):
        check("--method=static", f"--masks_from={tmp_path}")
    with pytest.raises(UsageError, match=r"--weights_from must be the work directory of a finis"):
        check(f"--weights_from={tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match=r"same network.*--width=0.25 instead of 0.5"):
        check(*static, "--width=0.5", "--seed=4", width=0.5)
    with pytest.raises(UsageError, match=r"same network.*--width=0.25 instead of 0.5"):
        check(f"--weights_from={found}", "--width=0.5", width=0.5)
    with pytest.raises(UsageError, match=r"choose another --seed\. Received: .*--seed=3"):
        check(*static, "--width=0.25", "--seed=3")
    with pytest.raises(UsageError, match=r"--method=granet has no use for --masks_from"):
        check(f"--masks_from={found}")
    with pytest.raises(UsageError, match=r"--weights_at needs --weights_from"):
        check("--weights_at=start")
