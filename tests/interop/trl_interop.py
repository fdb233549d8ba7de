"""The snippet for TRL as a reward of its GRPOTrainer, on a tiny random model."""

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from tests.helpers import pages

WORDS = ["<pad>", "</s>", "<unk>", *"0123456789+="]
STEPS, GROUP, ROWS = 2, 4, 8


def shaped(right, lengths):
  """Kimi's reward at alpha 0.5 of one group, in Python."""
  short, long = min(lengths), max(lengths)
  terms = [0.5 - (n - short) / (long - short) if long > short else 0.0 for n in lengths]
  return [r + 0.5 * (z if r else min(z, 0.0)) for r, z in zip(right, terms, strict=True)]


@pytest.fixture
def trainer(tmp_path):
  torch.manual_seed(0)
  words = models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
  tokenizer = Tokenizer(words)
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
  model = Qwen2Config(
    vocab_size=len(WORDS), num_key_value_heads=2, eos_token_id=1, pad_token_id=0, **size
  )
  reward, calls = pages.run("torch_trainers.md", "TRL")["length_reward"], []

  def length_reward(**given):
    calls.append((given, reward(**given)))
    return calls[-1][1]

  options = dict(output_dir=str(tmp_path), use_cpu=True, report_to="none", save_strategy="no")
  questions = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a in range(4) for b in range(4)]
  trainer = GRPOTrainer(
    Qwen2ForCausalLM(model),
    reward_funcs=length_reward,
    args=GRPOConfig(
      **options,
      max_steps=STEPS,
      per_device_train_batch_size=ROWS,
      num_generations=GROUP,
      max_completion_length=12,
      logging_steps=1,
      learning_rate=0.1,
    ),
    train_dataset=Dataset.from_list(questions),
    processing_class=PreTrainedTokenizerFast(
      tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ),
  )
  return trainer, calls


def test_a_reward_of_groups_in_grpo(trainer):
  trainer, calls = trainer
  before = [p.clone() for p in trainer.model.parameters()]
  trainer.train()
  assert any((p != q).any() for p, q in zip(trainer.model.parameters(), before, strict=True))

  logged = [row for row in trainer.state.log_history if "rewards/length_reward/mean" in row]
  assert len(logged) == len(calls) == STEPS
  for row, (given, returned) in zip(logged, calls, strict=True):
    want = []
    for i in range(0, ROWS, GROUP):
      group = slice(i, i + GROUP)
      assert len({*given["prompts"][group]}) == 1
      right = [a in text for a, text in zip(given["answer"], given["completions"], strict=True)]
      want += shaped(right[group], [len(ids) for ids in given["completion_ids"][group]])
    assert returned == pytest.approx(want)
    values = torch.tensor(want)
    assert row["rewards/length_reward/mean"] == pytest.approx(values.mean().item(), abs=1e-5)
    assert row["rewards/length_reward/std"] == pytest.approx(values.std().item(), abs=1e-4)
  ended = [ids for given, _ in calls for ids in given["completion_ids"] if ids[-1] == 1]
  assert ended, "lengths are to count the end token"
