"""Documents into rows, rows into flat micro-batches, and attention that keeps documents apart."""
