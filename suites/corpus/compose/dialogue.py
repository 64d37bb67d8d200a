"""Questions and their right answers, dealt by dice."""

from __future__ import annotations

from suites.corpus.compose.chance import Chance
from suites.corpus.compose.prose import PLACES, THINGS, TRADES

_CAPITALS = {
    "Norway": "Oslo", "Kenya": "Nairobi", "Peru": "Lima", "Japan": "Tokyo", "Austria": "Vienna",
    "Egypt": "Cairo", "Canada": "Ottawa", "Greece": "Athens", "Cuba": "Havana",
    "Nepal": "Kathmandu", "Poland": "Warsaw", "Chile": "Santiago",
}  # fmt: skip
_WORDS = {
    "bread": ("pain", "Brot", "pan"), "water": ("eau", "Wasser", "agua"),
    "house": ("maison", "Haus", "casa"), "night": ("nuit", "Nacht", "noche"),
    "book": ("livre", "Buch", "libro"), "bridge": ("pont", "Brücke", "puente"),
}  # fmt: skip
_LANGUAGES = ("French", "German", "Spanish")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _capital(chance: Chance) -> tuple[str, str]:
    country = chance.pick(tuple(_CAPITALS))
    return (
        f"What is the capital of {country}?",
        f"The capital of {country} is {_CAPITALS[country]}.",
    )


def _word(chance: Chance) -> tuple[str, str]:
    word, place = chance.pick(tuple(_WORDS)), chance.number(0, 2)
    return (
        f"How do you say '{word}' in {_LANGUAGES[place]}?",
        f"In {_LANGUAGES[place]} it is '{_WORDS[word][place]}'.",
    )


def _product(chance: Chance) -> tuple[str, str]:
    left, right = chance.number(3, 29), chance.number(3, 29)
    return (
        f"What is {left} times {right}?",
        f"{left} times {right} is {left * right}.",
    )


def _weekday(chance: Chance) -> tuple[str, str]:
    today, later = chance.number(0, 6), chance.number(2, 6)
    return (
        f"Today is {_DAYS[today]}. Which day is it in {later} days?",
        f"In {later} days it is {_DAYS[(today + later) % 7]}.",
    )


def _change(chance: Chance) -> tuple[str, str]:
    price, count = chance.number(3, 9), chance.number(2, 6)
    return (
        f"{count} tickets at {price} crowns each, and I pay with 100. What do I get back?",
        f"You pay {count * price} crowns and get {100 - count * price} back.",
    )


def _lost(chance: Chance) -> tuple[str, str]:
    thing, place = chance.pick(THINGS), chance.pick(PLACES)
    return (
        f"I left {thing} at {place}. Whom do I ask?",
        f"Ask the {chance.pick(TRADES)}; everything found at {place} is brought there.",
    )


_TURNS = (_capital, _word, _product, _weekday, _change, _lost)
_SPEAKERS = (("User", "Assistant"), ("Q", "A"), ("Guest", "Clerk"), ("Pupil", "Teacher"))


def dialogue(seed: int) -> str:
    """Three or four questions with right answers."""
    chance = Chance(seed)
    asks, answers = chance.pick(_SPEAKERS)
    turns = [turn(chance) for turn in chance.some(_TURNS, chance.number(3, 4))]
    return "\n".join(f"{asks}: {question}\n{answers}: {answer}" for question, answer in turns)
