"""Write the questions of examples/packages as a person types them: words left out, some misspelt.

usage: make_typed_questions.py MODEL [--out FOLDER]

MODEL is a folder with the sentence transformer all-MiniLM-L6-v2: config.json, model.safetensors and
tokenizer.json. The packages `safetensors` and `tokenizers` read them. The same model and questions give the
same files.
"""

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np

SEED = 7
OMITTED = 0.25
"""The share of the words that are left out; two words stay."""
MISSPELT = 0.3
"""The share of the other words of five letters or more that are misspelt."""
MISSPELT_TWICE = 0.2
"""The share of the misspelt words with two mistakes; Damerau (1964) found one in most."""
WORD_LETTERS_MIN = 5
WORDS_MIN = 2
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PACKAGES = Path(__file__).parents[1] / "examples" / "packages"

Rows = np.ndarray[Any, np.dtype[np.float32]]


def typed(questions: list[str]) -> list[str]:
    """Return each question as it is typed."""
    chance = random.Random(SEED)
    return [_typed(question.split(), chance) for question in questions]


def _typed(words: list[str], chance: random.Random) -> str:
    kept = [word for word in words if chance.random() >= OMITTED]
    return " ".join(_spelt(word, chance) for word in (kept if len(kept) >= WORDS_MIN else words[:WORDS_MIN]))


def _spelt(word: str, chance: random.Random) -> str:
    if len(word) < WORD_LETTERS_MIN or not word.isalpha() or chance.random() >= MISSPELT:
        return word
    word = _edited(word, chance)
    return _edited(word, chance) if chance.random() < MISSPELT_TWICE else word


def _edited(word: str, chance: random.Random) -> str:
    at, kind, letter = chance.randrange(len(word)), chance.randrange(4), chance.choice(LETTERS)
    before, after = word[:at], word[at:]
    if kind == 0 and len(after) > 1:
        return before + after[1] + after[0] + after[2:]
    if kind == 1:
        return before + letter + after
    return before + (letter if kind == 2 else "") + after[1:]


class Encoder:
    """The sentence transformer, as BERT with the mean of the last layer, in numpy."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self._weights: dict[str, Rows] = load_file(folder / "model.safetensors")
        self._config = json.loads((folder / "config.json").read_text())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()

    def encode(self, text: str) -> Rows:
        """Return the embedding of a short text, shape (384,), of unit length."""
        tokens = self._tokenizer.encode(text).ids
        weight = self._weights
        x = weight["embeddings.word_embeddings.weight"][tokens]
        x = x + weight["embeddings.position_embeddings.weight"][: len(tokens)]
        x = self._normal(x + weight["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self._config["num_hidden_layers"]):
            x = self._layer(x, f"encoder.layer.{layer}.")
        mean = x.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def _layer(self, x: Rows, name: str) -> Rows:
        heads = self._config["num_attention_heads"]
        query, key, value = (
            self._linear(x, f"{name}attention.self.{part}").reshape(len(x), heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        seen = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        seen = self._linear(seen.transpose(1, 0, 2).reshape(len(x), -1), f"{name}attention.output.dense")
        x = self._normal(x + seen, f"{name}attention.output.LayerNorm")
        inner = self._linear(x, f"{name}intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float32])(inner / math.sqrt(2)))
        return self._normal(x + self._linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm")

    def _linear(self, x: Rows, name: str) -> Rows:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normal(self, x: Rows, name: str) -> Rows:
        apart = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((apart**2).mean(axis=-1, keepdims=True) + self._config["layer_norm_eps"])
        return apart / deviation * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def main() -> None:
    """Write typed.json and typed.f16.npy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=PACKAGES)
    options = parser.parse_args()
    questions = [question["text"] for question in json.loads((PACKAGES / "questions.json").read_text())]
    encoder = Encoder(options.model)
    # The model gave the embeddings of the questions, so it gives the same for their texts.
    known = np.load(PACKAGES / "questions.f16.npy")[0].astype(np.float32)
    if known @ encoder.encode(questions[0]) < 0.999:
        raise SystemExit(f"{options.model} is another model than that of the sample data")
    texts = typed(questions)
    rows = np.array([encoder.encode(text) for text in texts])
    np.save(options.out / "typed.f16.npy", rows.astype(np.float16))
    lines = ",\n".join(json.dumps(text, ensure_ascii=False) for text in texts)
    (options.out / "typed.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
