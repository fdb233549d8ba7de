"""Folders of tokenizers."""

import json

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

CHATML = (
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
END, EOS = "<|im_end|>", "<|endoftext|>"


def folder(path, template=CHATML, special=("<|im_start|>", END), plain=(), **files):
  """A folder whose tokenizer knows bytes, EOS and these tokens; `files` are JSON by stem."""
  core = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(ALPHABET)}, []))
  core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  core.decoder = decoders.ByteLevel()
  core.add_special_tokens([EOS, *special])
  core.add_tokens([AddedToken(token, special=False) for token in plain])
  core.save(str(path / "tokenizer.json"))
  files["tokenizer_config"] = {"eos_token": EOS, "chat_template": template} | files.get(
    "tokenizer_config", {}
  )
  for stem, content in files.items():
    (path / f"{stem}.json").write_text(json.dumps(content))
  return path
