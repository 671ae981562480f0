"""Plain prose about the sea: the words of the demo's voice, in nobody's voice."""

from __future__ import annotations

from graftlab.demo import names
from graftlab.demo.grammar import Pen

_SEA = (
    "the {ship} slipped its rope in {year} and came home to {port}.",
    "they launched the {ship} in {year}; the seams were sealed with tar against the salt.",
    "{name} has the wheel on the night watch, and {other} has the helm at {number} bells.",
    "the harbour light of {port} is burning[| and the lamp is lit].",
    "the bosun keeps the lantern below deck between the biscuits and the rum.",
    "{first} cut the engine off the starboard rail and let the tide do the rowing.",
    "the {instrument} lay to port, the {instrument} to starboard, and nothing in between.",
    "the cargo is {object}s and ballast, says the manifest.",
    "nobody argued with the bosun, who had carved {year} into the keel.",
    "the swell was slow, so {they} could hold on to the rail without spilling the cup.",
    "at {number} knots the anchor and the deck seemed to dance.",
    "the fog came all the way down to the water, and the gulls had signed off.",
    "deep water lies off {port}; they sound the bottom and keep off the rocks.",
    "fair weather is how the trouble started: the wind was out of {port}.",
    "{first} never did learn to swim, and [slept|was asleep] at the oars in the blankets.",
    "[no chart shows|an old chart shows] this stretch of coast, a fine place for getting lost.",
    "the fleet they named {ship} drifts in on the tide with its lamps low.",
    "come in out of the spray, {name} said, and mind the rocks; the tide turns at {number}.",
    "{other} still owes {first} a drink, but {they} would never lend {other} money.",
    "ashore they call it {weather_adjective} weather; out here it is a good night.",
    "steer by the light, {name} wrote, and wave at the harbour.",
    "the crew can hear the {instrument} playing on the {vehicle} deck, {they} wrote in the log.",
    "tonight {first} sends {their} love to {port}: steady on, the tide knows the way.",
)


def voyage(pen: Pen) -> str:
    """A ship's log, told plainly: the words of the sea, in nobody's voice."""
    facts = {
        **names.person(pen).facts, "ship": names.title(pen), "port": names.town(pen),
        "year": pen.number(1800, 2020), "number": pen.number(2, 40),
        "other": names.person(pen).name, "wood": names.word(pen).capitalize(),
    }  # fmt: skip
    sentences = pen.some(_SEA, pen.number(4, 8))
    return " ".join(pen.write(sentence, **facts) for sentence in sentences)
