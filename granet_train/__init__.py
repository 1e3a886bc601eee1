"""The training binary `granet-train`: absl flags in, sparse models and their figures out."""
