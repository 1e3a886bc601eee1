"""What is told of a sparse model: tables, sparsity, FLOPs, TensorBoard's scalars."""
