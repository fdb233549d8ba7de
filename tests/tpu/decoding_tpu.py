"""Slots as the TPU compiler builds them; no TPU is needed."""

import re

import pytest

from lcrl.commands import fit as command
from lcrl.policies.cache import read_lengths
from lcrl.sampling.jobs import PAGE, pages_of
from lcrl.training.analysis import fit
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.fit_config import CONFIG

SLOTS, LIMIT = 4, 1024
TRAIN = {"prompts": 16, "group_size": 8, "max_tokens": LIMIT, "max_prompt_tokens": 32}


@pytest.mark.parametrize(
  "cache_dtype, head_dim, kernels", [("float8_e4m3fn", 64, 0), (None, 128, 1)]
)
def test_loops_that_read_a_part_of_the_cache_leave_it_where_it_lies(cache_dtype, head_dim, kernels):
  """And so does the loop that starts rows: the pool of pages is written in place. A kernel that
  reads pages needs one loop, for rows of any length."""
  policy = CONFIG["policy"] | {"dtype": "bfloat16", "head_dim": head_dim}
  config = CONFIG | {
    "policy": policy,
    "sampling": {"slots": SLOTS, "cache_dtype": cache_dtype},
    "train": CONFIG["train"] | TRAIN,
    "mesh": {"data": 16, "fsdp": 1},
  }
  model = build_learner(read(config), devices=command.describe("v5e:4x4"))
  text = fit.compile_step(model)["sample"].as_text()
  pages = SLOTS * pages_of(TRAIN["max_prompt_tokens"] + LIMIT, PAGE)
  cache = rf"\w+\[{pages},{policy['kv_heads']},{PAGE},{policy['head_dim']}\]"
  bodies = {*re.findall(r" while\(.* body=%([\w.\-]+)", text)}
  loops = [part for part in text.split("\n\n") if part.split(" ", 1)[0].strip("%") in bodies]
  found = [loop for loop in loops if re.search(cache, loop) and " while(" not in loop]
  spans = read_lengths(TRAIN["max_prompt_tokens"] + LIMIT)
  # The loop that starts rows, and those that write tokens.
  assert len(found) == 1 + (1 if kernels else len(spans))
  called = text.count('"tpu_custom_call"')
  assert called == kernels * policy["layers"]
  moved = [re.findall(rf"= \(?{cache}.* (?:copy|copy-start)\(.*", loop) for loop in found]
  assert not any(moved), moved
