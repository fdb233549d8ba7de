"""The lines `Fits` of configs and the table of the study are what is calculated now."""

import pytest

from experiments.studies.fit import table
from lcrl.training.analysis.roofline import GIB


@pytest.fixture(scope="module")
def places():
  return table.stored()


@pytest.mark.slow
def test_every_config_in_a_papers_setting_fits_somewhere_and_says_so(places):
  assert places.keys() == table.in_papers().keys()
  assert all(kinds.keys() == table.KINDS.keys() for kinds in places.values())
  stale = [path.name for path, source in table.files(places) if path.read_text() != source]
  assert not stale, "python -m experiments.studies.fit.table"
  assert table.PAGE.read_text() == table.page(places), "python -m experiments.studies.fit.table"


@pytest.mark.parametrize("name", ["laser_d", "dpo_lora", "dler"])
def test_the_least_hardware_is_found_again(name, places):
  topologies = table.KINDS["GPU"][:5]
  assert table.find(name, topologies) == places[name]["GPU"]


def test_the_arithmetic_says_what_the_compiler_says():
  for row, found in table.calculated_again():
    for name, size in row["temporaries"].items():
      got = found[name]["temporaries"] / GIB
      assert got == pytest.approx(size, rel=0.1, abs=0.75), (row["config"], name)


def test_a_header_is_replaced_and_not_added_twice():
  source = '"""X.\n\nSmoke   y\nResult  not run yet\n"""\n'
  once = table.with_header(source, "Fits    a: 1 GiB, with\n        b=2")
  assert "Smoke   y\nFits    a: 1 GiB, with\n        b=2\nResult  not run yet" in once
  assert table.with_header(once, "Fits    c") == once.replace("a: 1 GiB, with\n        b=2", "c")
