"""A config's fn becomes the function it names, or an error that names the field."""

import types

import pytest

from lcrl.named import build, explained, resolve


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


def test_explained_goes_on_to_what_docstrings_name_but_not_to_arguments():
  def sale(by):
    """`scale`, `by` so much, `hidden` or not."""

  shop = types.ModuleType("shop")
  shop.sale, shop.scale, shop.by, shop.hidden = sale, scale, both, both
  shop.__all__ = ["by", "sale", "scale"]
  found = explained(shop, [None, {"at": 1}, {"fn": "sale", "base": ({"fn": "sale"},)}])
  assert list(found) == ["sale", "scale"]
  assert found["sale"].startswith("`scale`")
