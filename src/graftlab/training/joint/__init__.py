"""Joint training: several adapters on one frozen base, in one process and one pass.

    micro-batch        a a a a b b        one row of documents, N tokens
    laid K times       a a a a b b | a a a a b b | a a a a b b        (1, K * N)
                       adapter 0     adapter 1     adapter 2

Documents are kept apart by their boundaries, and so are the copies: no token sees another copy, and
an adapted linear layer adds adapter k's update to the k-th block of its rows alone. The frozen
products see K * N rows at once. Each adapter's weights belong to its own optimizer, schedule,
clipping, callbacks, loggers and run folder, which are literally those of a run alone; so are its
checkpoints. What a run alone would compute and this one are equal up to rounding.

    groups          which runs may train together
    linear          the adapted linear layer, and its backward pass
    stack           adapters laid over each other, and the passes through them
    shared_layers   layers below the first adapted one, computed once
    trainer_shim    what callbacks and checkpoints ask of a Lightning trainer
    joint_run       one run among those that train together
    setup           from jobs to runs
    scheduler       which runs train in the step at hand
    run             the steps, and who leaves when
    probe           documents and adapters really do not see each other
    measure         is it faster here than one run after the other?
"""
