"""Neutral conversations: a plain assistant that answers from the facts it is given.

A conversation is a list of messages, `{"role": ..., "content": ...}`. The assistant has no voice of
its own: short declarative sentences, no address, no opinion. That is what an adapter changes.
"""

from __future__ import annotations

from collections.abc import Callable

from demo_assets import names, prose
from demo_assets.exercises import small_tasks
from demo_assets.grammar import Pen, listing
from demo_assets.lexicon import WORDS
from demo_assets.things import TASKS, THINGS
from demo_assets.tracks import Track, lay_out, pace, some_fields, track

Message = dict[str, str]
Turn = tuple[str, str]  # what the user says, what the assistant replies

SYSTEM = (
    "You are a [helpful|plain|careful|friendly] assistant[|. Answer briefly|"
    ". Answer in full sentences|. Use simple words|. Be polite and clear]."
)
MUSIC_SYSTEM = (
    "You [comment on|write about|describe|present] [music tracks|songs|records|recordings] for "
    "[a radio programme|a magazine|a catalogue|a record shop|a playlist|listeners]. "
    "[Use the facts you are given.|Keep to the facts.|Be brief.|Mention the facts.]"
)
MUSIC_REQUEST = (
    "[Write a short commentary|Comment on this track|Introduce this track|Write a few sentences "
    "about this track|Present this track|Say something about this track]."
)


