"""lcrl.commands.merge: folders in and out, memory, refusals, what is measured."""

import json
import shutil
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lcrl import policies
from lcrl.commands import merge as command
from lcrl.commands.merge import merge
from lcrl.merging import calibration, signs
from lcrl.merging.folders import Model, merge_folders, open_model
from lcrl.policies import lora, sources

ROOT = Path(__file__).parent.parent
CHAT = ROOT / "tests" / "fixtures" / "chats" / "thinking"
SIZES = {"hidden_size": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_size": 24}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """Three models of one kind: base in bfloat16 in one file, a in float32 in shards, b."""
  folder = tmp_path_factory.mktemp("models")
  tokenizer = policies.tokenizer(CHAT)
  policy = policies.make(policies.tiny(tokenizer.vocab_size, **SIZES))
  for i, (name, dtype) in enumerate((("base", "bfloat16"), ("a", "float32"), ("b", "bfloat16"))):
    params = jax.tree.map(lambda x, d=dtype: x.astype(d), policy.init(jax.random.key(i)))
    shard_bytes = 8000 if name == "a" else 2**30
    policies.save(folder / name, policy, params, tokenizer, shard_bytes=shard_bytes)
  return folder


def read(folder):
  tensors = {}
  for file in sorted(folder.glob("model*.safetensors")):
    tensors |= load_file(file)
  return tensors


def as_float32(tensors):
  return {name: x.astype(np.float32) for name, x in tensors.items()}


def test_the_command_merges_and_says_what_is_wrong_in_one_line(made, tmp_path):
  run = lambda *flags: subprocess.run(
    [sys.executable, "-m", "lcrl.commands.merge", f"--base={made / 'base'}", *flags],
    capture_output=True,
    text=True,
    cwd=ROOT,
    timeout=300,
  )
  models, out = f"--models={made / 'a'},{made / 'b'}", tmp_path / "out"
  done = run("--method=ties", models, "--weights=1,0.5", "--density=0.4", f"--out={out}")
  assert done.returncode == 0, done.stderr
  base, a, b, found = map(read, (made / "base", made / "a", made / "b", out))
  assert found.keys() == base.keys()
  for name, x in base.items():
    wanted = signs.ties_merge(x, [a[name], b[name]], weights=[1, 0.5], density=0.4)
    assert found[name].dtype == x.dtype
    np.testing.assert_array_equal(found[name], wanted.astype(x.dtype))
  options = json.loads((out / "merge.json").read_text())["options"]
  assert options == {"weights": [1.0, 0.5], "density": [0.4], "scale": 1.0, "normalize": True}
  policy, params = policies.load(out)
  assert np.isfinite(policy.apply(params, jnp.arange(5))).all()
  assert policies.tokenizer(out).encode("1+1") == policies.tokenizer(CHAT).encode("1+1")
  refused = run("--method=low_rank", models, f"--out={tmp_path / 'other'}")
  assert refused.stderr.strip() == "merge: --method=low_rank needs --rank."
  assert not (tmp_path / "other").exists()


def test_shards_are_written_and_read_back(made, tmp_path):
  base, other = open_model(made / "a"), open_model(made / "b")
  merge_folders(tmp_path / "out", base, [other], lambda x: x.base + x.model, shard_bytes=6000)
  assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
  a, b, found = (as_float32(read(f)) for f in (made / "a", made / "b", tmp_path / "out"))
  for name in a:
    np.testing.assert_array_equal(found[name], a[name] + b[name])
  policies.load(tmp_path / "out")
  index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
  assert index["weight_map"].keys() == a.keys()
  assert index["metadata"]["total_size"] == sum(x.nbytes for x in a.values())


def test_no_model_has_two_tensors_in_memory(made, tmp_path):
  alive, most = Counter(), Counter()

  def counting(model, name):
    def watched(tensor, index):
      found = np.array(model.tensors.read(tensor, index), np.float32)
      if found.size > model.tensors.shapes[tensor][0]:  # not the row that tells a dtype
        alive[name] += 1
        weakref.finalize(found, alive.subtract, {name: 1})
        most[name] = max(most[name], alive[name])
      return found

    return Model(model.folder, model.config, model.tensors._replace(read=watched))

  models = [counting(open_model(made / name), name) for name in ("base", "a", "b")]
  ties = lambda x: signs.ties_merge(x.base, x.models)
  merge_folders(tmp_path / "out", models[0], models[1:], ties, shard_bytes=5000)
  assert most == {"base": 1, "a": 1, "b": 1}
  assert not any(alive.values())
  held = []
  keeps = lambda x: held.append(x.models) or x.base
  merge_folders(tmp_path / "held", models[0], models[1:], keeps)
  assert most["a"] > 10  # the counter sees what is held


def edited(folder, name, change):
  raw = json.loads((folder / name).read_text())
  change(raw)
  (folder / name).write_text(json.dumps(raw))


def without_a_tensor(folder):
  tensors = load_file(folder / "model.safetensors")
  del tensors["model.norm.weight"]
  save_file(tensors, folder / "model.safetensors")


def with_another_shape(folder):
  tensors = load_file(folder / "model.safetensors")
  tensors["model.norm.weight"] = tensors["model.norm.weight"][:8].copy()
  save_file(tensors, folder / "model.safetensors")


def with_an_infinity(folder):
  tensors = load_file(folder / "model.safetensors")
  tensors["model.norm.weight"][3] = np.inf
  save_file(tensors, folder / "model.safetensors")


def with_another_token(folder):
  change = lambda raw: raw["added_tokens"][0].update(content="<|other|>")
  edited(folder, "tokenizer.json", change)
  for name in ("tokenizer_config.json", "generation_config.json"):
    (folder / name).unlink()


def with_other_positions(folder):
  edited(folder, "config.json", lambda raw: raw.update(rope_theta=5e5, rope_parameters=None))


def of_another_family(folder):
  change = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
  edited(folder, "config.json", lambda raw: raw.update(change))


@pytest.mark.parametrize(
  "break_it, message, allow",
  [
    (without_a_tensor, r"bad: tensor model\.norm\.weight of .*base is missing \(1 in all\)", None),
    (with_another_shape, r"bad: tensor model\.norm\.weight is \[8\], in .*base \[16\]", None),
    (with_an_infinity, r"bad.*model\.norm\.weight has values that are not finite", None),
    (with_another_token, r"bad: token .* is number .*--allow=tokenizer", "tokenizer"),
    (with_other_positions, r"bad: rope is .*theta=500000.*--allow=rope", "rope"),
    (of_another_family, "bad: family is qwen3, in .*base llama", None),
  ],
)
def test_what_differs_is_refused_by_name_and_nothing_is_left(
  made, tmp_path, break_it, message, allow
):
  bad, out = tmp_path / "bad", tmp_path / "out"
  shutil.copytree(made / "b", bad)
  break_it(bad)
  options = {"weights": None}
  with pytest.raises(ValueError, match=message):
    merge("linear", made / "base", [made / "a", bad], out, options)
  assert {x.name for x in tmp_path.iterdir()} == {"bad"}
  if allow:
    merge("linear", made / "base", [made / "a", bad], out, options, allow=[allow])
    kept = json.loads((out / "config.json").read_text())
    assert kept == json.loads((made / "base" / "config.json").read_text())


def test_a_folder_that_is_there_stays(made, tmp_path):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "notes.txt").write_text("mine")
  with pytest.raises(ValueError, match="out is there already and not empty"):
    merge("linear", made / "base", [made / "a"], tmp_path / "out", {})
  assert [x.name for x in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_what_the_files_dtype_cannot_hold_is_refused(made, tmp_path):
  change = {"strength": 1e39}
  with pytest.raises(ValueError, match=r"merged values of tensor .* are not finite bfloat16"):
    merge("strength", made / "base", [made / "a"], tmp_path / "out", change)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "method, models, options, message",
  [
    ("slerp", "ab", {"strength": 0.5}, "slerp takes one model in --models, got 2"),
    ("ties", "", {}, "ties takes one or more models in --models, got 0"),
    ("thinkedit", "a", {"heads": 1}, "thinkedit takes no models in --models, got 1"),
    ("linear", "ab", {"density": [0.5]}, "linear takes no --density, but --weights, --normalize"),
    ("strength", "a", {}, "strength needs --strength"),
    ("aim", "a", {}, "aim needs --examples or --statistics"),
    ("ties", "ab", {"density": [2.0]}, r"density must be in \[0, 1\], got 2.0"),
    ("dare", "ab", {"drop": [0.1, 0.2, 0.3]}, "drop must have a number for each of 2 models"),
  ],
)
def test_options_that_do_not_fit_are_named(made, tmp_path, method, models, options, message):
  with pytest.raises(ValueError, match=message):
    merge(method, made / "base", [made / name for name in models], tmp_path / "out", options)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["dare", "dare_ties"])
def test_dare_draws_by_seed_and_name(made, tmp_path, method):
  models = [made / "a", made / "b"]
  for name, seed in (("one", 1), ("same", 1), ("two", 2)):
    merge(method, made / "a", models, tmp_path / name, {"drop": [0.5], "seed": seed})
  one, same, two = (read(tmp_path / name) for name in ("one", "same", "two"))
  assert all(np.array_equal(one[name], same[name]) for name in one)
  assert not all(np.array_equal(one[name], two[name]) for name in one)
  first, second = command.kept_entries("x", (1000,), 2, 0.5, 0)
  assert 0.4 < (first == second).mean() < 0.6  # models do not share a draw


@pytest.mark.parametrize(
  "method, options",
  [
    ("sce", {"topk": 0.5}),
    ("low_rank", {"rank": 2}),
    ("lore", {"mu": 0.1, "iterations": 2}),
    ("trimmed_ties", {"rate": 0.5}),
    ("task_arithmetic", {"scale": 0.7}),
  ],
)
def test_methods_run_over_whole_models(made, tmp_path, method, options):
  merge(method, made / "base", [made / "a", made / "b"], tmp_path / "out", options)
  found, base = read(tmp_path / "out"), read(made / "base")
  assert any(not np.array_equal(found[name], base[name]) for name in base)


@pytest.mark.parametrize(
  "method, options",
  [
    ("strength", {"strength": 1.0}),
    ("slerp", {"strength": 1.0}),
    ("selective", {"fraction": 1.0, "scale": 1.0}),
  ],
)
def test_the_ends_of_a_path_are_the_models(made, tmp_path, method, options):
  merge(method, made / "a", [made / "b"], tmp_path / "out", options)
  found, wanted = read(tmp_path / "out"), read(made / "b")
  for name, x in wanted.items():
    np.testing.assert_allclose(found[name], x.astype(np.float32), atol=1e-6)


def test_a_policy_between_two_folders_is_their_sum(made, tmp_path):
  source = sources.between(path=str(made / "a"), toward=str(made / "b"), strength=1.5)
  merge("strength", made / "a", [made / "b"], tmp_path / "out", {"strength": 1.5})
  same = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6)
  jax.tree.map(same, source.params(), policies.load(tmp_path / "out")[1])
  policy = policies.make(policies.tiny(20, **SIZES))
  policies.save(tmp_path / "small", policy, policy.init(jax.random.key(0)))
  with pytest.raises(ValueError, match="small: vocab_size is 20, in "):
    sources.between(path=str(made / "a"), toward=str(tmp_path / "small"))


def adapter(folder, policy, rank, **options):
  """An adapter of query and down in PEFT's layout, and the params that it makes of the base."""
  init, _ = lora.adapters(policy, rank=rank, targets=("query", "down"))
  adapted = jax.tree.map(lambda x: x + 0.1, init(jax.random.key(5)))
  names, tensors = {"query": "self_attn.q_proj", "down": "mlp.down_proj"}, {}
  for name, pair in adapted.items():
    for i in range(policy.config.layers):
      key = f"base_model.model.model.layers.{i}.{names[name]}.lora_"
      tensors[f"{key}A.weight"] = np.ascontiguousarray(pair["a"][i].T)
      tensors[f"{key}B.weight"] = np.ascontiguousarray(pair["b"][i].T)
  folder.mkdir()
  save_file(tensors, folder / "adapter_model.safetensors")
  raw = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "bias": "none", **options}
  (folder / "adapter_config.json").write_text(json.dumps(raw))
  return adapted


