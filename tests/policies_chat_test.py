"""Chat templates and tokenizers: what transformers renders, encodes and decodes."""

import datetime
import json
import shutil
from pathlib import Path

import jinja2
import pytest

from lcrl import policies
from lcrl.policies.chat import render

CHATS = Path(__file__).parent / "fixtures" / "chats"
CASES = [
  pytest.param(folder.name, conversation, id=f"{folder.name}-{i}")
  for folder in sorted(CHATS.iterdir())
  for i, conversation in enumerate(json.loads((folder / "conversations.json").read_text()))
]
HI = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("name, conversation", CASES)
def test_conversations_are_those_of_transformers(name, conversation):
  tokenizer = policies.tokenizer(CHATS / name)
  variables = {k: v for k, v in conversation.items() if k not in ("text", "tokens", "decoded")}
  text = tokenizer.render(variables.pop("messages"), **variables)
  assert text == conversation["text"]
  assert tokenizer.encode(text) == conversation["tokens"]
  decoded = tokenizer.decode(conversation["tokens"], skip_special_tokens=False)
  assert decoded == conversation["decoded"]


@pytest.mark.parametrize("name", sorted({case.values[0] for case in CASES}))
def test_saving_keeps_what_matters(name, tmp_path):
  tokenizer = policies.tokenizer(CHATS / name)
  tokenizer.save(tmp_path)
  again = policies.tokenizer(tmp_path)
  assert (again.end_ids, again.pad_id) == (tokenizer.end_ids, tokenizer.pad_id)
  variables = {"date_string": "today"}
  assert again.render(HI, **variables) == tokenizer.render(HI, **variables)
  assert again.encode("the sum") == tokenizer.encode("the sum")


def test_every_place_that_names_an_end_token_counts(tmp_path):
  folder = Path(shutil.copytree(CHATS / "thinking", tmp_path / "t"))
  own = policies.tokenizer(folder).end_ids
  (folder / "generation_config.json").write_text('{"eos_token_id": [7, 0]}')
  (folder / "config.json").write_text('{"eos_token_id": 9}')
  assert policies.tokenizer(folder).end_ids == tuple(dict.fromkeys([*own, 7, 0, 9]))
  settings = json.loads((folder / "tokenizer_config.json").read_text())
  for name in ("eos_token", "pad_token"):
    settings.pop(name)
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  tokenizer = policies.tokenizer(folder)
  assert (tokenizer.end_ids, tokenizer.pad_id) == ((0, 7, 9), 0)  # 0 ends the template's turns


def test_named_templates_in_the_old_place(tmp_path):
  folder = Path(shutil.copytree(CHATS / "chatml", tmp_path / "t"))
  (folder / "chat_template.jinja").unlink()
  with pytest.raises(ValueError, match="no chat template"):
    policies.tokenizer(folder).render(HI)
  settings = json.loads((folder / "tokenizer_config.json").read_text())
  named = [{"name": "rag", "template": "no"}, {"name": "default", "template": "{{ eos_token }}"}]
  settings |= {"chat_template": named, "eos_token": {"content": "<|im_end|>", "lstrip": False}}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  assert policies.tokenizer(folder).render(HI) == "<|im_end|>"


def test_today_is_today():
  year = render("{{ strftime_now('%Y-%m') }}", HI)
  assert year == datetime.datetime.now().strftime("%Y-%m")


@pytest.mark.parametrize(
  "template",
  [
    "{{ messages.append(1) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ render.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{% include '/etc/passwd' %}",
    "{{ raise_exception('No.') }}",
  ],
)
def test_templates_cannot_reach_out(template):
  with pytest.raises((jinja2.TemplateError, TypeError)):
    render(template, HI)


def test_templates_meet_plain_data_only():
  with pytest.raises(ValueError, match="plain data only, got PosixPath"):
    render("", [{"role": "user", "content": Path("/")}])


def test_missing_and_broken_files_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no model folder"):
    policies.tokenizer(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
    policies.tokenizer(tmp_path)
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read"):
    policies.tokenizer(tmp_path)
