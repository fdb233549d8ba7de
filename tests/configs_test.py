"""Every config is complete, and runs in its smoke mode from the command line's entry point."""

import contextlib
import functools
import inspect
import json

import pytest

from configs import common
from experiments import configs
from lcrl import recipes
from lcrl.policies import sources
from lcrl.training import build, kinds, loop, metric_names

VARIANTS = configs.variants()


def named(config, at=""):
  """The functions and the kind of run that a config names."""
  found = {(at, key, x) for key, x in config.items() if key in ("fn", "run")}
  return found.union(*(named(x, key) for key, x in config.items() if isinstance(x, dict)))


QUICK = 14  # smoke runs that are not slow, besides those of a kind of run that none of them is


@functools.cache
def ordered():
  """All variants, each step the one that names most functions which none before it names."""
  new = {name: named(variant.config("smoke")) for name, variant in VARIANTS.items()}
  names = []
  while new:
    name = max(new, key=lambda name: len(new[name]))
    new = {other: found - new[name] for other, found in new.items() if other != name}
    names.append(name)
  return names


def quick():
  """The smoke runs that are not slow."""
  kinds_of_run = {VARIANTS[name].config("smoke").get("run", "rl"): name for name in ordered()[::-1]}
  return {*ordered()[:QUICK], *kinds_of_run.values()}


def check(config):
  """Raises for what can be told without running it."""
  settings = kinds.kind(config).settings(config)
  if config.get("run", "rl") == "rl":
    recipes.from_config(settings.slots)
    if config["policy"]["fn"] == "pretrained":
      t = settings.train
      assert t.prompts % (8 * t.updates * t.micro_batches) == 0, "eight devices could not share it"


pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module", autouse=True)
def shared():
  """What all smoke runs would make alike is made once: policy, sampler and verifier."""
  with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
    start = build.Verifier

    @functools.cache
    def started(name, knobs):
      return stack.enter_context(start(tasks[name], **dict(knobs)))

    def verifier(task, **knobs):
      tasks.setdefault(task.name, task)
      return contextlib.nullcontext(started(task.name, tuple(knobs.items())))

    tasks = {}
    patch.setattr(build, "Verifier", verifier)
    patch.setattr(build, "make_engine", functools.cache(build.make_engine))
    patch.setattr(sources, "fresh", functools.cache(sources.fresh))
    yield


@pytest.mark.parametrize("name", VARIANTS)
def test_full_config_names_what_exists(name):
  config = VARIANTS[name].config()
  check(config)
  check(json.loads(json.dumps(config)))  # as a workdir keeps it
  doc, place = inspect.getdoc(VARIANTS[name].module), f"configs/{VARIANTS[name].stem}.py"
  for part in ("Run ", "Smoke ", "Result "):
    assert part in doc, f"the docstring of {place} has no line {part!r}"
  assert f"{place} " in doc
  assert f"{place}:smoke" in doc
  if "Tier    B" in doc:
    assert "Stand-in: " in doc


@pytest.mark.parametrize("name", VARIANTS)
def test_the_resolved_config_is_the_stored_one(name):
  stored = (configs.GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
  assert configs.golden(VARIANTS[name]) == stored, (
    "python -m experiments.configs stores what is meant"
  )


def test_there_is_a_stored_page_of_every_config_and_of_nothing_else():
  assert {path.name for path in configs.GOLDEN.iterdir()} == {f"{name}.txt" for name in VARIANTS}


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].sweep()])
def test_a_sweep_changes_fields_that_are_there(name):
  points = VARIANTS[name].sweep()
  assert len(points) >= 2
  for point in points:
    config = VARIANTS[name].config()
    for field, value in point.items():
      *sections, last = field.split(".")
      place = functools.reduce(lambda place, key: place[key], sections, config)
      place[last] = value
    check(config)


def test_every_method_sweeps_its_main_coefficient():
  methods = [v for v in VARIANTS.values() if "Tier" in inspect.getdoc(v.module)]
  assert not [v.name for v in methods if not v.sweep()]


def test_shared_sections_are_one_level_deep():
  functions = {n: f for n, f in vars(common).items() if inspect.isfunction(f)}
  assert len(functions) > 10
  for function in functions.values():
    assert not functions.keys() & set(function.__code__.co_names)
    assert "config_dict" not in function.__code__.co_names


def test_a_config_that_was_run_is_a_complete_page():
  run = [v for v in VARIANTS.values() if "Result  not run yet" not in inspect.getdoc(v.module)]
  assert len(run) == 7
  assert not [v.name for v in run if hasattr(v.module, "common")]


def test_smoke_runs_that_are_not_slow_are_of_every_kind_and_name_most_functions():
  of = lambda names: set().union(*(named(VARIANTS[name].config("smoke")) for name in names))
  runs = lambda names: {found for found in of(names) if found[1] == "run"}
  assert len(quick()) <= QUICK + 6
  assert runs(quick()) == runs(VARIANTS)
  assert len(of(quick())) > 0.45 * len(of(VARIANTS))
  assert sorted(ordered()) == sorted(VARIANTS)


@pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=[] if n in quick() else pytest.mark.slow) for n in ordered()],
)
def test_smoke_run(name, tmp_path):
  loop.train(VARIANTS[name].config("smoke"), tmp_path)
  assert json.loads((tmp_path / "summary.json").read_text())["tokens"] > 0
  assert (tmp_path / "report.md").read_text().startswith("# ")
  written = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
  names = {name for line in written for name in line} - {"step"}
  assert not [name for name in names if metric_names.explanation(name) is None]


def test_the_page_of_metrics_is_that_of_the_table():
  page = metric_names.PAGE.read_text(encoding="utf-8")
  assert page == metric_names.page(), "run python -m lcrl.training.metric_names"
