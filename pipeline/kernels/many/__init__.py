"""Many small problems in one call, each as if alone: for the CPU twins."""
