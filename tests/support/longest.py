"""The files whose tests take longest, so that no worker is left alone with one at the end."""

LONGEST = (
    "training/test_training.py",
    "project/test_readme.py",
    "structured/test_shrinking.py",
    "training/test_training_distribution.py",
    "project/test_examples.py",
    "export_command/test_export_command.py",
    "training/test_flags.py",
    "plasticity/test_plasticity.py",
    "structured/test_coupled_filters.py",
    "project/test_docstrings.py",
    "export/test_export_formats.py",
    "methods/test_more_methods.py",
    "int8/test_fake_quantize.py",
    "training/test_checkpoints.py",
    "studies/test_compare.py",
    "studies/test_compare_table.py",
    "training/test_shrinking.py",
)
