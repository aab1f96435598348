"""Test the generated mutants, and that the explained survivors exist."""

import json

import pytest

from tests.reliability.mutants import described, mutant
from tests.reliability.mutate import EXPLAINED, TESTS, source_of

SOURCE = '''
"""Words."""
LIMIT = 5

def check(size: int, *, strict: bool = True) -> str:
    """Words."""
    logger.info("sized", extra={"size": size})
    if size > LIMIT and not strict:
        raise KlingError(1201, f"too long: {size}")
    put(size, condition="new")
    return "a" + name
'''
EXPECTED = [
    ("", "5  ->  6"),
    ("", "True  ->  False"),
    ("check", "size > LIMIT and (not strict)  ->  size > LIMIT or not strict"),
    ("check", "size > LIMIT  ->  size >= LIMIT"),
    ("check", "not strict  ->  strict"),
    ("check", "raise KlingError(1201, f'too long: {size}')  ->  (left out)"),
    ("check", "1201  ->  1202"),
    ("check", "put(size, condition='new')  ->  (left out)"),
    ("check", "put(size, condition='new')  ->  put(size)"),
    ("check", "'new'  ->  ''"),
    ("check", "return 'a' + name  ->  return None"),
    ("check", "'a' + name  ->  'a' - name"),
    ("check", "'a'  ->  ''"),
]


def test_what_is_changed_and_what_is_not() -> None:
    assert described(SOURCE) == EXPECTED


def test_a_mutant_has_one_change() -> None:
    one = mutant(SOURCE, 3)
    assert (one.function, one.change, one.line) == ("check", "size > LIMIT  ->  size >= LIMIT", 8)
    told: dict[str, object] = {"logger": None, "name": "b", "put": lambda *_, **__: None, "KlingError": OverflowError}
    exec(compile(one.module, "mutant", "exec"), told)
    told["logger"] = type("Logger", (), {"info": staticmethod(lambda *_, **__: None)})
    with pytest.raises(OverflowError):
        told["check"](5, strict=False)  # type: ignore[operator]


@pytest.mark.parametrize("module", TESTS)
def test_explained_survivors_are_mutants_of_the_code_as_it_is(module: str) -> None:
    mutants = described(source_of(module))
    for one in json.loads(EXPLAINED.read_text()).get(module, []):
        assert (one["in"], one["change"]) in mutants, f"no longer there: {one}"
        assert len(one["why"]) > 10
