"""Structured sparsity: which channels must be removed together, and removing them in training."""
