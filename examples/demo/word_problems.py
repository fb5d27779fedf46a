"""Small English word problems with their equations, made up here and the same for the same seed.

    python examples/demo/word_problems.py --folder problems --train 2000 --eval 200 --seed 0

writes problems/train.jsonl and problems/eval.jsonl with rows such as
{"question": "Mia has 12 shells. ...", "equation": "(12 + 5) - 3", "answer": "14"}. No question stands in both files.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

Row = dict[str, str]
Numbers = dict[str, int]

PEOPLE = {
    "she": "Ada Bianca Clara Dina Elif Fatima Greta Hanna Ines Jana Karin Leila Mia Nora Olga Priya Rosa Sofia Tara",
    "he": "Adam Bruno Carl Diego Emil Felix Goran Henry Ivan Jonas Karim Luis Marco Nils Omar Pavel Rafael Sven Tom",
}
THINGS = (
    "marbles stickers shells stamps coins buttons pencils crayons beads ribbons postcards acorns pebbles feathers "
    "balloons badges magnets candles keys tickets bottles cups plates spoons books notebooks cards balls blocks bulbs "
    "apples pears plums lemons peaches walnuts cookies muffins pretzels carrots tomatoes eggs roses tulips lanterns"
)
BOXES = "boxes bags baskets jars crates trays drawers tins buckets shelves packets sacks"
SHOPS = "bakery library museum market kiosk school bookshop theatre workshop toyshop"

# Sentences per equation; {a}, {b}, {c} are its numbers. {name} and {friend} are different people, {they} is the pronoun
# of {name}; {things} and {others} are different things.
SENTENCES = {
    "{a} + {b}": (
        "{name} has {a} {things}. {friend} gives {name} {b} more. How many {things} does {name} have now?",
        "There are {a} {things} on the table and {b} {things} on the floor. How many {things} are there altogether?",
        "{name} found {a} {things} in the morning and {b} {things} in the afternoon. How many did {they} find?",
        "A {shop} sold {a} {things} on Monday and {b} on Tuesday. How many {things} did it sell on the two days?",
        "{name} has {a} {things}. {friend} has {b} more {things} than {name}. How many {things} does {friend} have?",
        "After {name} lost {b} {things}, {they} still had {a}. How many {things} did {name} have at first?",
    ),
    "{a} - {b}": (
        "{name} had {a} {things} and gave {b} of them to {friend}. How many {things} does {name} have left?",
        "There were {a} {things} in the {shop}. {b} of them were sold. How many {things} are left?",
        "{name} has {a} {things} and {friend} has {b}. How many more {things} does {name} have than {friend}?",
        "{name} wants to collect {a} {things} and has {b} so far. How many more {things} does {they} need?",
        "Of the {a} {things} in a crate, {b} are broken. How many {things} are not broken?",
        "{name} and {friend} have {a} {things} together. {b} of them belong to {friend}. How many belong to {name}?",
    ),
    "{a} * {b}": (
        "{name} has {a} {boxes} with {b} {things} in each. How many {things} does {name} have?",
        "A {shop} puts {a} rows of {b} {things} in its window. How many {things} are in the window?",
        "Each of {a} children brings {b} {things} to the {shop}. How many {things} do they bring in total?",
        "{name} collects {b} {things} every day. How many {things} does {they} collect in {a} days?",
        "One of the {things} costs {b} dollars. How many dollars does {name} pay for {a} {things}?",
        "{friend} has {b} {things}. {name} has {a} times as many. How many {things} does {name} have?",
    ),
    "{a} / {b}": (
        "{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
        "{a} {things} are packed into {boxes} of {b}. How many {boxes} are filled?",
        "A {shop} sets out {a} {things} in {b} equal rows. How many {things} are in each row?",
        "{name} paid {a} dollars for {b} {things}. How many dollars did each of them cost?",
        "{name} uses {b} {things} a day. For how many days will {a} {things} last?",
        "{name} has {a} {things}, {b} times as many as {friend}. How many {things} does {friend} have?",
    ),
    "({a} + {b}) - {c}": (
        "{name} has {a} {things}. {they_} buys {b} more and then gives {c} to {friend}. How many {things} are left?",
        "A {shop} has {a} {things} and {b} {others}. It sells {c} of them in all. How many does it still have?",
        "{name} found {a} {things} and {friend} found {b}. Then they gave away {c}. How many {things} are left?",
        "There were {a} people in the {shop}. {b} came in and {c} went out. How many people are there now?",
    ),
    "({a} - {b}) + {c}": (
        "{name} had {a} {things}, lost {b} of them and found {c} new ones. How many {things} does {they} have now?",
        "Of {a} {things} the {shop} sold {b}. Then {c} more arrived. How many {things} does the {shop} have now?",
        "A bus leaves with {a} people. At the {shop} {b} get off and {c} get on. How many people are on the bus?",
        "{name} had {a} dollars, spent {b} on {things} and earned {c}. How many dollars does {name} have now?",
    ),
    "({a} * {b}) + {c}": (
        "{name} has {a} {boxes} of {b} {things} and {c} loose ones. How many {things} does {name} have in all?",
        "{name} buys {a} {things} for {b} dollars each and a lamp for {c} dollars. How many dollars does {they} pay?",
        "A {shop} has {a} rows of {b} chairs and {c} more chairs at the back. How many chairs does it have?",
        "{name} reads {b} pages a day for {a} days and {c} pages on the day after. How many pages is that?",
    ),
    "({a} * {b}) - {c}": (
        "{name} fills {a} {boxes} with {b} {things} each. {c} {things} fall out. How many {things} are still inside?",
        "A {shop} bakes {a} trays of {b} rolls and sells {c} rolls. How many rolls are left?",
        "{name} saves {b} dollars a week for {a} weeks and spends {c} dollars on {things}. How many dollars are left?",
        "{a} children have {b} {things} each. Together they give away {c}. How many {things} do they keep?",
    ),
    "({a} + {b}) / {c}": (
        "{name} has {a} {things} and {friend} has {b}. They share all among {c} children. How many does each get?",
        "{a} {things} and {b} {others} are put into {c} {boxes}, the same number in each. How many are in one?",
        "{name} has {a} dollars, and {friend} adds {b}. One ticket costs {c} dollars. How many tickets can they buy?",
        "A {shop} gets {a} red and {b} white {things} and ties them in bunches of {c}. How many bunches are there?",
    ),
    "({a} - {b}) / {c}": (
        "{name} has {a} {things}, keeps {b} and shares the rest equally among {c} friends. How many does each get?",
        "Of {a} {things} {b} are broken. The others go into {c} {boxes} equally. How many are in each?",
        "{name} has {a} dollars. {they_} buys a hat for {b} and {things} for {c} dollars each. How many {things}?",
        "{a} people visit the {shop}. {b} walk there and the rest come in {c} full buses. How many are in each bus?",
    ),
}


def _sum(draw: random.Random) -> Numbers:
    return {"a": draw.randint(3, 95), "b": draw.randint(2, 60)}


def _difference(draw: random.Random) -> Numbers:
    b = draw.randint(2, 60)
    return {"a": b + draw.randint(2, 60), "b": b}


def _product(draw: random.Random) -> Numbers:
    return {"a": draw.randint(2, 12), "b": draw.randint(2, 20)}


def _quotient(draw: random.Random) -> Numbers:
    b = draw.randint(2, 12)
    return {"a": b * draw.randint(2, 15), "b": b}


def _sum_less(draw: random.Random) -> Numbers:
    pair = _sum(draw)
    return {**pair, "c": draw.randint(2, pair["a"] + pair["b"] - 1)}


def _difference_more(draw: random.Random) -> Numbers:
    return {**_difference(draw), "c": draw.randint(2, 40)}


def _product_more(draw: random.Random) -> Numbers:
    return {**_product(draw), "c": draw.randint(2, 40)}


def _product_less(draw: random.Random) -> Numbers:
    pair = _product(draw)
    return {**pair, "c": draw.randint(2, pair["a"] * pair["b"] - 1)}


def _sum_shared(draw: random.Random) -> Numbers:
    c = draw.randint(2, 9)
    total = c * draw.randint(3, 12)
    a = draw.randint(2, total - 2)
    return {"a": a, "b": total - a, "c": c}


def _difference_shared(draw: random.Random) -> Numbers:
    b, c = draw.randint(2, 30), draw.randint(2, 9)
    return {"a": b + c * draw.randint(2, 12), "b": b, "c": c}


# Numbers that make every step positive and whole, and the answer for a check.
NUMBERS: dict[str, tuple[Callable[[random.Random], Numbers], Callable[..., int]]] = {
    "{a} + {b}": (_sum, lambda a, b: a + b),
    "{a} - {b}": (_difference, lambda a, b: a - b),
    "{a} * {b}": (_product, lambda a, b: a * b),
    "{a} / {b}": (_quotient, lambda a, b: a // b),
    "({a} + {b}) - {c}": (_sum_less, lambda a, b, c: a + b - c),
    "({a} - {b}) + {c}": (_difference_more, lambda a, b, c: a - b + c),
    "({a} * {b}) + {c}": (_product_more, lambda a, b, c: a * b + c),
    "({a} * {b}) - {c}": (_product_less, lambda a, b, c: a * b - c),
    "({a} + {b}) / {c}": (_sum_shared, lambda a, b, c: (a + b) // c),
    "({a} - {b}) / {c}": (_difference_shared, lambda a, b, c: (a - b) // c),
}


def generate(count: int, seed: int) -> list[Row]:
    """`count` rows {"question", "equation", "answer"} with different questions; the same for the same seed."""
    draw = random.Random(seed)
    rows: dict[str, Row] = {}
    while len(rows) < count:
        row = _row(draw)
        rows[row["question"]] = row
    return list(rows.values())


def generate_split(train: int, held_out: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows for training and for evaluation that share no question."""
    rows = generate(train + held_out, seed)
    parts = rows[:train], rows[train:]
    assert not {row["question"] for row in parts[0]} & {row["question"] for row in parts[1]}
    return parts


