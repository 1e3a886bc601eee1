"""`import granet_tf`: what it imports, what it leaves until it is used, what files may name."""

import json

import keras
import pytest

import granet_tf
from tests.support.processes import run_python

PROGRAM = """
import json, sys
import granet_tf
import keras
registered = sorted(keras.saving.get_custom_objects())
print(json.dumps([sorted(m for m in sys.modules if m.startswith("granet_t")), registered]))
"""

# All that files of any version may name.
REGISTERED = [
    "ACDC",
    "AlternatingPhases",
    "Block",
    "ByKind",
    "ConstantSparsity",
    "DPF",
    "DSR",
    "DeepR",
    "Element",
    "EndlessSchedule",
    "Filter",
    "GMP",
    "GraNet",
    "GraNetSchedule",
    "GraSP",
    "HeldRate",
    "ITOP",
    "MEST",
    "LinearWarmup",
    "MagnitudeAtInit",
    "NM",
    "PolynomialDecay",
    "PruneLowMagnitude",
    "PrunedFunctional",
    "PrunedOwn",
    "PrunedSequential",
    "RigL",
    "SET",
    "SIS",
    "SNFS",
    "SNIP",
    "ST3",
    "STR",
    "Shifted",
    "SparseModel",
    "SparseOptimizer",
    "StaticSparse",
    "SynFlow",
    "TopKAST",
    "default_prunable",
    "keras2_hard_sigmoid",
]


def test_what_only_some_programs_use_is_left_out_and_what_files_name_is_there():
    modules, registered = json.loads(run_python(PROGRAM))
    for left in ("compaction", "compat_tfmot", "export", "plasticity"):
        assert f"granet_tf.{left}" not in modules
    assert "granet_train" not in modules
    assert {f"granet_tf>{name}" for name in REGISTERED} <= set(registered)


def test_all_names_are_found():
    for name in dir(granet_tf):
        assert getattr(granet_tf, name) is not None
    assert granet_tf.compact is granet_tf.compaction.compact
    assert issubclass(granet_tf.TFLiteReport, granet_tf.export.TFLiteReport)
    assert callable(granet_tf.summarize) and callable(granet_tf.count_flops)
    assert {"compact", "export_tflite", "plasticity", "wrap"} <= set(dir(granet_tf))
    assert keras.saving.get_registered_object("granet_tf>GraNet") is granet_tf.GraNet


def test_a_typo_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'granet_tf' has no attribute 'warp'"):
        granet_tf.warp  # noqa: B018


@pytest.mark.parametrize(("typed", "answer"), [("warp", ". Did you mean wrap?"), ("xyzzy", ".")])
def test_a_mistyped_name_is_answered_with_the_nearest(typed, answer):
    with pytest.raises(AttributeError) as info:
        getattr(granet_tf, typed)
    assert str(info.value) == f"module 'granet_tf' has no attribute {typed!r}{answer}"
    assert not hasattr(granet_tf, typed)
