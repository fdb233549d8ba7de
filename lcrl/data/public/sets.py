"""The public sets that configs name, and generic layouts.

Files and columns are those of the publishers' pages. A licence is what the page states; it may not
cover what the set was collected from, and it is for the user to read.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from lcrl.data.public import chats, problems
from lcrl.data.public.conversion import Convert

MATH = functools.partial(problems.problems, levels=True)


class PublicSet(NamedTuple):
  """Where a set is, and how it is converted. Tuples of patterns match paths inside a repository or
  a folder, {split} replaced; the first pattern that matches any file counts."""

  about: str
  convert: Convert
  hub: str = ""  # id of the data set on the hub; "": from files only
  split: str = ""  # the default; "": the files are one split
  files: tuple[str, ...] = ("*",)
  licence: str = "that of the files"
  ending: str = ".jsonl"  # of the new file


SETS: dict[str, PublicSet] = {
  "gsm8k": PublicSet(
    "grade-school word problems",
    problems.gsm8k,
    "openai/gsm8k",
    "train",
    ("main/{split}-*.parquet", "{split}.jsonl", "*/{split}.jsonl", "{split}*.parquet"),
    "MIT",
  ),
  "math": PublicSet(
    "competition problems, levels 1 to 5",
    MATH,
    "EleutherAI/hendrycks_math",
    "train",
    ("*/{split}-*.parquet", "{split}/*.json", "*/{split}/*.json", "{split}.jsonl"),
    "MIT",
  ),
  "math500": PublicSet(
    "500 of MATH's test problems",
    MATH,
    "HuggingFaceH4/MATH-500",
    "test",
    ("{split}.jsonl", "*/{split}.jsonl"),
    "MIT, of the repository prm800k that made the choice",
  ),
  "deepscaler": PublicSet(
    "40,000 competition problems",
    problems.problems,
    "agentica-org/DeepScaleR-Preview-Dataset",
    files=("deepscaler.json", "*/deepscaler.json"),
    licence="MIT",
  ),
  "dapo_math": PublicSet(
    "17,000 competition problems with whole numbers as answers",
    problems.problems,
    "BytedTsinghua-SIA/DAPO-Math-17k",
    files=("*dapo-math-17k*.parquet",),
    licence="Apache 2.0",
  ),
  "aime24": PublicSet(
    "AIME 2024",
    problems.problems,
    "HuggingFaceH4/aime_2024",
    files=("data/train-*.parquet", "*aime*2024*", "*aime*24*"),
    licence="none stated; the problems are the MAA's",
  ),
  "aime25": PublicSet(
    "AIME 2025",
    problems.problems,
    "math-ai/aime25",
    files=("test.jsonl", "*aime*2025*", "*aime*25*"),
    licence="none stated; the problems are the MAA's",
  ),
  "gpqa": PublicSet(
    "graduate-level science, four choices; splits diamond, main, extended",
    problems.gpqa,
    "Idavidrein/gpqa",
    "diamond",
    ("gpqa_{split}.csv", "*/gpqa_{split}.csv"),
    "CC BY 4.0; behind a form that asks not to publish the questions in plain text",
  ),
  "svamp": PublicSet(
    "word problems of one step",
    problems.problems,
    files=("SVAMP.json", "*/SVAMP.json"),
    licence="MIT",
  ),
  "ultrafeedback_binarized": PublicSet(
    "61,000 pairs of answers",
    chats.pairs,
    "HuggingFaceH4/ultrafeedback_binarized",
    "train_prefs",
    ("data/{split}-*.parquet", "{split}*.parquet"),
    "MIT",
    ".parquet",
  ),
  "ultrafeedback_argilla": PublicSet(
    "the same prompts, pairs by the mean of four ratings, without TruthfulQA",
    chats.pairs,
    "argilla/ultrafeedback-binarized-preferences-cleaned",
    "train",
    ("data/{split}-*.parquet", "{split}*.parquet"),
    "MIT",
    ".parquet",
  ),
  "ultrafeedback": PublicSet(
    "64,000 prompts with four rated answers, made into pairs",
    chats.pairs,
    "openbmb/UltraFeedback",
    files=("*.jsonl",),
    licence="MIT",
    ending=".parquet",
  ),
  "hh": PublicSet(
    "pairs of helpful and harmless answers",
    chats.pairs,
    "Anthropic/hh-rlhf",
    "train",
    ("*/{split}.jsonl.gz", "*/{split}.jsonl", "{split}.jsonl.gz", "{split}.jsonl"),
    "MIT",
  ),
  "sharegpt": PublicSet(
    "conversations",
    chats.conversations,
    "anon8231489123/ShareGPT_Vicuna_unfiltered",
    files=("ShareGPT_V3_unfiltered_cleaned_split.json", "*haregpt*", "*hareGPT*"),
    licence="Apache 2.0",
  ),
  "light_r1_dpo": PublicSet(
    "pairs of long and wrong against right reasoning",
    chats.pairs,
    "qihoo360/Light-R1-DPOData",
    files=("dpo-pairs.json",),
    licence="Apache 2.0",
  ),
  "problems": PublicSet("your files: problem and answer, or verl's layout", problems.problems),
  "pairs": PublicSet("your files: preference pairs in any of these layouts", chats.pairs),
  "conversations": PublicSet("your files: ShareGPT's layout", chats.conversations),
}