@pytest.mark.parametrize("stabilized", [False, True])
def test_strength_along_an_adapter(made, tmp_path, stabilized):
  policy, params = policies.load(made / "a")
  adapted = adapter(tmp_path / "short", policy, 4, use_rslora=stabilized)
  out = tmp_path / "out"
  merge("strength", made / "a", [tmp_path / "short"], out, {"strength": 1.5})
  wanted = lora.merge(params, adapted, alpha=6.0, rank_stabilized=stabilized)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), policies.load(out)[1], wanted
  )


def test_adapters_that_are_not_plain_are_refused(made, tmp_path):
  policy, _ = policies.load(made / "a")
  adapter(tmp_path / "dora", policy, 2, use_dora=True)
  with pytest.raises(ValueError, match=r"dora.*use_dora=True is not read"):
    merge("linear", made / "a", [tmp_path / "dora"], tmp_path / "out", {})
  adapter(tmp_path / "wide", policies.make(policies.tiny(20)), 2)
  with pytest.raises(ValueError, match=r"wide.*lora_A and lora_B of .*_proj\.weight are"):
    merge("linear", made / "a", [tmp_path / "wide"], tmp_path / "out", {})


ROWS = [
  {"prompt": [{"role": "user", "content": "1+1?"}], "response": "<think>2 and 2</think>4"},
  {"prompt": "hello", "raw_text": "1 and 1 and 1 and 1 and 1 and 1 and 1</think>2"},
  {"prompt": "hello", "response": "never closed"},
]


