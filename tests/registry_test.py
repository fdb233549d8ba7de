"""A config's fn becomes the function it names, or an error that names the field."""

import types

import pytest

from lcrl.registry import build, check, explained, resolve


def scale(x=1, *, by):
  return x * by


def both(a, b=0):
  return a + b


SHOP = types.ModuleType("shop")
SHOP.scale, SHOP.both, SHOP.hidden = scale, both, both
SHOP.__all__ = ["both", "scale"]


def test_builds_with_arguments_and_nested_functions():
  assert build(SHOP, {"fn": "both", "a": {"fn": "scale", "by": 3}, "b": 4}, field="x") == 7
  several = {"fn": "both", "a": [{"fn": "scale", "by": 3}, {"fn": "scale", "by": 4}], "b": (9,)}
  assert build(SHOP, several, field="x") == (3, 4, 9)
  assert resolve(SHOP, {"fn": "scale", "by": 3}, field="x")(5) == 15


@pytest.mark.parametrize(
  "spec, message",
  [
    ({"by": 3}, "x needs a field fn"),
    ({"fn": "hidden"}, r"x\.fn='hidden' is not one of both, scale"),
    ({"fn": "scale", "bye": 3}, r"x\.bye is not an argument of scale"),
    ({"fn": "scale"}, r"x\.by is missing"),
    ({"fn": "both", "a": {"fn": "no"}}, r"x\.a\.fn='no'"),
    ({"fn": "both", "a": [{"fn": "scale", "by": 3}, {"fn": "no"}]}, r"x\.a\[1\]\.fn='no'"),
  ],
)
def test_errors_name_the_field(spec, message):
  with pytest.raises(ValueError, match=message):
    build(SHOP, spec, field="x")


class Half(float):
  pass


def factory(*, size: int, shape: tuple[str, ...] = (), inner: Half | None = None) -> Half:
  return Half(size / 2)


def helper(x: int) -> int:
  return x


def broken() -> Half:
  raise TypeError("no half")


def test_functions_of_other_modules():
  name = f"{__name__}:factory"
  assert build(SHOP, {"fn": name, "size": 3}, field="x") == 1.5
  nested = {"fn": name, "size": 1, "inner": {"fn": name, "size": 2}}
  assert build(SHOP, nested, field="x", gives=Half) == 0.5
  for wrong, message in {
    f"{__name__}:factori": r"x\.fn=.* has no 'factori'; did you mean factory\?",
    "no.such.module:f": r"x\.fn=.* cannot be imported: No module named 'no'",
    f"{__name__}:SHOP": r"x\.fn=.* is no function",
    ":f": "must be like package.module:name",
    f"{__name__}:helper": r"x\.fn=.* gives 2, no Half",
    f"{__name__}:broken": r"x: .*broken\(\) fails: no half",
  }.items():
    arguments = {"x": 2} if wrong.endswith("helper") else {}
    with pytest.raises(ValueError, match=message):
      build(SHOP, {"fn": wrong, **arguments}, field="x", gives=Half)


def test_what_gives_the_wanted_kind_is_listed_the_nearest_first():
  shop = types.ModuleType("shop")
  shop.factory, shop.helper, shop.broken = factory, helper, broken
  shop.__all__ = ["broken", "factory", "helper"]
  with pytest.raises(ValueError, match=r"x\.fn='factor' is not one of factory, broken\.$"):
    check(shop, {"fn": "factor"}, field="x", gives=Half)
  with pytest.raises(ValueError, match=r"x\.fn='helper' is not one of broken, factory\.$"):
    check(shop, {"fn": "helper", "x": 1}, field="x", gives="Half | None")
  with pytest.raises(ValueError, match=r"x\.inner\.fn='helper' is not one of broken, factory\.$"):
    check(shop, {"fn": "factory", "size": 1, "inner": {"fn": "helper"}}, field="x")


@pytest.mark.parametrize("value", [None, 1.5, 1e9, 10**18, float("nan"), "x", [], {}, True])
def test_an_argument_of_another_type_is_refused_by_field(value):
  spec = {"fn": f"{__name__}:factory", "size": value}
  with pytest.raises(ValueError, match=r"x\.size must be a whole number, got"):
    build(SHOP, spec, field="x")


def test_explained_goes_on_to_what_docstrings_name_but_not_to_arguments():
  def sale(by):
    """`scale`, `by` so much, `hidden` or not."""

  shop = types.ModuleType("shop")
  shop.sale, shop.scale, shop.by, shop.hidden = sale, scale, both, both
  shop.__all__ = ["by", "sale", "scale"]
  found = explained(shop, [None, {"at": 1}, {"fn": "sale", "base": ({"fn": "sale"},)}])
  assert list(found) == ["sale", "scale"]
  assert found["sale"].startswith("`scale`")
