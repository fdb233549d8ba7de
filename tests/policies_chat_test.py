"""Chat templates and tokenizers: what transformers renders, encodes and decodes."""

import datetime
import json
import shutil
from pathlib import Path

import jinja2
import pytest

from lcrl import policies
from lcrl.policies import chat
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


@pytest.mark.parametrize(
  "template, message",
  [
    ("{{ 'a' * 10**10 }}", "more memory"),
    ("{{ 'a' * (2**24 + 1) }}", "writes 16777217 characters; at most 16777216"),
    ("{{ '%2000000000d' % 1 }}", "more memory"),
    (
      "{% set n = namespace(s='abcd') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}"
      "{% endfor %}",
      "more memory",
    ),
  ],
)
def test_a_template_that_asks_too_much_is_stopped(template, message):
  with pytest.raises(ValueError, match=rf"The chat template was stopped: it .*{message}"):
    render(template, HI)
  assert render("{{ messages[0].content }}", HI) == "Hi"  # in a new process


def test_a_template_that_does_not_end_is_stopped(monkeypatch):
  monkeypatch.setattr(chat, "SECONDS", 1)
  chat._process.close()
  endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
  with pytest.raises(ValueError, match="stopped: it takes more than 1 s of CPU time"):
    render(endless, HI)
  assert render("{{ messages[0].content }}", HI) == "Hi"  # in a new process
  chat._process.close()


def test_half_a_surrogate_pair_is_refused():
  with pytest.raises(jinja2.TemplateError, match=r"UnicodeEncodeError: .* surrogates not allowed"):
    render(r"{{ '\ud83d' }}", HI)


def test_what_a_template_complains_of_is_cut():
  with pytest.raises(jinja2.TemplateError) as error:
    render("{{ raise_exception('no' * 10**6) }}", HI)
  assert 100 < len(str(error.value)) < 2000


@pytest.mark.parametrize("text", ["(" * 9999, "{{ " + "(" * 9999 + ")" * 9999 + " }}", "{% if %}"])
def test_a_broken_template_fails_or_is_text(text):
  if "{" not in text:
    assert render(text, HI) == text
    return
  with pytest.raises(jinja2.TemplateError, match=r"."):
    render(text, HI)


def test_documents_are_there_or_none():
  template = "{{ documents is defined }}{{ documents is none }}{{ (documents or 'x')[0].text }}"
  assert render(template, HI) == "TrueTrue"
  assert render(template, HI, documents=[{"text": "x"}]) == "TrueFalsex"


def test_null_content_is_nothing_and_null_fields_are_missing():
  message = [{"role": "assistant", "content": None, "tool_calls": None}]
  template = "{% set m = messages[0] %}<{{ m.content }}{{ m.content | trim }}{{ 'x' + m.content }}>"
  assert render(template, message) == "<x>"
  template = "{% set m = messages[0] %}{{ m.content is none }}{{ 'tool_calls' in m }}"
  assert render(template, message) == "TrueFalse"


def test_arguments_of_calls_are_objects_where_templates_write_json():
  call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
  message = [{"role": "assistant", "content": None, "tool_calls": [call]}]
  read = "{% set f = messages[0].tool_calls[0].function %}"
  assert render(read + "{{ f.arguments | tojson }}", message) == '{"a": 1}'
  assert render(read + "{% for k, x in f.arguments|items %}{{ k }}{% endfor %}", message) == "a"
  assert render(read + "{{ 'x' + f.arguments }}", message) == 'x{"a": 1}'


def test_nesting_has_an_end():
  deep = []
  for _ in range(2000):
    deep = [deep]
  with pytest.raises(ValueError, match="nested more than 100 deep"):
    render("", HI, tools=deep)
  with pytest.raises(ValueError, match="must be an object with role and content, got 'Hi'"):
    render("", ["Hi"])


def test_missing_and_broken_files_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no model folder"):
    policies.tokenizer(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
    policies.tokenizer(tmp_path)
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read"):
    policies.tokenizer(tmp_path)
