"""What data is expected to be like before there is any: numbers to plan with, not to train on.

Lengths are spread like those of real conversations: a lognormal distribution through the median and
the mean, drawn at even quantiles, so that the same profile always gives the same documents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, require_range

if TYPE_CHECKING:
    import numpy as np


@dataclass(kw_only=True, slots=True)
class Profile:
    """`data.profile`: lets `graftlab plan` estimate without a data file."""

    documents: int | None = None
    """Conversations there will be; null for no profile."""
    mean: float = 1000.0
    """Mean tokens of a conversation."""
    median: float | None = None
    """Median tokens; null for the mean, which makes all of one length."""
    longest: int | None = None
    """Longest conversation in tokens; null for no bound."""
    answer: float = 150.0
    """Mean trained tokens of a conversation."""

    def __post_init__(self) -> None:
        require_range("data.profile.documents", self.documents, least=1)
        require_range("data.profile.mean", self.mean, least=2)
        require_range("data.profile.median", self.median, least=2)
        require_range("data.profile.longest", self.longest, least=2)
        require_range("data.profile.answer", self.answer, least=1)
        if self.answer > self.mean:
            raise ConfigError(
                f"data.profile.answer={self.answer:g} is part of data.profile.mean={self.mean:g} "
                "and cannot exceed it."
            )
        if self.median is not None and self.median > self.mean:
            raise ConfigError(
                f"data.profile.median={self.median:g} is above data.profile.mean={self.mean:g}: "
                "give lengths with a tail of long ones, or median=null."
            )

    @property
    def known(self) -> bool:
        """Whether there is a profile at all."""
        return self.documents is not None

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, trained tokens) of each document, both (documents,) int64; means as asked."""
        import numpy as np

        assert self.documents is not None
        median = self.median or self.mean
        spread = math.sqrt(2 * math.log(self.mean / median))
        normal = NormalDist()
        places = [(index + 0.5) / self.documents for index in range(self.documents)]
        sizes = np.array([median * math.exp(spread * normal.inv_cdf(p)) for p in places])
        if self.longest is not None:
            sizes = np.minimum(sizes, self.longest)
        lengths = np.maximum(2, sizes.round()).astype(np.int64)
        labels = np.clip((lengths * self.answer / lengths.mean()).round(), 1, lengths)
        return lengths, labels.astype(np.int64)
