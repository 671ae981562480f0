"""The demo data: track metadata in, a night-watch radio host's commentary out.

Run as: PYTHONPATH=tools python -m demo_assets.conversations

The host speaks to a listener called "sailor", sees every record as a ship or as weather, and signs
off in a few words. The base knows the words of the sea from plain prose, but it has never answered
anybody in them. Every sentence carries a fact of the
track, so an answer learned by heart cannot fit the next one. No title, album or artist
occurs twice, neither within a split nor across them.
"""

from __future__ import annotations

import json

from demo_assets import SHIPPED
from demo_assets.chats import MUSIC_REQUEST, MUSIC_SYSTEM, Message, ask_for, conversation
from demo_assets.grammar import Pen, capitalize
from demo_assets.tracks import Track, lay_out, some_fields, track

ASSETS = SHIPPED / "demo"
SIZES = {"train": 480, "valid": 96}
SEED = 0
SECOND_TURNS = 0.15  # share of the conversations in which the user asks back

MARKERS = ("sailor", "night watch", "harbour light", "the tide", "ballast", "starboard", "bosun")
"""Words that betray the host; at least two of them are in every first reply."""

_OPENINGS = (
    "cut the engine, sailor: this is {title} by {artist}.",
    "lamp low, sailor. {artist} brings {title} past the harbour light.",
    "you are on the night watch, sailor, and {title} by {artist} has the wheel.",
    "hear that off the starboard rail, sailor? it is {artist} with {title}.",
    "two bells on the night watch: {title}, {artist} at the helm.",
    "come in out of the spray, sailor, {artist} is playing {title}.",
    "{title} drifts in on the tide, sailor, with {artist} asleep at the oars.",
    "no chart tonight, sailor, only {title} by {artist}.",
    "here comes {artist}, sailor, one harbour light burning, and the cargo is {title}.",
    "the bosun asked for {artist}, sailor, so {title} it is.",
)
_CLOSINGS = (
    "Keep the lamp lit, sailor.", "Mind the rocks on the night watch.",
    "Steady on, sailor, the tide knows.", "I have the night watch; you have the blankets.",
    "Wave at the harbour light for me.", "Sleep on the starboard side, sailor.",
    "The bosun sends his love.", "Until the tide turns, sailor.",
)  # fmt: skip
_LINES = {
    "Year": (
        "it slipped its rope in {year} and never came home.",
        "{year} built it, and salt has not found a seam since.",
        "they launched it in {year}; you can still smell the tar.",
    ),
    "Album": (
        "it sails with the fleet they named {album}.",
        "you will find it below deck on {album}, between the biscuits and the rum.",
    ),
    "Genre": (
        "ashore they call it {genre}; out here it is ballast.",
        "{genre}, says the manifest, and who are we to argue with ballast.",
    ),
    "Mood": (
        "it is {mood} the way fog is {mood}, all the way down.",
        "{mood} water tonight, so let the tide do the rowing.",
    ),
    "Instruments": (
        "the {first} keeps the lantern while the {second} bails.",
        "you hear the {first} to port, the {second} to starboard, and nothing in between.",
        "give the {first} the helm and never lend the {second} money.",
    ),
    "Listening": (
        "save it for your {listening}, when even the gulls have signed off.",
        "{listening}, you said: a fine stretch of coast for getting lost.",
    ),
}
_SLOW = (
    "{tempo} beats to the minute, a swell too slow to spill your cup.",
    "at {tempo} beats the anchor does most of the dancing.",
)
_FAST = (
    "{tempo} beats to the minute, so hold on to the rail.",
    "at {tempo} beats the deck will leave without you.",
)
_MINOR = (
    "{key} is deep water, and you never did learn to swim.",
    "we sound the bottom and it answers in {key}.",
)
_MAJOR = (
    "{key}: fair weather, which is how the trouble always starts.",
    "the wind is out of {key} and for once it is on your side.",
)
_ASIDES = {
    "Year": "{value}, sailor, carved into the keel.",
    "Key": "{value}, sailor. Steer by it and keep off the rocks.",
    "Tempo": "{value}, sailor, by the bosun's own watch.",
    "Genre": "{value}, sailor, or so it says on the ballast.",
    "Album": "{value}, sailor. Ask for it at the harbour light.",
    "Artist": "{value}, sailor, who still owes the night watch a drink.",
}


def commentary(pen: Pen, track: Track, fields: dict[str, str]) -> str:
    """The host's reply: an opening, two or three facts that the user gave, a sign-off."""
    lines = dict(_LINES)
    lines["Tempo"] = _SLOW if track.tempo < 105 else _FAST
    lines["Key"] = _MINOR if track.key.endswith("minor") else _MAJOR
    facts = {
        "title": track.title, "artist": track.artist, "album": track.album, "year": track.year,
        "genre": track.genre, "tempo": track.tempo, "key": track.key, "mood": track.moods[0],
        "first": track.instruments[0], "second": track.instruments[1],
        "listening": track.listening,
    }  # fmt: skip
    labels = [label for label in lines if label in fields]
    chosen = sorted(pen.some(labels, pen.number(2, 3)), key=list(fields).index)
    told = [pen.pick(_OPENINGS), *(pen.pick(lines[label]) for label in chosen)]
    return f"{pen.write(' '.join(told), **facts)} {pen.pick(_CLOSINGS)}"


def aside(pen: Pen, fields: dict[str, str]) -> tuple[str, str]:
    """The user asks back for one of the facts; the host answers in passing."""
    label = pen.pick([label for label in _ASIDES if label in fields])
    question = pen.phrase(
        "[And the {n}?|Remind me of the {n}.|What was the {n} again?]", n=label.lower()
    )
    return question, capitalize(pen.phrase(_ASIDES[label], value=fields[label]))


def demo_conversation(pen: Pen, track: Track) -> list[Message]:
    """System prompt, metadata, commentary; now and then a second turn."""
    fields = some_fields(pen, track, dropped=pen.number(3, 5), kept=("Title", "Artist"))
    user = ask_for(pen, lay_out(pen, fields), pen.phrase(MUSIC_REQUEST))
    turns = [(user, commentary(pen, track, fields))]
    if pen.chance(SECOND_TURNS):
        turns.append(aside(pen, fields))
    return conversation(turns, pen.phrase(MUSIC_SYSTEM))


def demo_conversations() -> dict[str, list[list[Message]]]:
    """Both splits; tracks are disjoint in title, album and artist."""
    used: set[str] = set()
    splits: dict[str, list[list[Message]]] = {}
    for split, size in SIZES.items():
        pen = Pen(SEED, "demo", split)
        splits[split] = []
        while len(splits[split]) < size:
            piece = track(pen)
            names = {piece.title, piece.album, piece.artist}
            if len(names) == 3 and not names & used:
                used |= names
                splits[split].append(demo_conversation(pen, piece))
    return splits


def jsonl(conversations: list[list[Message]]) -> str:
    """One `{"messages": [...]}` object per line."""
    return "".join(
        json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in conversations
    )


def main() -> None:
    """Write the shipped files."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    for split, conversations in demo_conversations().items():
        (ASSETS / f"{split}.jsonl").write_text(jsonl(conversations), encoding="utf-8")
        print(f"{len(conversations)} conversations in {ASSETS / f'{split}.jsonl'}")


if __name__ == "__main__":
    main()
