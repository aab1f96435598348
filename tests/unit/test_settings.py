"""Test that every variable is read, and that the error for a bad one names it."""

from dataclasses import fields

import pytest
from kling_relay.settings import Settings, SettingsError

NUMBERS = [field.name for field in fields(Settings) if field.type is not str]
TEXTS = [field.name for field in fields(Settings) if field.type is str]


def test_nothing_is_needed_to_start() -> None:
    assert Settings.read({}) == Settings() == Settings.read({name.upper(): "" for name in NUMBERS + TEXTS})
    assert Settings.read({"UNKNOWN": "x", "task_table": "x"}) == Settings()


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str) -> None:
    assert getattr(Settings.read({name.upper(): "a value"}), name) == "a value"


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    value = getattr(Settings.read({name.upper(): "7"}), name)
    assert value == 7
    assert type(value) is type(getattr(Settings(), name))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1,5", "0x10", " ", "1e999", "9" * 5000])
def test_a_bad_number_names_its_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=rf"\A{name.upper()}: must be a (whole )?number, 0 or more \(got '"):
        Settings.read({name.upper(): text})


def test_whole_numbers_are_whole() -> None:
    with pytest.raises(SettingsError, match="SETTLE_SECONDS: must be a whole number"):
        Settings.read({"SETTLE_SECONDS": "1.5"})
    assert Settings.read({"WAIT_SCALE": "0.05"}).scaled_ms(20) == 1000


def test_what_is_needed_and_missing() -> None:
    assert Settings(task_table="t").need("task_table") == "t"
    with pytest.raises(SettingsError, match=r"VIDEO_BUCKET is not set for this function; check .* template.yaml"):
        Settings().need("video_bucket")
