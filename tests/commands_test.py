"""The commands and snippets of README, RUNNING, CONFIG and the pages of the site: each command
exists, takes its flags and names a valid config; cheap ones run, on a small finished run."""

import contextlib
import importlib.util
import re
import runpy
import sys
import types
from pathlib import Path

import pytest
from absl import app, flags

from lcrl.commands import command, train
from lcrl.data.public.sets import SETS
from lcrl.evaluation import answers, test_time
from lcrl.registry import check
from lcrl.sampling import choices
from lcrl.training import fields
from lcrl.values import check as check_value
from lcrl.values import hints
from tests.helpers import page_commands as pages
from tests.helpers.page_commands import ROOT

COMMANDS = [*pages.commands()]
# What the pages have beside commands of this repository. Nobody runs these here.
OTHERS = {"sbatch", "kubectl"}
READERS = {"lcrl.commands.evaluate", "lcrl.commands.measures"}  # of measures, recipes and controls


def known_scripts():
  """The console scripts, as setup.py lists them."""
  (block,) = re.findall(r"^COMMANDS = \((.*?)^\)", (ROOT / "setup.py").read_text(), re.M | re.S)
  return {f"lcrl-{name}" for name in re.findall(r'"([\w-]+)"', block)} | {"lcrl"}


def module_of(arguments):
  """The module that a command runs, and its own arguments."""
  program, *rest = arguments
  if re.fullmatch(r"python3?", program):
    assert rest[0] == "-m", arguments
    return rest[1], rest[2:]
  assert program in known_scripts(), f"{program} is no console script of setup.py"
  name = program.removeprefix("lcrl-").replace("launch-", "launch.").replace("-", "_")
  return f"lcrl.commands.{name}", rest


@contextlib.contextmanager
def parsed(module, arguments, *, whole):
  """What follows the module's command line: its `main` and the flags. Without `whole`, required
  flags may be missing. Nothing has run.

  Raises:
    flags.Error: a flag that the command does not define, or a value that it does not take.
  """
  before, found = {*flags.FLAGS}, types.SimpleNamespace(main=None)
  with pytest.MonkeyPatch.context() as patch:
    stop = lambda main, *_, **__: setattr(found, "main", main)
    patch.setattr(command, "run", stop)
    patch.setattr(app, "run", stop)
    patch.setattr(sys, "argv", [module, *arguments])
    if not whole:
      optional = lambda define: lambda *given, required=False, **more: define(*given, **more)
      for name in (name for name in dir(flags) if name.startswith("DEFINE_")):
        patch.setattr(flags, name, optional(getattr(flags, name)))
      for name in ("mark_flag_as_required", "mark_flags_as_mutual_exclusive"):
        patch.setattr(flags, name, lambda *_, **__: None)
    try:
      runpy.run_path(importlib.util.find_spec(module).origin, run_name="__main__")
      found.rest = flags.FLAGS(sys.argv)[1:]
      yield found
    finally:
      for name in {*flags.FLAGS} - before:
        delattr(flags.FLAGS, name)
      flags.FLAGS.unparse_flags()


def is_shown(value):
  """A value that stands for another: `...`, or a word in capitals."""
  return value is None or "..." in str(value) or "$" in str(value)


@pytest.mark.parametrize("one", COMMANDS, ids=lambda one: f"{one.page} {one.text[:60]}")
def test_a_command_exists_and_takes_its_flags(one):
  program, *rest = one.arguments
  if program == "make":
    check_make(rest)
  elif program == "pip":
    check_pip(rest)
  elif program not in OTHERS:
    module, own = module_of(one.arguments)
    spec = importlib.util.find_spec(module)
    assert spec, module
    if "flags." in Path(spec.origin).read_text(encoding="utf-8"):
      check_flags(module, own, whole=one.whole)


def check_make(words):
  makefile = (ROOT / "Makefile").read_text()
  for word in words:
    name, assigned, _ = word.partition("=")
    pattern = rf"^{name} \?=" if assigned else rf"^{name}:"
    assert re.search(pattern, makefile, re.MULTILINE), word


def check_pip(words):
  assert words[0] in ("install", "wheel"), words
  setup = (ROOT / "setup.py").read_text()
  for word in words:
    if match := re.fullmatch(r"(?:\.|lcrl-jax)\[(.+)\]", word):
      for extra in match[1].split(","):
        assert re.search(rf'^    "{extra}": ', setup, re.MULTILINE), word


def check_flags(module, arguments, *, whole):
  if "--" in arguments:  # a launcher: what follows is for lcrl-train
    cut = arguments.index("--")
    check_flags("lcrl.commands.train", arguments[cut + 1 :], whole=whole)
    arguments = arguments[:cut]
  shown = [word for word in arguments if word.startswith("--config") and is_shown(word)]
  arguments = [word for word in arguments if word not in shown]
  with parsed(module, arguments, whole=whole and not shown) as found:
    given = flags.FLAGS
    if "config" in given and given["config"].value is not None:
      train.checked(given.config.to_dict())
    if module == "lcrl.commands.data" and found.rest:
      assert {*found.rest} <= {*SETS}, found.rest
    if module == "lcrl.commands.cold_start" and given["kind"].value:
      from lcrl.data import cold_start

      assert given.kind in cold_start.__all__
    for flag, home in (("measures", answers), ("recipe", test_time), ("control", choices)):
      if module in READERS and flag in given and given[flag].value is not None:
        value = given[flag].value
        for text in value if isinstance(value, list) else [value]:
          for spec in command.read_calls(text, flag):
            check(home, spec, field=flag, whole=False)


