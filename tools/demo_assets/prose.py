"""Neutral prose: portraits, places, days, procedures, notices, reports; nothing with a voice.

Every function draws one short document as plain text; facts stay the same through a document.
"""

from __future__ import annotations

from collections.abc import Callable

from demo_assets import names
from demo_assets.grammar import Pen, listing, plural
from demo_assets.lexicon import WORDS
from demo_assets.things import TASKS, THINGS
from demo_assets.voyages import voyage


def _two(pen: Pen, name: str) -> dict[str, str]:
    """Facts `name` and `name2`: two different words of one list."""
    first, second = pen.some(WORDS[name], 2)
    return {name: first, f"{name}2": second}


def portrait(pen: Pen) -> str:
    """A life in a few sentences."""
    born = pen.number(1840, 1985)
    facts = {
        **names.person(pen).facts, "born": born, "moved": born + pen.number(18, 30),
        "later": born + pen.number(31, 50), "town": names.town(pen), "city": names.town(pen),
        "job": pen.pick(WORDS["job"]), "hobby": pen.pick(WORDS["hobby"]),
        "subject": pen.pick(WORDS["subject"]), "other": names.person(pen).name,
    }  # fmt: skip
    sentences = [
        "{name} was born in {born} in {town}[|, where {their} father worked as {a parent}].",
        "[{they} studied {subject} in {city}.|At school {they} liked {subject} best.|"
        "{their} first teacher was {other}.|As a child {they} was {trait} and {trait2}.]",
        "in {moved} {they} [moved to {city} and became {a job}|began to work as {a job} in {city}|"
        "left {town} and found work as {a job}].",
        "[{they} opened a [small|new|second] [workshop|office|shop] near the {building} in {later}."
        "|in {later} {they} married {other}.|from {later} {they} taught {subject}.|"
        "{their} best known work is a book about {topic} from {later}.]",
        "[in {their} free time {they} enjoyed {hobby}.|{they} was known for {hobby}.|"
        "{first} spoke [two|three|four] languages.|{they} was [{trait}|{trait2}] and liked "
        "{hobby}.]",
        "[{first} still lives in {city}.|{they} returned to {town} many years later.|"
        "{their} letters are kept in the {building} of {city}.|a street in {town} has {their} "
        "name.]",
    ]
    traits = pen.some(WORDS["trait"], 2)
    facts |= {"trait": traits[0], "trait2": traits[1], "parent": pen.pick(WORDS["job"])}
    facts["topic"] = plural(pen.pick(WORDS["animal"]))
    return " ".join(pen.write(sentence, **facts) for sentence in sentences)


def town(pen: Pen, name: str | None = None) -> str:
    """A place as a handbook describes it."""
    facts = {
        "town": name or names.town(pen), "river": names.word(pen).capitalize(),
        "people": f"{pen.number(2, 480)},{pen.number(0, 999):03d}", "year": pen.number(900, 1880),
        "near": names.town(pen), "distance": pen.number(4, 90), "opened": pen.number(1881, 2015),
        "goods": plural(pen.pick(WORDS["object"])), "fruit": plural(pen.pick(WORDS["fruit"])),
    }  # fmt: skip
    return " ".join(
        pen.write(sentence, **facts)
        for sentence in (
            "{town} is a [small |quiet |busy |]town [on the river {river}|by the {place}|in a "
            "valley]"
            " with about {people} [people|inhabitants].",
            "it was [founded|first mentioned] in {year} and lies {distance} kilometres "
            "[north|south|east|west] of {near}.",
            "[the town is known for its {goods}.|many people work in the {building}.|"
            "farmers in the area grow {fruit}.|the main industry is the making of {goods}.]",
            "the {building} [was built|was opened|was rebuilt] in {opened}[| and is open to "
            "visitors].",
            "[there is a market every {weekday}.|in {month} there is {a event} in the {place}.|"
            "a {vehicle} runs to {near} every hour.|the {season}s are {weather_adjective}.]",
        )
    )


