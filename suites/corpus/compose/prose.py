"""Prose: our own sentences, put together by dice."""

from __future__ import annotations

from collections.abc import Sequence

from suites.corpus.compose.chance import Chance

NAMES = (
    "Marta", "Ilias", "Noor", "Tobias", "Wanda", "Kofi", "Ingrid", "Rafael", "Selma", "Douglas",
    "Yuki", "Petra", "Anselm", "Leila", "Bruno", "Hedda",
)  # fmt: skip
TRADES = (
    "glazier", "ferry pilot", "bookbinder", "surveyor", "beekeeper", "clockmaker", "baker",
    "signal operator", "map engraver", "piano tuner", "lock keeper", "seed merchant",
)  # fmt: skip
PLACES = (
    "the harbour", "the old mill", "the northern station", "the hill above the river",
    "the archive",
    "the market hall", "the salt works", "the observatory", "the village with two churches",
    "the lower town",
)  # fmt: skip
THINGS = (
    "a brass compass", "a sealed letter", "three sacks of rye", "a ladder with one rung missing",
    "a box of unlabelled keys", "the second volume of an atlas", "a lamp without a wick",
    "a barometer", "a ledger bound in green cloth", "a coil of tarred rope",
)  # fmt: skip
WEATHER = (
    "It had rained since Tuesday", "Frost lay on the rails", "The fog lifted late that morning",
    "It was the warmest evening of the year", "A dry wind blew from the east",
    "Snow had closed the upper road", "The tide was lower than anyone remembered",
)  # fmt: skip
_OPENINGS = (
    "{weather}, and {name} the {trade} was the only one who still walked to {place}.",
    "{name} had been a {trade} for {years} years before anyone asked to see the accounts.",
    "In {place} they tell a story about a {trade} called {name}, who owned {thing}.",
    "{weather}. At {hour} o'clock {name} unlocked the door and found {thing} on the step.",
    "Nobody at {place} could say when {name} had arrived, only that {thing} came on the same cart.",
    "A {trade} learns early what {name} learnt late: that work is measured after it is done.",
    "The {trade}'s apprentice, {name}, was sent to {place} for {thing} and came back without it.",
    "{weather}, so {name} took the long way past {place} and thought about {thing}.",
    "For {years} years {name} had signed the same form at {place} without reading it.",
    "There were two maps of {place}, and {name} the {trade} trusted neither.",
)
MIDDLES = (
    "The price was {money} crowns, which was {more} more than the week before, and nobody "
    "could say why.",
    "{other} offered to carry {thing2} across, but only if they left before {hour2}.",
    "What mattered was not the weight but the order in which things were packed.",
    "On the {ordinal} day the count came out one short, so they emptied every shelf and began "
    "again.",
    "{other} wrote the number down twice, once in ink and once in pencil, and the two did not "
    "agree.",
    "The road divides behind {place2}: the left branch is shorter, the right one is dry.",
    '"If it fits, it was made to fit," said {other}, and would not be drawn further.',
    "They had agreed on a signal, two long and one short, yet everybody heard three short ones.",
    "A line of people had formed behind the counter, each holding a slip with the same number.",
    "It took {years} steps to reach the top, counting the broken one, and nobody counted it.",
    "Someone had swept the floor, which was the first sign that something was wrong.",
    "{other} said that {money} was a good guess, and that a good guess is still a guess.",
    "The bell rang, and for the {ordinal} time that day the wrong door opened.",
    "Between them they had one pencil, no paper, and an exact memory for prices.",
    "{other} had seen {thing2} at {place2} and remembered only the colour of the string.",
    "What looked like rust was paint, and what looked like paint was rust.",
    "The instructions began with the last page, and the first page was missing.",
    "If the bolts were tightened in a circle the lid warped; crosswise, it closed without a sound.",
    "For the rest of the month {thing2} stood in the corridor, where people bumped into it and "
    "apologised.",
)
_ENDINGS = (
    "In the end {name} kept the receipt and gave away the rest.",
    "That is why the gate at {place} is still painted on one side only.",
    "Neither of them mentioned it again, although both checked the lock every night.",
    "The answer, when it came, fitted on the back of a ticket.",
    "By then it was {hour2}, and the last boat had gone.",
    "{other} laughed first, which settled the matter.",
    "The next morning {thing} was gone, and the string lay neatly on the table.",
    "It is the only page of the book that has never been copied.",
    "So {name} did what a {trade} does, and began again from the edge.",
    "Years later the two of them still disagree about who was late.",
    "The bill came to {money} crowns, and it was paid without a word.",
)
_ORDINALS = ("second", "third", "fourth", "fifth", "ninth", "eleventh")
_HOURS = ("six", "seven", "half past eight", "nine", "noon", "four", "eleven")


def _slots(chance: Chance) -> dict[str, object]:
    name, other = chance.some(NAMES, 2)
    place, place2 = chance.some(PLACES, 2)
    thing, thing2 = chance.some(THINGS, 2)
    return {
        "name": name, "other": other, "place": place, "place2": place2, "thing": thing,
        "thing2": thing2, "trade": chance.pick(TRADES), "weather": chance.pick(WEATHER),
        "years": chance.number(4, 41), "money": chance.number(12, 480),
        "more": chance.number(2, 11), "ordinal": chance.pick(_ORDINALS),
        "hour": chance.pick(("five", "six", "seven", "nine", "ten")),
        "hour2": chance.pick(_HOURS),
    }  # fmt: skip


def paragraph(chance: Chance, middles: Sequence[str]) -> str:
    """An opening, these sentences, an ending, about the same people."""
    slots = _slots(chance)
    patterns = (chance.pick(_OPENINGS), *middles, chance.pick(_ENDINGS))
    return " ".join(pattern.format(**slots) for pattern in patterns)


def prose(seed: int) -> str:
    """A paragraph of four to six sentences."""
    chance = Chance(seed)
    return paragraph(chance, chance.some(MIDDLES, chance.number(2, 4)))