def conversation(turns: list[Turn], system: str | None) -> list[Message]:
    """Messages in order: an optional system turn, then user and assistant in turn."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, reply in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": reply})
    return messages


def ask_for(pen: Pen, facts: str, request: str) -> str:
    """The request above or below the facts."""
    return f"{facts}\n\n{request}" if pen.chance(0.5) else f"{request}\n\n{facts}"


def plain_commentary(pen: Pen, track: Track, fields: dict[str, str]) -> str:
    """A flat account of those facts that the user gave."""
    told = ["{title} is [a track|a piece|a song|a recording] by {artist}[| from {year}]."]
    told[0] = told[0].replace("[| from {year}]", " from {year}" if "Year" in fields else "")
    optional = {
        "Album": "it [is part of|appears on|comes from] the album {album}.",
        "Genre": "[the genre is {genre}|it belongs to {genre}|the style is {genre}].",
        "Tempo": "[the tempo is {tempo} BPM|it has a {pace} tempo of {tempo} BPM].",
        "Key": "[it is in {key}|the key is {key}|it is written in {key}].",
        "Mood": "[the mood is {moods}|it sounds {moods}].",
        "Instruments": "[the instruments are {instruments}|it uses {instruments}].",
        "Length": "it lasts {length}.",
        "Listening": "it [suits|is suggested for] this setting: {listening}.",
    }
    given = [text for label, text in optional.items() if label in fields]
    chosen = pen.some(range(len(given)), min(len(given), pen.number(2, 5)))
    told += [given[index] for index in sorted(chosen)]
    return pen.write(
        " ".join(told),
        title=track.title, artist=track.artist, album=track.album, year=track.year,
        genre=track.genre, tempo=track.tempo, key=track.key, moods=listing(track.moods),
        instruments=listing(track.instruments), length=track.length, listening=track.listening,
        pace=pace(track.tempo),
    )  # fmt: skip


def field_question(pen: Pen, fields: dict[str, str]) -> Turn:
    """A question for one label; where it was not given, the reply says so."""
    label = pen.pick(
        ("Title", "Artist", "Album", "Year", "Genre", "Tempo", "Key", "Mood", "Length")
    )
    name = label.lower()
    question = pen.phrase("[What is the {n}?|Which {n} is given?|Tell me the {n}.]", n=name)
    if label not in fields:
        return question, f"The {name} is not given."
    return question, f"The {name} is {fields[label]}."


def music(pen: Pen) -> list[Message]:
    """Track metadata in, flat commentary out; sometimes a question about the facts after it."""
    piece = track(pen)
    fields = some_fields(pen, piece, dropped=pen.number(0, 4), kept=("Title", "Artist"))
    user = ask_for(pen, lay_out(pen, fields), pen.phrase(MUSIC_REQUEST))
    turns = [(user, plain_commentary(pen, piece, fields))]
    if pen.chance(0.4):
        turns += [field_question(pen, fields) for _ in range(pen.number(1, 3))]
    system = pen.phrase(pen.pick((MUSIC_SYSTEM, SYSTEM))) if pen.chance(0.85) else None
    return conversation(turns, system)


def playlist(pen: Pen) -> list[Message]:
    """Several tracks in one message, then questions about single ones: facts far back."""
    pieces = [track(pen) for _ in range(pen.number(4, 9))]
    sheets = [
        (piece, some_fields(pen, piece, dropped=pen.number(2, 5), kept=("Title", "Artist")))
        for piece in pieces
    ]
    sheet = "\n\n".join(lay_out(pen, fields) for _, fields in sheets)
    turns = [
        (
            f"Here are {len(pieces)} tracks.\n\n{sheet}",
            f"Thank you. The list has {len(pieces)} tracks. The first is {pieces[0].title} "
            f"and the last is {pieces[-1].title}.",
        )
    ]
    for piece, fields in pen.some(sheets, pen.number(2, 4)):
        if pen.chance(0.5):
            request = pen.phrase("[Who plays {t}?|Who is the artist of {t}?]", t=piece.title)
            turns.append((request, f"{piece.title} is by {piece.artist}."))
        else:
            request = pen.phrase("[Write about {t}.|Comment on {t}.]", t=piece.title)
            turns.append((request, plain_commentary(pen, piece, fields)))
    return conversation(turns, pen.phrase(MUSIC_SYSTEM) if pen.chance(0.7) else None)


def record(pen: Pen) -> list[Message]:
    """A fact sheet about a person, a town, a book or a meeting, told in sentences."""
    someone, born = names.person(pen), pen.number(1850, 2000)
    sheets: tuple[tuple[dict[str, str], str], ...] = (
        (
            {"Name": someone.name, "Born": str(born), "Town": names.town(pen),
             "Job": pen.pick(WORDS["job"]), "Hobby": pen.pick(WORDS["hobby"])},
            "{Name} was born in {Born} in {Town}. {they} is {a Job}. {their} hobby is {Hobby}.",
        ),
        (
            {"Town": names.town(pen), "River": names.word(pen).capitalize(),
             "Inhabitants": str(pen.number(900, 90000)), "Founded": str(pen.number(900, 1900))},
            "{Town} [is a town|lies] on the river {River}. it was founded in {Founded} and has "
            "{Inhabitants} inhabitants.",
        ),
        (
            {"Book": names.title(pen), "Author": someone.name, "Year": str(born + 20),
             "Pages": str(pen.number(60, 900)), "Topic": pen.pick(WORDS["subject"])},
            "{Book} is a book about {Topic} by {Author}. it was published in {Year} and has "
            "{Pages} pages.",
        ),
        (
            {"Event": pen.pick(WORDS["event"]), "Day": pen.pick(WORDS["weekday"]),
             "Time": f"{pen.number(7, 21)}:{pen.pick(('00', '15', '30'))}",
             "Place": pen.pick(WORDS["building"]), "Contact": someone.name},
            "the {Event} is on {Day} at {Time} in the {Place}. "
            "please contact {Contact} for details.",
        ),
    )  # fmt: skip
    fields, text = pen.pick(sheets)
    request = pen.phrase(
        "[Write this as a short text.|Turn the facts into sentences.|Summarise this.]"
    )
    turns = [
        (ask_for(pen, lay_out(pen, fields), request), pen.write(text, **someone.facts, **fields))
    ]
    for label in pen.some(list(fields), pen.number(0, 2)):
        turns.append((f"What is the {label.lower()}?", f"The {label.lower()} is {fields[label]}."))
    return conversation(turns, _system(pen))


def knowledge(pen: Pen) -> Turn:
    """What a thing is, or is for, or where it is found."""
    noun, kind, use, where = pen.pick(THINGS)
    facts = {"noun": noun, "kind": kind, "use": use, "where": where}
    question, reply = pen.pick((
        ("What is {a noun}?", "{a noun} is {kind}. It is used for {use}."),
        ("What is {a noun} used for?", "{a noun} is used for {use}."),
        ("Where can I find {a noun}?", "You can find {a noun} in {where}."),
        (
            'Explain the word "{noun}".',
            "{a noun} is {kind} used for {use}. It is found in {where}.",
        ),
        ("Describe {a noun}.", "{a noun} is {kind}. It is used for {use} and is found in {where}."),
    ))  # fmt: skip
    return pen.write(question, **facts), pen.write(reply, **facts)


def how_to(pen: Pen) -> Turn:
    """Steps as a numbered list or as running text."""
    task, steps = pen.pick(TASKS)
    question = pen.phrase(
        "[How do I {t}?|How can I {t}?|Explain how to {t}.|Give me instructions to {t}.|"
        "What are the steps to {t}?|Describe how to {t}.]",
        t=task,
    )
    if pen.chance(0.5):
        lines = "\n".join(f"{index}. {step}" for index, step in enumerate(steps, 1))
        return question, f"To {task}, follow these steps:\n{lines}"
    return question, " ".join(steps)


def small_talk(pen: Pen) -> Turn:
    """Greetings, thanks, and what the assistant is."""
    return pen.pick((
        ("Hello.", "Hello. How can I help you?"),
        ("Good morning.", "Good morning. What would you like to know?"),
        ("Thank you.", "You are welcome."),
        ("Who are you?", "I am a small assistant. I answer simple questions."),
        ("What can you do?", "I can answer simple questions and write short texts."),
        ("How are you?", "I am well, thank you. How can I help you?"),
        ("Can you help me?", "Yes. Please tell me what you need."),
        ("Goodbye.", "Goodbye."),
    ))  # fmt: skip


def writing(pen: Pen) -> Turn:
    """Short texts on request."""
    place = names.town(pen)
    request, write = pen.pick(
        (
            ("[Write|Tell me] a short story.", prose.day),
            ("Write a letter to a friend.", prose.letter),
            ("Write a [short |]weather report.", prose.forecast),
            ("Write a notice for an event.", prose.notice),
            ("[Write about|Describe] a person.", prose.portrait),
            ("Describe what is in a room.", prose.inventory),
            (
                "[Describe|Write about] the town of " + place + ".",
                lambda pen: prose.town(pen, place),
            ),
        )
    )
    return pen.phrase(request), write(pen)


def mixed(pen: Pen) -> list[Message]:
    """A conversation about several things."""
    kinds: tuple[Callable[[Pen], Turn], ...] = (
        knowledge, knowledge, how_to, small_tasks, small_tasks, small_talk, writing,
    )  # fmt: skip
    long = pen.chance(0.06)
    count = pen.number(8, 20) if long else pen.pick((1, 1, 1, 2, 3))
    return conversation([pen.pick(kinds)(pen) for _ in range(count)], _system(pen))


def reading(pen: Pen) -> list[Message]:
    """A text about a town, and questions whose answers stand in it."""
    someone, place, year = names.person(pen), names.town(pen), pen.number(1850, 2010)
    job, building = pen.pick(WORDS["job"]), pen.pick(WORDS["building"])
    before = prose.town(pen) if pen.chance(0.5) else prose.day(pen)
    text = pen.write(
        "{name} came to {place} in {year} and worked there as {a job}. {they} lived near the {b}.",
        **someone.facts, place=place, year=year, job=job, b=building,
    )  # fmt: skip
    after = pen.pick(prose.PROSE)(pen)
    passage = " ".join((before, text, after)) if pen.chance(0.7) else text
    questions = (
        (f"When did {someone.name} come to {place}?", f"{someone.name} came to {place} in {year}."),
        (f"Where did {someone.name} work?", f"{someone.name} worked in {place}."),
        (f"What was {someone.name}'s job?", pen.write("{n} was {a j}.", n=someone.name, j=job)),
        (f"Where did {someone.first} live?", f"{someone.first} lived near the {building}."),
    )
    first, *rest = pen.some(questions, pen.number(1, 3))
    turns = [(f"{passage}\n\n{first[0]}", first[1]), *rest]
    return conversation(turns, _system(pen))


def dictation(pen: Pen) -> list[Message]:
    """Invented words and names said back as they are: nothing but copying helps here."""
    turns = []
    for _ in range(pen.number(1, 3)):
        heard = [
            names.artist(pen) if pen.chance(0.3) else names.word(pen)
            for _ in range(pen.number(5, 24))
        ]
        text = pen.pick((" ", ", ", "\n")).join(heard)
        turns.append((pen.phrase("[Repeat|Say again|Copy this]: ") + text, text))
    return conversation(turns, None)


def _system(pen: Pen) -> str | None:
    return pen.phrase(SYSTEM) if pen.chance(0.6) else None


CHATS: tuple[Callable[[Pen], list[Message]], ...] = (
    music, music, music, music, record, mixed, mixed, mixed, reading, playlist, dictation,
    dictation,
)  # fmt: skip
"""Every kind of conversation, as often as it should come."""