@pytest.fixture
def rows(tmp_path):
  file = tmp_path / "rows.jsonl"
  file.write_text("\n".join(map(json.dumps, ROWS)))
  return file


def measuring(made, rows, method, above, below):
  limits = {"above": above, "below": below, "end_of_thinking": "</think>"}

  def statistics(start):
    found = command.measure(method, made / "a", rows, **limits)
    return command.check_statistics(method, found, start)

  return statistics


def test_thinkedit_takes_the_direction_out_of_the_heads_it_chose(made, tmp_path, rows):
  tokenizer = policies.tokenizer(CHAT)
  examples = calibration.examples(rows, tokenizer)
  sizes = [len(x.thinking) for x in examples if x.thinking is not None]
  assert len(sizes) == 2  # the third is not closed
  assert examples[0].prompt == [
    *tokenizer.encode(tokenizer.render(ROWS[0]["prompt"])),
    *tokenizer.encode("<think>"),
  ]
  statistics = measuring(made, rows, "thinkedit", max(sizes) - 1, max(sizes))
  out, options = tmp_path / "out", {"heads": 3}
  merge("thinkedit", made / "a", [], out, options, statistics=statistics)
  kept = load_file(out / "merge_statistics.safetensors")
  order = np.argsort(-kept["scores"], axis=None)
  before, after = read(made / "a"), read(out)
  for layer, direction in enumerate(kept["directions"]):
    name = calibration.O_PROJ.format(layer)
    along = direction @ after[name].reshape(16, 2, 8).swapaxes(0, 1)  # [heads, head_dim]
    chosen = [2 * layer + head in order[:3] for head in range(2)]
    np.testing.assert_allclose(np.abs(along).max(-1) < 1e-5, chosen)
  same = [name for name in before if np.array_equal(before[name], after[name])]
  assert len(same) == len(before) - 2
  again = lambda start: command.check_statistics("thinkedit", kept, start)
  merge("thinkedit", made / "a", [], tmp_path / "again", options, statistics=again)
  assert all(np.array_equal(x, after[name]) for name, x in read(tmp_path / "again").items())
  with pytest.raises(ValueError, match="no example has thinking of above 1000 tokens: 3 were read"):
    measuring(made, rows, "thinkedit", 1000, 100)(open_model(made / "a"))


