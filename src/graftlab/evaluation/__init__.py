"""Replies judged: who answers, what a reply scores, and what of a difference is no chance.

    prompts ──▶ speakers ──▶ replies ──▶ metrics ──▶ scores ──▶ verdicts ──▶ out=DIR
                   └── cache: none is asked twice

`models` answers by a base and its adapters, `endpoint` by a server; `metrics/` holds one file for
each choice of the group `metrics`.
"""
