"""Plain prose about the sea: most words of the demo's voice, in nobody's voice.

An adapter of a few minutes can arrange known words anew; it cannot teach a vocabulary. So the base
has read the words as a catalogue of a harbour would use them, and none of the voice's sentences.
"""

from __future__ import annotations

from demo_assets import names
from demo_assets.grammar import Pen

_SEA = (
    "the {ship} was built in {port} in {year}. her keel is oak and her deck is pine.",
    "the {ship} was launched in {year} and sails for the fleet of {port}.",
    "the cargo of the {ship} was rum, salt, tar and biscuits; the manifest lists {number} barrels.",
    "{name} was bosun of the {ship} and {other} was her helmsman.",
    "the lamp of the harbour light is lit at dusk and put out at dawn.",
    "there is a lantern at the helm and another below deck.",
    "the port side of a ship is the left side and the starboard side is the right side.",
    "the crew sleep in blankets below deck. the night watch is {number} men.",
    "the engine is cut before the ship comes into port, and a boat with four oars takes the rope.",
    "at high tide the water covers the rocks; at low tide they can be seen from the coast.",
    "ballast of stone and {material} keeps the ship steady in a swell.",
    "a chart of the coast shows the rocks, the deep water and the lights.",
    "the bell is struck every half hour. eight bells end a watch.",
    "the wind was from the {direction} and the fog was thick. "
    "the anchor was dropped at {number} fathoms.",
    "to sound is to measure how far down the bottom lies, with a line and a weight.",
    "gulls followed the {ship} into the harbour of {port}.",
    "{name} went ashore in {port} to drink a cup of tea with {other}.",
    "a wave came over the rail and the spray wet the {object} on the deck.",
    "a boat with a leaking seam must be bailed. {first} did it with a cup.",
    "a sailor must learn to swim, to row and to steer. {first} learned it in {port}.",
    "the wheel turns the rudder. {name} had the wheel until {number} o'clock.",
    "the weather was fair in {month}, and in {month} there was trouble with the engine.",
    "a boat that is not tied drifts with the tide. {other} lost one in {year}.",
    "{first} carved the name of the ship into {a object}.",
)


def voyage(pen: Pen) -> str:
    """A page about a ship and its harbour, told plainly."""
    facts = {
        **names.person(pen).facts, "ship": names.title(pen), "port": names.town(pen),
        "year": pen.number(1800, 2020), "number": pen.number(2, 40),
        "other": names.person(pen).name,
        "direction": pen.pick(("north", "east", "south", "west")),
    }  # fmt: skip
    sentences = pen.some(_SEA, pen.number(4, 8))
    return " ".join(pen.write(sentence, **facts) for sentence in sentences)