def _row(draw: random.Random) -> Row:
    equation = draw.choice(list(SENTENCES))
    numbers, answer = NUMBERS[equation]
    values = numbers(draw)
    pronoun = draw.choice(list(PEOPLE))
    name = draw.choice(PEOPLE[pronoun].split())
    things, others = draw.sample(THINGS.split(), 2)
    words = {
        "name": name,
        "friend": draw.choice([other for names in PEOPLE.values() for other in names.split() if other != name]),
        "they": pronoun,
        "they_": pronoun.capitalize(),
        "things": things,
        "others": others,
        "boxes": draw.choice(BOXES.split()),
        "shop": draw.choice(SHOPS.split()),
    }
    return {
        "question": draw.choice(SENTENCES[equation]).format(**words, **values),
        "equation": equation.format(**values),
        "answer": str(answer(**values)),
    }


def write(path: Path, rows: list[Row]) -> None:
    """One JSON object a line, with line feeds on every system."""
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())


def main(arguments: list[str] | None = None) -> None:
    """Writes train.jsonl and eval.jsonl."""
    parser = argparse.ArgumentParser(description="Write small word problems for training and evaluation.")
    parser.add_argument("--folder", type=Path, required=True, help="where train.jsonl and eval.jsonl are written")
    parser.add_argument("--train", type=int, default=2000, help="number of training rows")
    parser.add_argument("--eval", type=int, default=200, help="number of evaluation rows")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    options = parser.parse_args(arguments)
    train, held_out = generate_split(options.train, options.eval, options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    write(options.folder / "train.jsonl", train)
    write(options.folder / "eval.jsonl", held_out)


if __name__ == "__main__":
    main()