def day(pen: Pen) -> str:
    """What somebody did on a day: a small story with one person and one thing."""
    friend = names.person(pen)
    facts = {
        **names.person(pen).facts, "friend": friend.first, "object": pen.pick(WORDS["object"]),
        "shop": pen.pick(WORDS["shop"]), "relation": pen.pick(WORDS["relation"]),
        "place": pen.pick(WORDS["place"]), "price": pen.number(2, 60), "town": names.town(pen),
    }  # fmt: skip
    start = pen.pick((
        "on {weekday} [morning|afternoon|evening] {first} went to the {shop} to buy {a object}.",
        "{first} woke up early because of the {weather}. {they} needed {a object} for {their} "
        "{relation}.",
        "it was a {weather_adjective} day in {month}. {first} was looking for {a object}.",
        "{first} lost {their} {colour} {object} near the {place}. {they} was {feeling}.",
        "{first} and {their} {relation} walked to the {place}. they took {a object} with them.",
    ))  # fmt: skip
    middle = pen.some(
        (
            "the {shop} was [closed|full|busy|almost empty], so {they} waited for {number} "
            "minutes.",
            "on the way {they} met {friend}, who was carrying {a tool}.",
            '{friend} asked, "[do you have time|have you eaten|where are you going|'
            'what are you looking for]?"',
            '"[I do not know|I will be there soon|that is a good idea|it is not far|'
            'I need {a object}]," said {first}.',
            "the {object} was {colour} and made of {material}.",
            "it cost {price} [euros|coins|pounds], which was [cheap|fair|a little too much].",
            "outside it was [still |]{weather_adjective}, and the {place} was [quiet|busy|empty].",
            "a {animal} was sitting [on the wall|under the bench|near the gate|by the road].",
            "they drank {drink} and talked about {hobby}.",
            "{first} put the {object} into {a container} and went on.",
        ),
        pen.number(2, 5),
    )
    end = pen.pick((
        "in the evening {they} put the {object} on the {furniture} in the {room}.",
        "at home {they} gave the {object} to {their} {relation}, who was {feeling}.",
        "{first} was {feeling} when {they} came back to {town}.",
        "then {they} cooked {dish} and went to bed [early|late].",
        "the next day {first} told {friend} about it.",
    ))  # fmt: skip
    facts |= {"number": pen.number(3, 40), "container": pen.pick(("bag", "box", "basket"))}
    return " ".join(pen.write(sentence, **facts) for sentence in (start, *middle, end))


def definition(pen: Pen) -> str:
    """What a thing is."""
    noun, kind, use, where = pen.pick(THINGS)
    facts = {"noun": noun, "kind": kind, "use": use, "where": where}
    return " ".join((
        pen.write("{a noun} is {kind}[. it is| that is] used for {use}.", **facts),
        pen.write(
            "[you can [often |usually |]find it in {where}.|it is [often|usually] kept in {where}.|"
            "a good {noun} lasts for many years.|most {s noun} are made of {material} or "
            "{material2}.]"
            "[| the first {s noun} were [heavier|simpler|larger] than those of today.]",
            **facts, **_two(pen, "material"),
        ),
    ))  # fmt: skip


def procedure(pen: Pen) -> str:
    """How to do something, in order."""
    task, steps = pen.pick(TASKS)
    links = ("first, ", "then ", "after that, ", "next, ", "finally, ")
    told = [link + step[0].lower() + step[1:] for link, step in zip(links, steps, strict=True)]
    return pen.write(f"[how to {task}:|to {task}, do the following.] " + " ".join(told))


def notice(pen: Pen) -> str:
    """A public notice with a date, a time and a place."""
    facts = {
        "event": pen.pick(WORDS["event"]), "building": pen.pick(WORDS["building"]),
        "town": names.town(pen), "name": names.person(pen).name, "day": pen.number(1, 28),
        "hour": pen.number(7, 20), "half": pen.pick(("00", "15", "30", "45")),
        "price": pen.number(1, 25), "count": pen.number(20, 300),
    }  # fmt: skip
    return pen.write(
        "the {event} in the {building} of {town} [takes place|will be held|starts] on {weekday}, "
        "{day} {month}, at {hour}:{half}. [{name} will open it.|{name} is in charge.|"
        "please ask {name} for details.] [tickets cost {price} euros.|entry is free.|"
        "there are {count} seats.] [in case of {weather} it will be moved to the {building2}.|"
        "please bring {a object}.|{drink} and {dish} will be served.|dogs are not allowed.]",
        **facts, building2=pen.pick(WORDS["building"]),
    )  # fmt: skip


def forecast(pen: Pen) -> str:
    """A weather report."""
    low = pen.number(-8, 18)
    return pen.write(
        "the weather in {town} on {weekday}: [{weather_adjective} in the morning|{weather} at "
        "first], "
        "later {weather_adjective}[| with some {weather}]. temperatures between {low} and {high} "
        "degrees. the wind comes from the [north|south|east|west][| and is [weak|strong]]. "
        "[on {weekday} it will be {weather_adjective}.|the night stays {weather_adjective}.|"
        "there may be {weather} near the {place}.]",
        town=names.town(pen), low=low, high=low + pen.number(3, 12),
    )  # fmt: skip


