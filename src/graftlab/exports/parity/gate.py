"""The gate: an export is asked in its own runtime, and kept where it answers as it was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ModelError
from graftlab.exports.parity.record import AS_TRAINED, REFUSED, UNCHECKED, Report
from graftlab.exports.runtimes.base import NotHere

if TYPE_CHECKING:
    from graftlab.exports.parity.measure import Measured
    from graftlab.exports.parity.spec import Bounds, Parity
    from graftlab.exports.source import Trained
    from graftlab.exports.target import Target

ROUNDING_OF_FP32 = 1e-6
"""KL (nats) between two programs that compute in fp32."""


def gate(target: Target, adapter: Trained, folder: Path, spec: Parity) -> Report:
    """Ask the export in `folder`; one model after the other is in memory, in fp32.

    Raises ModelError where the runtime cannot load it at all.
    """
    if not spec.rows:
        return Report(UNCHECKED, "parity.rows=0")
    trained = adapter.on_base
    if trained is None or adapter.whole is not None:
        whole = adapter.whole is not None
        return Report(UNCHECKED, "it is a whole model" if whole else "its base is not here")
    runtime = target.runtime(adapter, folder)
    if isinstance(runtime, NotHere):
        return Report(UNCHECKED, runtime.why)
    from graftlab.exports.parity.measure import measure
    from graftlab.exports.parity.reference import reference
    from graftlab.exports.parity.rows import rows_for

    try:
        tokenizer = trained.load_tokenizer()
    except ModelError as error:
        return Report(UNCHECKED, str(error).rstrip("."))
    tokenizer.date = None  # a runtime writes today's
    rows = rows_for(trained, tokenizer, count=spec.rows, tokens=spec.tokens)
    said = reference(trained, tokenizer, rows.rows, scale=target.scale, tokens=spec.tokens)
    with runtime.opened():
        found = measure(runtime, tokenizer, rows, said, tokens=spec.tokens)
    bounds = _bounds(target.bounds(folder), found, spec.least)
    numbers = _of_numbers(found, bounds)
    problems = [*_of_text(found), *numbers]
    if not problems:
        return Report(AS_TRAINED, measured=found)
    if numbers:
        from graftlab.exports.parity.diagnosis import reasons

        told = reasons(found, adapter, rows.rows, tolerance=bounds.kl)
        problems += told or target.diagnose(adapter, folder)
    return Report(REFUSED, "; ".join(problems), found, curable=bool(numbers))


def require_as_trained(report: Report, target: Target) -> None:
    """Raise ModelError for an export that does not answer as it was trained."""
    if report.verdict == REFUSED:
        assert report.measured is not None
        cure = target.cure() if report.curable else ""
        raise ModelError(
            f"the export does not answer as it was trained, in {report.measured.runtime}: "
            f"{report.why}.{' ' if cure else ''}{cure}"
        )


def notes_of(report: Report, target: Target) -> list[str]:
    """What is to be known of an export that is kept."""
    found = report.measured
    if found is None:
        return []
    told = []
    if found.endless:
        told.append(
            f"in {found.runtime} a reply does not end at {', '.join(found.endless)} by itself: "
            "give it to generate(eos_token_id=...)"
        )
    if found.kl > max(found.moved / 10, ROUNDING_OF_FP32):
        told.append(f"so small an adapter loses much by rounding. {target.cure()}".rstrip())
    return told


def _bounds(usual: Bounds, found: Measured, least: float | None) -> Bounds:
    """What is let pass: where the user says how much may be lost, as much of the KL, too."""
    if least is None:
        return usual
    return replace(usual, least=least, kl=max(usual.kl, (1 - least) * found.moved))


def _of_text(found: Measured) -> list[str]:
    """What is wrong with the tokenizer, the template or the ends of replies."""
    problems = []
    if found.same_prompts < found.rows:
        problems.append(
            f"{found.rows - found.same_prompts} of {found.rows} prompts have other ids "
            f"({found.first_prompt}): the chat template or the tokenizer is another"
        )
    if found.endless and found.ends_replies:
        problems.append(
            f"its replies do not end at {', '.join(found.endless)}: the stop token is missing"
        )
    return problems


def _of_numbers(found: Measured, bounds: Bounds) -> list[str]:
    """What is wrong with the model itself."""
    problems = []
    if not found.kl <= bounds.kl:  # NaN is not, either
        problems.append(
            f"KL {found.kl:.2g} nats, where {bounds.reason} explains {bounds.kl:.2g} (the adapter "
            f"moves its base by {found.moved:.2g})"
        )
    share, margin = found.recovered, found.margin or 0.0
    if share is not None and not share + margin >= bounds.least:
        problems.append(
            f"{share:.3f} ± {margin:.2g} of the adapter's gain is recovered, less than "
            f"parity.least={bounds.least:g}"
        )
    return problems
