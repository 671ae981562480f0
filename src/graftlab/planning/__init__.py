"""What a run will take, estimated before anything is loaded or paid: numbers in, numbers out.

machine     what a machine has, does and costs; `conf/machine/*.yaml`
shape      a base's weights, counted from names and shapes
workload   documents, rows, steps, and the largest micro-batch
memory     bytes by term, for the training step of this house
timing     floating-point work, hours, energy, money
changes    single changes after which it would fit
advice     epochs, rank, learning rate, context length, each with its reason
plan       all of it together
show       the same on a terminal

The arithmetic needs no torch: counts, rates and probes are handed in by `estimate`.
"""
