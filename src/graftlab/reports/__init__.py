"""The report over runs: what lies in their folders, read once, compared, and shown.

    run folders ──▶ gather.py ──▶ Run ──▶ compare.py ──▶ Comparison ──▶ table.py   terminal
                                              │                    ├──▶ export.py  CSV, Parquet
    verdict.py: is it better?  ───────────────┤                    ├──▶ page.py    report.html
    importance.py: which key matters? ────────┘                    └──▶ winner.py  an experiment

Nothing here imports torch, and run folders are only read.
"""
