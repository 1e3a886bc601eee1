"""Packaging of granet_tf; `pip install .` needs nothing else."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "granet_tf/__init__.py").read_text())[1]
REPORT = ["jinja2", "matplotlib"]

setup(
    name="granet_tf",
    version=VERSION,
    description="Sparse training in Keras 3: GraNet, GMP, RigL and SET, with TFLite export",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=["keras", "tensorflow", "sparsity", "pruning", "tflite", "litert"],
    url="https://arxiv.org/abs/2106.10404",
    project_urls={"Paper": "https://arxiv.org/abs/2106.10404"},
    python_requires=">=3.11",
    packages=[
        *find_packages(
            include=[
                *("granet_tf", "granet_tf.*"),
                *("keras_layers", "keras_layers.*"),
                *("granet_train", "granet_train.*"),
            ]
        ),
        "granet_train.configs",
    ],
    # The rows of the paper's tables and their recipes, which `granet-train --row` reads.
    package_dir={"granet_train.configs": "configs"},
    package_data={
        "granet_tf": ["py.typed"],
        "granet_train": ["py.typed"],
        "keras_layers": ["py.typed"],
        "granet_tf.export": ["report.html"],
        "granet_train.configs": ["paper.csv", "base/*.flags"],
    },
    install_requires=[
        "absl-py",
        "ai-edge-litert",
        # The versions that have what keras_layers/keras_internals.py takes from them.
        "keras>=3.13,<3.16",
        "numpy",
        "tensorflow>=2.18,<2.22",
    ],
    extras_require={
        # For the page that a report on an exported file is saved as.
        "report": [*REPORT],
        # What the training binary needs beyond the library.
        # tensorflow-datasets needs importlib_resources for ImageNet, and does not say so.
        "training": [
            *REPORT,
            "importlib_resources",
            "joblib>=1.3,<2",
            "rich",
            "scikit-learn",
            "tensorflow-datasets",
        ],
        # Studies on a cluster, --scheduler.
        "dask": ["distributed>=2025.1,<2027"],
        # An engine that skips zeros, to export to.
        "mnn": ["MNN>=3.6"],
        # A fast dense engine, to compare with.
        "openvino": ["openvino"],
        "test": [
            *REPORT,
            "MNN>=3.6",
            "distributed>=2025.1,<2027",
            "hypothesis",
            "keras-tuner",
            "mypy",
            "pytest",
            "pytest-xdist>=3.7",
            "ruff",
            "tensorboard",
            "tensorflow-model-optimization",
            "tf_keras",
        ],
        # The documentation's site, `make docs`.
        "docs": ["latex2mathml", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.27,<2"],
        # A text model among the real ones, and an engine that tests do without.
        "test_all": ["keras-hub", "openvino"],
    },
    entry_points={
        "console_scripts": [
            "granet-compare=granet_train.commands:compare",
            "granet-export=granet_train.commands:export",
            "granet-plasticity=granet_train.commands:plasticity",
            "granet-train=granet_train.commands:train",
        ],
        # Where the library finds data sets by name.
        "granet_tf.data_sets": ["granet_train=granet_train.data.first_images:of_set"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
