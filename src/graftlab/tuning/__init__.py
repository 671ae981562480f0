"""Tuning: learning rate, rank and epochs chosen from few runs, with what is not known said.

    verbs/tune.py ─▶ space.py ─▶ source.py ─▶ the engine of sweeps ─▶ ledger
                     the grid    ▲      │ next runs
                                 │      ▼
                        beliefs.py ◀── rounds.py       which runs next
                            │
                            ▼
                     proposal.py ─▶ written.py         values, regret, files

Every decision is made from the ledger alone, so a search that was killed decides as it would have.
"""
