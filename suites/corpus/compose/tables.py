"""Numbers and tables whose sums are right: a model that can add has something to predict."""

from __future__ import annotations

from collections.abc import Callable

from suites.corpus.compose.chance import Chance
from suites.corpus.compose.prose import NAMES

_GOODS = (
    "rope", "lamp oil", "nails", "canvas", "tar", "rye", "salt", "paper", "glass", "copper wire",
    "candles", "soap",
)  # fmt: skip
_CITIES = ("Lund", "Porto", "Graz", "Tartu", "Ghent", "Bergen", "Split", "Turin", "Cork", "Brno")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _ledger(chance: Chance, rows: int) -> str:
    """Markdown: goods, how many, the price of one, and what it comes to."""
    total, lines = 0, ["| item | count | price | sum |", "|---|---|---|---|"]
    for item in chance.some(_GOODS, rows):
        count, price = chance.number(2, 19), chance.number(2, 45)
        total += count * price
        lines.append(f"| {item} | {count} | {price} | {count * price} |")
    return "\n".join([*lines, f"| total | | | {total} |"]) + "\n"


def _weather(chance: Chance, rows: int) -> str:
    """Comma-separated: months, rain, and the warmest and the coldest day."""
    start, lines = chance.number(0, 12 - rows), ["month,rain_mm,low_c,high_c"]
    for month in _MONTHS[start : start + rows]:
        low = chance.number(-9, 12)
        rain, high = chance.number(18, 120), low + chance.number(6, 17)
        lines.append(f"{month},{rain},{low},{high}")
    return "\n".join(lines) + "\n"


def _running(chance: Chance, rows: int) -> str:
    """Tab-separated: a balance carried from row to row."""
    balance = chance.number(200, 900)
    lines = ["day\tin\tout\tbalance", f"1\t\t\t{balance}"]
    for day in range(2, rows + 2):
        came, went = chance.number(0, 90), chance.number(0, 90)
        balance += came - went
        lines.append(f"{day}\t{came}\t{went}\t{balance}")
    return "\n".join(lines) + "\n"


def _distances(chance: Chance, rows: int) -> str:
    """Fixed columns, right-aligned."""
    lines = [f"{'city':<10}{'km':>6}{'hours':>8}"]
    for city in chance.some(_CITIES, rows):
        distance = chance.number(9, 160) * 10
        lines.append(f"{city:<10}{distance:>6}{distance / 80:>8.2f}")
    return "\n".join(lines) + "\n"


def _scores(chance: Chance, rows: int) -> str:
    """Names in the order of what they reached."""
    found = sorted((chance.number(100, 999), name) for name in chance.some(NAMES, rows))[::-1]
    return "".join(f"{place}. {name}: {points}\n" for place, (points, name) in enumerate(found, 1))


TABLES: tuple[Callable[[Chance, int], str], ...] = (
    _ledger, _weather, _running, _distances, _scores,
)  # fmt: skip


def table(seed: int) -> str:
    """One of the kinds in turn, of four to seven rows."""
    chance = Chance(seed)
    return TABLES[seed % len(TABLES)](chance, chance.number(4, 7))


def _steps(chance: Chance) -> str:
    start, step = chance.number(1, 60), chance.number(3, 37)
    return ", ".join(str(start + index * step) for index in range(18))


def _powers(chance: Chance) -> str:
    base = chance.number(2, 9)
    return "\n".join(f"{base} ^ {index} = {base**index}" for index in range(1, 9))


def _sums(chance: Chance) -> str:
    lines = []
    for _ in range(7):
        left, right = chance.number(11, 480), chance.number(11, 480)
        lines.append(chance.pick((
            f"{left} + {right} = {left + right}", f"{left + right} - {left} = {right}",
            f"{left} * {right % 10 + 2} = {left * (right % 10 + 2)}",
        )))  # fmt: skip
    return "\n".join(lines)


def _divisions(chance: Chance) -> str:
    divisor = chance.pick((8, 12, 16, 32, 64, 128))
    widths = [chance.number(20, 400) * 8 for _ in range(5)]
    return "\n".join(
        f"{width} = {width // divisor} * {divisor} + {width % divisor}" for width in widths
    )


def _fibonacci(chance: Chance) -> str:
    values = [chance.number(1, 9), chance.number(1, 9)]
    while len(values) < 16:
        values.append(values[-1] + values[-2])
    return " ".join(map(str, values))


_SERIES = (_steps, _powers, _sums, _divisions, _fibonacci)


def numbers(seed: int) -> str:
    """One of the kinds in turn."""
    return _SERIES[seed % len(_SERIES)](Chance(seed)) + "\n"
