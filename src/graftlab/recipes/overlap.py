"""How much of an answer stands in its question already, in words."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words_of(text: str) -> list[str]:
    """Words as compared: lower case, without punctuation."""
    return _WORD.findall(text.lower())


def shared_ngrams(asked: list[str], answered: list[str], n: int) -> float:
    """Share of the answer's n-grams that the question holds: 0 is all new, 1 can be copied."""
    ours = _ngrams(answered, n)
    if not ours:
        return 0.0
    theirs = set(_ngrams(asked, n))
    return sum(gram in theirs for gram in ours) / len(ours)


def longest_run(asked: list[str], answered: list[str]) -> int:
    """Words of the longest stretch that both have, in time linear in their words.

    The answer is read through the suffix automaton of the question (Blumer et al., 1985), whose
    states stand for the runs of words that the question holds.
    """
    steps, links, lengths = _suffix_automaton(asked)
    longest = state = run = 0
    for word in answered:
        while state and word not in steps[state]:
            state = links[state]
            run = lengths[state]
        state = steps[state].get(word, 0)
        run = run + 1 if state else 0
        longest = max(longest, run)
    return longest


def _suffix_automaton(words: list[str]) -> tuple[list[dict[str, int]], list[int], list[int]]:
    """Per state, of which 0 is the start: its transitions, its suffix link, its longest run."""
    steps: list[dict[str, int]] = [{}]
    links, lengths = [-1], [0]
    last = 0
    for word in words:
        state, at = len(steps), last
        steps.append({})
        links.append(0)
        lengths.append(lengths[last] + 1)
        while at >= 0 and word not in steps[at]:
            steps[at][word] = state
            at = links[at]
        if at >= 0:
            known = steps[at][word]
            if lengths[known] != lengths[at] + 1:
                clone = len(steps)
                steps.append(dict(steps[known]))
                links.append(links[known])
                lengths.append(lengths[at] + 1)
                links[known] = clone
                while at >= 0 and steps[at].get(word) == known:
                    steps[at][word] = clone
                    at = links[at]
                known = clone
            links[state] = known
        last = state
    return steps, links, lengths


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
