"""Names of people, places, tracks, albums and artists: drawn from lists or built of syllables.

Built names matter: a model that meets a name once cannot know it and must copy it from the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo_assets.grammar import Pen
from demo_assets.lexicon import words

WOMEN = words(
    "Anna Maria Clara Ines Ruth Helen Nora Alice Edith Marta Sofia Lena Olga Vera Ida Emma Rosa "
    "Julia Greta Hanna Irene Paula Amina Leila Yuki Mei Priya Zara Tessa Brigid Elsa Petra Dora "
    "Celia Margit Selma Ada Thea Wilma Fatima Noor Carmen Lucia Beatriz Agnes Hilda Joan Mabel"
)
MEN = words(
    "Peter Karl David Simon Thomas Oscar Hugo Anton Felix Martin Leo Victor Paul Emil Henry "
    "George Walter Arthur Omar Hassan Kenji Ravi Marco Luis Diego Andrei Ivan Pavel Janek Mateo "
    "Samuel Jonas Erik Nils Otto Albert Frank Robert Edgar Basil Conrad Dennis Gilbert Harold "
    "Ismail Julian Laszlo Milos"
)
SURNAMES = words(
    "Baker Carter Miller Weaver Hill Brook Stone Field Marsh Wood Hale Lind Berg Falk Holm Dahl "
    "Novak Kovac Horvat Silva Costa Moreno Ortega Rossi Conti Moretti Keller Vogel Brandt Winter "
    "Sommer Lang Klein Tanaka Mori Sato Patel Mehta Rahman Haddad Nasser Cohen Levin Petrov "
    "Orlov Dubois Moreau Laurent Lefevre Byrne Doyle Quinn Murray Fraser Doherty Pryce Vaughan "
    "Okafor Mensah Diallo Abebe Nagy Szabo Farkas Jansen Visser Bakker Virtanen Laine"
)

_ONSETS = words("b br c cl d dr f fl g gr h j k kl l m n p pr r s sk st t tr v w z th sh bl")
_VOWELS = ("a", "e", "i", "o", "u", "a", "e", "o", "ai", "ea", "ou", "ie")
_CODAS = ("", "", "", "n", "r", "l", "m", "s", "t", "nd", "rn", "ck", "th", "sk", "lt", "x")
_TOWN_ENDS = words("ton ford ham wick by field port bury mouth stead burg dale minster haven well")

_TITLE_ADJECTIVES = words(
    "Broken Silver Quiet Golden Empty Hollow Paper Distant Crooked Second Last First Burning "
    "Frozen Wooden Electric Velvet Yellow Crimson Pale Borrowed Nameless Slow Sudden Wild Tender "
    "Hidden Open Blind Painted Northern Southern Little Long Lonely Bitter Sweet Glass Iron Copper "
    "Lost Unwritten Patient Restless Secret Weightless Perfect Invisible"
)
_TITLE_NOUNS = words(
    "Window River Garden Letter Station Mirror Winter Summer Engine Shadow Street Bridge Mountain "
    "Road Kitchen Ladder Orchard Signal Feather Machine Corner Ocean Hour Morning Sunday Fire "
    "Stone Thunder Valley Balcony Telegram Carousel Lantern Compass Photograph Staircase Desert "
    "Meadow Island Clock Circus Harbour Ribbon Satellite Umbrella Avenue Echo Forest Parade "
    "Postcard Ceiling Elevator Magnet Pendulum Volcano Suitcase Anthem Cathedral"
)
_TITLE_VERBS = words(
    "Leaving Crossing Counting Finding Losing Painting Holding Following Chasing Burning Building "
    "Forgetting Remembering Waiting_for Dreaming_of Walking_to Talking_to Falling_for Breaking "
    "Mending Drawing Running_from"
)
_BAND_NOUNS = words(
    "Sparrows Pilots Gardeners Lanterns Cousins Mechanics Foxes Engines Orchards Strangers Magnets "
    "Painters Wolves Kites Astronauts Carpenters Swimmers Librarians Comets Miners Tigers Clocks "
    "Parrots Falcons Tailors Rivers Shadows Satellites Bakers Otters Cardinals Weavers Drifters"
)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone to write about; `facts` fills the template slots name, they, them and their."""

    first: str
    last: str
    woman: bool

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def facts(self) -> dict[str, object]:
        they, them, their = ("she", "her", "her") if self.woman else ("he", "him", "his")
        return {
            "name": self.name, "first": self.first, "last": self.last,
            "they": they, "them": them, "their": their,
        }  # fmt: skip


def word(pen: Pen, *, syllables: int = 2) -> str:
    """An invented word, lower case."""
    parts = [pen.pick(_ONSETS) + pen.pick(_VOWELS) for _ in range(syllables)]
    return "".join(parts) + pen.pick(_CODAS)


def person(pen: Pen) -> Person:
    woman = pen.chance(0.5)
    first = pen.pick(WOMEN if woman else MEN)
    last = pen.pick(SURNAMES) if pen.chance(0.6) else word(pen).capitalize()
    return Person(first, last, woman)


def town(pen: Pen) -> str:
    stem = word(pen, syllables=1 if pen.chance(0.7) else 2).capitalize()
    return stem + pen.pick(_TOWN_ENDS) if pen.chance(0.8) else stem


def title(pen: Pen) -> str:
    """The title of a track or an album."""
    facts = {
        "adjective": pen.pick(_TITLE_ADJECTIVES), "noun": pen.pick(_TITLE_NOUNS),
        "other": pen.pick(_TITLE_NOUNS), "verb": pen.pick(_TITLE_VERBS),
        "place": town(pen), "invented": word(pen).capitalize(), "first": pen.pick(WOMEN + MEN),
        "number": pen.number(2, 99),
    }  # fmt: skip
    return pen.phrase(
        "[{adjective} {noun}|The {adjective} {noun}|{noun} of {place}|{verb} {place}|"
        "{noun} and {other}|{verb} the {noun}|{invented}|{first}'s {noun}|{adjective} {invented}|"
        "{noun} in {month}|{number} {noun} Road|{noun} for {first}|No More {noun}|{noun} Song|"
        "{adjective} {noun} Blues|{weekday} in {place}|{place} by Night|{other} without {noun}]",
        **facts,
    )


def artist(pen: Pen) -> str:
    """A singer, a player or a band."""
    if pen.chance(0.5):
        return person(pen).name
    facts = {
        "adjective": pen.pick(_TITLE_ADJECTIVES), "nouns": pen.pick(_BAND_NOUNS),
        "noun": pen.pick(_TITLE_NOUNS), "last": pen.pick(SURNAMES), "place": town(pen),
        "invented": word(pen).capitalize(), "other": word(pen, syllables=1).capitalize(),
    }  # fmt: skip
    return pen.phrase(
        "[The {adjective} {nouns}|The {nouns}|{invented}|{place} Quartet|{last} Trio|{noun} Club|"
        "{invented} {nouns}|{invented} {other}|The {place} {nouns}|{adjective} {noun}|"
        "{noun} Ensemble|{last} and the {nouns}]",
        **facts,
    )