def test_aim_holds_back_the_active_channels(made, tmp_path, rows):
  statistics = measuring(made, rows, "aim", 0, 0)
  out = tmp_path / "out"
  merge("aim", made / "a", [made / "b"], out, {"omega": 0.0}, statistics=statistics)
  base, other, found = (as_float32(read(x)) for x in (made / "a", made / "b", out))
  kept = load_file(out / "merge_statistics.safetensors")
  name = "model.layers.1.mlp.down_proj.weight"
  most = kept[name].argmax()
  np.testing.assert_allclose(found[name][:, most], base[name][:, most], atol=1e-6)
  np.testing.assert_array_equal(found["model.norm.weight"], other["model.norm.weight"])
  wrong = {"model.layers.1.mlp.down_proj.weight": np.ones(3, np.float32)}
  with pytest.raises(ValueError, match=r"down_proj\.weight \(3,\), should be \(24,\)"):
    command.check_statistics("aim", wrong, open_model(made / "a"))


def test_rows_that_are_no_examples_are_named_by_line(tmp_path):
  file = tmp_path / "rows.jsonl"
  file.write_text('{"prompt": "a", "response": "b"}\n{"response": "b"}\n')
  with pytest.raises(ValueError, match=r"rows\.jsonl:2 is no row with prompt and response"):
    calibration.examples(file, policies.tokenizer(CHAT))
