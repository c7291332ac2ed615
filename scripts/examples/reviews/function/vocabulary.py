"""The words that the network knows, and how a text becomes a row of numbers.

Used by data.py for the rows to train on, and by the network for texts that it is asked about.
"""

import re

LENGTH = 16

THINGS = "soup fish bread cake waiter room bed view bath garden music price".split()
GOOD = "good great nice lovely friendly tasty warm clean fresh quiet".split()
BAD = "bad awful rude cold dirty stale noisy poor dull tiny".split()
DEGREES = "very really quite rather".split()
OTHERS = "the was not and but".split()

# 0 fills a row up to its length, 1 is any word that the network does not know.
PADDING, UNKNOWN = 0, 1
WORDS = ["", "?", *OTHERS, *DEGREES, *THINGS, *GOOD, *BAD]
NUMBERS = {word: number for number, word in enumerate(WORDS)}


def encode(text):
    """The numbers of a text's words, filled up or cut to LENGTH."""
    words = re.findall(r"[a-z]+", text.lower())
    numbers = [NUMBERS.get(word, UNKNOWN) for word in words[:LENGTH]]
    return numbers + [PADDING] * (LENGTH - len(numbers))
