"""A program of a user's, as mypy --strict sees it; never run."""

import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

import granet_tf
from granet_tf import compaction, compat_tfmot, distributions, export, plasticity


class Sensitivity(granet_tf.GraNet):
    def drop_score(self, weight: tf.Tensor, gradient: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.abs(weight * gradient)


class Staircase(granet_tf.PruningSchedule):
    def __call__(self, step: int) -> tuple[bool, float]:
        return step % 10 == 0, 0.5


def train(network: keras.Model, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    method = granet_tf.GraNet(0.9, end_step=0.5, pattern=granet_tf.Block((4, 1)), pinned={0: 0.0})
    model = granet_tf.wrap(network, method, prunable=["*/kernel"])
    model.compile("adam", "mse")
    model.fit(x, x, epochs=2)
    model.resolve(10)
    model.set_masks({})
    model.start([(x, x)], "mse")
    model.warn_of_emptied()
    model.summary()
    model.save("model.keras")
    model.export("folder")
    model.quantize("int8")
    rate: float = model.itop_rate
    paths: list[str] = [pruned.path for pruned in model.pruned]
    print(granet_tf.summarize(model).rows[0].reason, granet_tf.count_flops(model).dense, paths)
    optimizer = granet_tf.SparseOptimizer("adam", model)
    optimizer.apply([], [])
    optimizer.prune_at_start()
    granet_tf.plot_sparsity(model, to_file="sparsity.png").savefig("sparsity.svg")
    granet_tf.plot_history(model.fit(x, x, callbacks=[granet_tf.callbacks.LogSparsity()]))
    pins: dict[str | int, float] = granet_tf.sensitivity(model, (x, x)).pins(2)
    print(granet_tf.SET(0.5, pinned=pins))
    return model.sparsity + rate


def configured(model: keras.Model) -> None:
    methods: list[granet_tf.Method] = [
        granet_tf.GMP(0.9, schedule=granet_tf.PolynomialDecay(0.0, 0.9, 0, 10, frequency=5)),
        granet_tf.RigL(0.9, seed=1),
        granet_tf.SET(),
        granet_tf.StaticSparse(0.9, distribution="uniform"),
        granet_tf.MagnitudeAtInit(0.9),
        granet_tf.SNIP(0.9, batches=2),
        granet_tf.GraSP(0.9),
        granet_tf.SynFlow(0.9),
        granet_tf.ACDC(0.9),
        granet_tf.TopKAST(0.9),
        granet_tf.SNFS(0.9),
        granet_tf.DPF(0.9),
        granet_tf.ITOP(0.9),
        granet_tf.MEST(0.9),
        granet_tf.DSR(0.9),
        granet_tf.DeepR(0.9),
        granet_tf.STR(),
        Sensitivity(0.5),
    ]
    schedules: list[granet_tf.PruningSchedule] = [
        granet_tf.ConstantSparsity(0.5, 0),
        granet_tf.GraNetSchedule(0.0, 0.9, 0, 50, 100),
        granet_tf.Shifted(granet_tf.ConstantSparsity(0.5, 0), 3),
    ]
    patterns: list[granet_tf.Pattern] = [
        granet_tf.Element(),
        granet_tf.Filter(),
        granet_tf.NM(2, 4),
        granet_tf.ByKind({"dense": granet_tf.Block((4, 1))}),
    ]
    print(methods, schedules, patterns, distributions.uniform({"a": (2, 2)}, 0.5))
    layer = granet_tf.PruneLowMagnitude(keras.layers.Dense(4), schedules[0])
    prune = granet_tf.sparsity.keras.prune_low_magnitude
    print(layer.pruned, prune(model, schedules[0]), granet_tf.LinearWarmup)
    granet_tf.sparsity.keras.UpdatePruningStep()
    granet_tf.sparsity.keras.PruningSummaries("logs")
    granet_tf.sparsity.keras.strip_pruning(model)


def exported(model: keras.Model) -> list[str]:
    file = granet_tf.export_tflite(
        model, "model.tflite", format="int8", representative_data="digits"
    )
    size: int = file.sparse_bytes
    mnn: granet_tf.MNNReport = granet_tf.export_mnn(model, "model.mnn")
    report = granet_tf.export_report(model, "model.tflite")
    report.save("report.html")
    engines: granet_tf.EngineComparison = granet_tf.compare_engines(model, threads=[1])
    budget: float = granet_tf.sparsity_for(model, max_bytes=size)
    small = granet_tf.compact(model)
    print(
        compaction.explain(small), compat_tfmot.from_tfmot(small), export.read_weights("a.tflite")
    )
    outcomes = plasticity.measure(granet_tf.wrap(small), [], [], rates=[0.5], epochs=1)
    print(plasticity.prune_once(granet_tf.wrap(small), 0.5).pruned, granet_tf.strip(model))
    return [str(mnn), str(engines), str(budget), str(outcomes[0].difference), granet_tf.__version__]
