"""What the simulated users ask: short everyday questions, written for this demo.

Most come from templates over small vocabularies, so a run of some hundred interactions seldom
repeats itself; all of them can be answered in a few words, which the model at first
seldom does.
"""

from __future__ import annotations

import random

PLAIN = (
    "What color is the sky on a clear day?",
    "How many days are in a week?",
    "What do bees make?",
    "Which planet do we live on?",
    "What is frozen water called?",
    "How many minutes are in an hour?",
    "What is the largest ocean?",
    "Which animal barks?",
    "What do you call a baby cat?",
    "What comes after Tuesday?",
    "What season comes after winter?",
    "What do we use to cut paper?",
    "What is the first letter of the alphabet?",
    "Who wrote Romeo and Juliet?",
    "What is the fastest land animal?",
    "Should I take an umbrella when it rains?",
    "Is it good to drink water?",
    "What is a good name for a dog?",
    "Can you say hello?",
    "How are you today?",
    "Tell me something nice.",
    "Wish me luck.",
    "Say good morning.",
    "Say good night.",
    "What is your name?",
    "Do you like music?",
    "Where does the sun rise?",
    "Is the moon made of cheese?",
    "Are tomatoes a fruit?",
    "Is chocolate good for dogs?",
    "How do I say thank you in Spanish?",
    "Do fish sleep?",
    "What sound does a duck make?",
    "What day comes before Sunday?",
)

_COUNTRIES = (
    "Italy",
    "Japan",
    "Spain",
    "Egypt",
    "Canada",
    "Brazil",
    "Germany",
    "India",
    "Norway",
    "Greece",
    "Mexico",
    "Australia",
    "Portugal",
    "Poland",
    "Kenya",
    "Peru",
    "China",
    "Turkey",
)
_ANIMALS = ("cat", "horse", "lion", "owl", "rabbit", "whale", "frog", "tiger", "goat", "bear")
_COLORED = ("grass", "snow", "a banana", "the sea", "a strawberry", "coal", "a lemon", "milk")
_OPPOSITES = ("hot", "big", "fast", "happy", "up", "old", "dark", "wet", "early", "loud")
_WORDS = ("hello", "water", "friend", "please", "goodbye", "bread", "yes", "cheese")
_LANGUAGES = ("French", "Spanish", "Italian", "German")
_SUMS = ("two plus two", "three plus four", "ten minus one", "five plus five", "two times six")

TEMPLATES = (
    ("What is the capital of {}?", _COUNTRIES),
    ("What language do people speak in {}?", _COUNTRIES),
    ("Which continent is {} in?", _COUNTRIES),
    ("What does a {} eat?", _ANIMALS),
    ("Is a {} dangerous?", _ANIMALS),
    ("Can a {} fly?", _ANIMALS),
    ("What color is {}?", _COLORED),
    ("What is the opposite of {}?", _OPPOSITES),
    ("What is {}?", _SUMS),
    *((f"What is the word for {{}} in {language}?", _WORDS) for language in _LANGUAGES),
)
_OPENINGS = ("", "", "", "", "Quick question: ", "Hey! ", "Hi. ")


def everything() -> list[str]:
    """All distinct questions there are, without their openings."""
    made = [template.format(word) for template, words in TEMPLATES for word in words]
    return list(dict.fromkeys((*PLAIN, *made)))


def question(chance: random.Random) -> str:
    """One question."""
    if chance.random() < 0.3:
        asked = chance.choice(PLAIN)
    else:
        template, words = chance.choice(TEMPLATES)
        asked = template.format(chance.choice(words))
    return chance.choice(_OPENINGS) + asked
