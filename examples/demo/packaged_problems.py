"""Writes the 200 word problems that come with qpeft as `package:word_problems`; the same file in every run.

    python examples/demo/packaged_problems.py src/qpeft/data/packaged/word_problems.jsonl

Rows are {"question", "equation", "answer"}. Each story has things and amounts of its own, so that it could happen.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

SEED, ROWS = 27, 200
PEOPLE = "Ada Bianca Clara Dina Elif Fatima Greta Hanna Ines Jana Leila Mia Nora Priya Rosa Sofia Tara"

# Story, equation, and what stands for its letters: from (first, last), or one of the words of a text.
# `left` is what a division gives, so that a = b * left comes out whole. {name} and {friend} are two of PEOPLE.
STORIES: list[tuple[str, str, dict[str, tuple[int, int] | str]]] = [
    (
        "{name} has {a} {thing}. {friend} gives her {b} more. How many {thing} does {name} have now?",
        "{a} + {b}",
        {"a": (5, 60), "b": (3, 40), "thing": "stickers marbles stamps shells beads"},
    ),
    (
        "A baker makes {a} {thing} in the morning and {b} in the afternoon. How many does he make that day?",
        "{a} + {b}",
        {"a": (20, 90), "b": (15, 80), "thing": "rolls buns pretzels muffins"},
    ),
    (
        "After she lent {b} books to {friend}, {name} still had {a}. How many books did she have before?",
        "{a} + {b}",
        {"a": (8, 70), "b": (2, 9)},
    ),
    (
        "{name} is {a} years old. Her {relative} is {b} years older. How old is her {relative}?",
        "{a} + {b}",
        {"a": (6, 15), "b": (21, 34), "relative": "mother father aunt uncle"},
    ),
    (
        "{name} cycles {a} kilometres on Saturday and {b} on Sunday. How many kilometres is that in all?",
        "{a} + {b}",
        {"a": (8, 45), "b": (6, 40)},
    ),
    (
        "There were {a} {thing} on the tree, and {name} picked {b} of them. How many {thing} are still on it?",
        "{a} - {b}",
        {"a": (40, 95), "b": (5, 38), "thing": "apples pears plums cherries lemons"},
    ),
    (
        "{name} wants to read {a} pages this week. She has read {b} so far. How many pages are left?",
        "{a} - {b}",
        {"a": (60, 120), "b": (12, 58)},
    ),
    (
        "A class has {a} children, and {b} of them are ill today. How many children are in class?",
        "{a} - {b}",
        {"a": (18, 31), "b": (2, 9)},
    ),
    (
        "{name} has {a} dollars and buys a {thing} for {b} dollars. How many dollars does she have left?",
        "{a} - {b}",
        {"a": (30, 90), "b": (6, 28), "thing": "lamp scarf ball kite puzzle"},
    ),
    (
        "{name} has {a} {thing}, and {friend} has {b}. How many more {thing} does {name} have than {friend}?",
        "{a} - {b}",
        {"a": (31, 80), "b": (4, 30), "thing": "coins postcards badges marbles stamps"},
    ),
    (
        "One ticket for the {place} costs {b} dollars. How many dollars do {a} tickets cost?",
        "{a} * {b}",
        {"a": (2, 9), "b": (4, 15), "place": "museum zoo theatre cinema"},
    ),
    (
        "{name} has {a} {box} with {b} {thing} in each. How many {thing} does she have?",
        "{a} * {b}",
        {"a": (3, 9), "b": (6, 20), "box": "boxes bags tins", "thing": "crayons buttons beads pencils"},
    ),
    (
        "A hall has {a} rows of {b} chairs. How many chairs does it have?",
        "{a} * {b}",
        {"a": (4, 12), "b": (8, 16)},
    ),
    (
        "{name} swims {b} lengths every day. How many lengths does she swim in {a} days?",
        "{a} * {b}",
        {"a": (3, 7), "b": (8, 25)},
    ),
    (
        "A shelf in the library holds {b} books. How many books do {a} such shelves hold?",
        "{a} * {b}",
        {"a": (3, 9), "b": (18, 32)},
    ),
    (
        "{name} shares {a} {thing} equally among {b} friends. How many {thing} does each friend get?",
        "{a} / {b}",
        {"b": (2, 8), "left": (3, 12), "thing": "cookies grapes sweets walnuts"},
    ),
    (
        "{a} eggs are put into boxes of {b}. How many boxes are filled?",
        "{a} / {b}",
        {"b": (6, 12), "left": (3, 12)},
    ),
    (
        "{name} paid {a} dollars for {b} equal {thing}. How many dollars did each of them cost?",
        "{a} / {b}",
        {"b": (2, 9), "left": (3, 12), "thing": "notebooks cups plants brushes"},
    ),
    (
        "A coach divides {a} players into teams of {b}. How many teams are there?",
        "{a} / {b}",
        {"b": (4, 11), "left": (2, 8)},
    ),
    (
        "A cook needs {b} potatoes for one pot of soup. How many pots of soup can he cook with {a} potatoes?",
        "{a} / {b}",
        {"b": (5, 9), "left": (3, 12)},
    ),
    (
        "A bus starts with {a} people. At the next stop {b} get on and {c} get off. How many people are on it now?",
        "({a} + {b}) - {c}",
        {"a": (12, 35), "b": (3, 14), "c": (2, 11)},
    ),
    (
        "{name} had {a} dollars, earned {b} by washing cars and spent {c}. How many dollars does she have now?",
        "({a} + {b}) - {c}",
        {"a": (10, 50), "b": (12, 40), "c": (5, 20)},
    ),
    (
        "A farm had {a} {thing}. It sold {b}, and later {c} were born. How many {thing} does it have now?",
        "({a} - {b}) + {c}",
        {"a": (40, 90), "b": (6, 30), "c": (3, 15), "thing": "sheep goats cows pigs rabbits"},
    ),
    (
        "A library had {a} books on cooking. {b} of them were lent out and {c} came back. How many are there now?",
        "({a} - {b}) + {c}",
        {"a": (45, 80), "b": (15, 30), "c": (4, 14)},
    ),
    (
        "{name} buys {a} {thing} for {b} dollars each and a bag for {c} dollars. How many dollars does she pay?",
        "({a} * {b}) + {c}",
        {"a": (2, 8), "b": (3, 12), "c": (2, 15), "thing": "shirts hats books candles"},
    ),
    (
        "{name} has {a} full albums of {b} photos and {c} loose photos. How many photos does she have in all?",
        "({a} * {b}) + {c}",
        {"a": (2, 7), "b": (20, 40), "c": (3, 18)},
    ),
    (
        "{name} saves {b} dollars a week for {a} weeks and then spends {c} dollars. How many dollars are left?",
        "({a} * {b}) - {c}",
        {"a": (4, 12), "b": (5, 15), "c": (6, 19)},
    ),
    (
        "A baker fills {a} trays with {b} rolls each and sells {c} rolls. How many rolls are left?",
        "({a} * {b}) - {c}",
        {"a": (3, 8), "b": (12, 24), "c": (8, 35)},
    ),
    (
        "{name} picks {a} {thing} and {friend} picks {b}. They tie them in bunches of {c}. How many bunches are there?",
        "({a} + {b}) / {c}",
        {"c": (3, 9), "left": (4, 9), "b": (5, 11), "thing": "tulips roses daisies"},
    ),
    (
        "{name} has {a} {thing}, keeps {b} and shares the rest equally among {c} friends. How many does each get?",
        "({a} - {b}) / {c}",
        {"c": (2, 8), "left": (3, 12), "b": (4, 20), "thing": "sweets stickers cards balloons"},
    ),
]


def problem(draw: random.Random, story: tuple[str, str, dict[str, tuple[int, int] | str]]) -> dict[str, str]:
    """One row of a story."""
    text, equation, choices = story
    words: dict[str, int | str] = dict(zip(("name", "friend"), draw.sample(PEOPLE.split(), 2), strict=True))
    for letter, of in choices.items():
        words[letter] = draw.choice(of.split()) if isinstance(of, str) else draw.randint(*of)
    if "left" in words:
        # The number that is divided comes last: a = b * left, or the sum or difference that it is part of.
        divided, b = int(words["left"]) * int(words.get("c", words["b"])), int(words["b"])
        words["a"] = divided - b if "+" in equation else divided + b if "-" in equation else divided
    worked = equation.format(**words)
    # Python's own arithmetic gives the answer; nothing but the equations above comes in here.
    answer = eval(worked)
    assert answer > 0, worked
    assert answer == int(answer), worked
    return {"question": text.format(**words), "equation": worked, "answer": str(int(answer))}


def problems() -> list[dict[str, str]]:
    """All rows, with different questions; stories take turns, in an order that is shuffled anew each round."""
    draw, rows = random.Random(SEED), {}
    while len(rows) < ROWS:
        for story in draw.sample(STORIES, len(STORIES)):
            row = problem(draw, story)
            rows[row["question"]] = row
    return list(rows.values())[:ROWS]


if __name__ == "__main__":
    text = "".join(json.dumps(row) + "\n" for row in problems())
    Path(sys.argv[1]).write_bytes(text.encode())