def test_there_are_commands_to_check():
  programs = [one.arguments[0] for one in COMMANDS]
  assert len(COMMANDS) > 70
  assert {"make", "pip", "python", "lcrl-train", "lcrl-launch-gke", "kubectl"} <= {*programs}
  assert {one.page for one in COMMANDS} >= {"README.md", "RUNNING.md", "CONFIG.md"}


def test_wrong_commands_are_found():
  wrong = {
    "lcrl-trian --config=configs/laser.py": "no console script",
    "lcrl-train --config=configs/laser.py:nonsense --workdir=x": "nonsense",
    "lcrl-train --config=configs/laser.py --workdri=x": "workdri",
    "lcrl-train --config=configs/laser.py --config.reward.aplha=1 --workdir=x": "aplha",
    "lcrl-export --workdir=runs/x": "out",
    "lcrl-measures --answers=a --measures=pass_at_q": "pass_at_q",
    "lcrl-data gsm9k": "gsm9k",
    "lcrl-launch-slurm --name=a --nodes=2 --gpus=8 --time=1 -- --config=configs/no.py": "no.py",
    "make smolm2": "smolm2",
    "pip install '.[trian]'": "trian",
  }
  for text, why in wrong.items():
    (one,) = pages._split("page", text, whole=True)
    with pytest.raises((AssertionError, ValueError, flags.Error, OSError), match=why):
      test_a_command_exists_and_takes_its_flags(one)


CONFIG_SNIPPETS = [
  code
  for text in pages.texts().values()
  for code in pages.blocks(text, "python")
  if code.startswith("c.")
]


@pytest.mark.parametrize("code", CONFIG_SNIPPETS, ids=lambda code: code[:30])
def test_a_snippet_of_a_config_sets_fields_that_exist(code):
  """`...` stands for further arguments."""
  from ml_collections import config_dict

  c = config_dict.ConfigDict({"run": "rl", "task": {}, "sampling": {}, "train": {}})
  exec(re.sub(r", \.\.\.(?=[,)])|\.\.\., ", "", code), {"c": c})
  config = c.to_dict()
  sections = fields.SECTIONS[config.pop("run")]
  extra = config.pop("eval_tasks", {})
  assert config.keys() <= sections.keys(), code
  named = [*config.items(), *(("eval_task", one) for one in extra.values())]
  for name, spec in named:
    section = sections[name]
    if isinstance(section, type):
      for field, value in spec.items():
        check_value(value, hints(section)[field], f"{name}.{field}")
    elif "fn" in spec:
      fields.check_function(section._replace(run=("whole",)), spec, name)


def test_every_snippet_is_checked():
  """`readme_test` runs the other one of these pages; pages of the site have tests of their own."""
  texts = {page: text for page, text in pages.texts().items() if not page.startswith("docs/")}
  snippets = [code for text in texts.values() for code in pages.blocks(text, "python")]
  assert len(CONFIG_SNIPPETS) == len(snippets) - 1 >= 4


def test_commands_of_the_readme_run(finished_run, tmp_path, monkeypatch, capsys):
  """On a small run in place of runs/laser, with fewer prompts."""
  (tmp_path / "runs").mkdir()
  (tmp_path / "runs" / "laser").symlink_to(finished_run)
  monkeypatch.chdir(tmp_path)
  ran = []
  for one in COMMANDS:
    if one.page == "README.md" and one.whole and cheap(one.arguments):
      words = [
        word.replace("runs/*", "runs/laser").replace("8,16,96", "4,8") for word in one.arguments
      ]
      module, arguments = module_of(words)
      with parsed(module, arguments, whole=True) as found:
        if "prompts" in flags.FLAGS:
          flags.FLAGS.prompts, flags.FLAGS.batch = 4, 4
        found.main([module, *found.rest])
      ran.append(words[0])
  assert ran == ["lcrl-compare", "lcrl-evaluate", "lcrl-export"]
  assert (tmp_path / "runs" / "compared" / "comparison.html").exists()
  assert (tmp_path / "runs" / "laser" / "evaluation.json").exists()
  assert (tmp_path / "exported" / "config.json").exists()


def cheap(arguments):
  """Those that need one finished run and nothing else."""
  program, *rest = arguments
  others = ("--efforts", "--task")
  if program == "lcrl-export":
    return "--out=exported" in rest  # a GGUF file wants a tokenizer with files
  return program == "lcrl-compare" or (
    program == "lcrl-evaluate" and not any(word.startswith(others) for word in rest)
  )