def letter(pen: Pen) -> str:
    """A short friendly letter."""
    to, sender = names.person(pen), names.person(pen)
    body = pen.write(
        "[thank you for your letter|I hope you are well|I am writing from {town}]. "
        "[we arrived on {weekday}|the journey took {small_number} hours|the house is near the "
        "{place}]"
        " and the weather is {weather_adjective}. [yesterday we visited the {building}|my "
        "{relation} "
        "bought {a object}|I have started to learn {subject}|we saw {a animal} in the {place}]. "
        "[it was {quality} and {quality2}.|everyone was {feeling}.|we stayed for {small_number} "
        "hours.]"
        " [please send me the {object}|I would like to see your {object}|please greet your "
        "{relation}|"
        "I will come back in {month}].",
        town=names.town(pen),
        **_two(pen, "quality"),
    )
    close = pen.pick(("Kind regards", "Best wishes", "Yours"))
    return f"Dear {to.first},\n{body}\n{close}\n{sender.first}"


_REMARKS = {
    "animal": (
        "{a n} eats [grass|seeds|insects|fish|leaves|worms].", "{s n} live near the {place}.",
        "in {season} the {n} looks for food.", "many {s n} are {colour}.",
        "the young {n} stays with its mother.", "we saw {small_number} {s n} in {month}.",
    ),
    "plant": (
        "the {n} grows best in {quality} soil.", "in {season} the {n} has {colour} leaves.",
        "{a n} needs water and light.", "{s n} are common near the {place}.",
        "{a n} does not like {weather}.", "we planted {small_number} {s n} in {month}.",
    ),
    "job": (
        "{a n} works [in a {building}|outdoors|with {s tool}|with people].",
        "a good {n} is {trait}.", "to become {a n} one studies {subject}.",
        "the {n} starts work [early|late].", "my {relation} is {a n}.",
    ),
    "thing": (
        "this {n} is {colour}.", "{a n} can be {quality}.", "some {s n} are {size}.",
        "the {n} in the {room} belongs to my {relation}.", "one {n} costs {small_number} euros.",
        "I bought {a n} on {weekday}.", "there are many {s n} at the market in {season}.",
    ),
}  # fmt: skip


def remarks(pen: Pen) -> str:
    """Several general statements about one kind of thing."""
    group = pen.pick(("animal", "plant", "tool", "fruit", "vegetable", "vehicle", "job", "garment"))
    noun = pen.pick(WORDS[group])
    told = pen.some(_REMARKS.get(group, _REMARKS["thing"]), pen.number(3, 4))
    return pen.write(" ".join(told), n=noun)


def comparison(pen: Pen) -> str:
    """Two things side by side, with numbers that agree."""
    first, second = pen.some(WORDS["building"], 2)
    heights = pen.some(range(4, 90), 2)
    taller, lower = (first, second) if heights[0] > heights[1] else (second, first)
    return pen.write(
        "the {first} in {town} is {a} metres high and the {second} is {b} metres high. "
        "the {taller} is taller than the {lower}. the difference is {c} metres.",
        first=first, second=second, a=heights[0], b=heights[1], taller=taller, lower=lower,
        c=abs(heights[0] - heights[1]), town=names.town(pen),
    )  # fmt: skip


def inventory(pen: Pen) -> str:
    """What is where: lists joined into sentences."""
    things = [f"{pen.number(2, 30)} {plural(word)}" for word in pen.some(WORDS["object"], 3)]
    tools = pen.some(WORDS["tool"], pen.number(2, 4))
    return pen.write(
        "in the {room} of the {building} there are {things}. [the|{name}'s] {furniture} holds "
        "{tools}. [everything else is in the {room2}.|nothing is missing.|the {colour} "
        "{object} is new.|the list was made on {weekday}.]",
        things=listing(things), tools=listing([f"the {tool}" for tool in tools]),
        name=names.person(pen).first, room2=pen.pick(WORDS["room"]),
    )  # fmt: skip


PROSE: tuple[Callable[[Pen], str], ...] = (
    portrait, portrait, town, day, day, day, definition, procedure, notice, forecast, letter,
    remarks, comparison, inventory, voyage, voyage, voyage,
)  # fmt: skip
"""Every kind of document, as often as it should come."""
