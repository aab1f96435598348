"""Test a provider's admission: the latest information closes or opens it."""

from kling_relay.provider.admission import Admission

from tests.support.stack_in_memory import World


def test_gate(world: World) -> None:
    admissions = world.services.admissions
    assert admissions.get("kling") == Admission()
    admissions.open("kling", Admission())
    assert admissions.get("kling") == Admission()
    admissions.close("kling", Admission(), not_before=1000, reason="full")
    closed = admissions.get("kling")
    assert closed == Admission(1000, 0, "full", crowded=1)
    admissions.close("kling", closed, not_before=900, reason="shorter")
    assert admissions.get("kling") == closed
    for failures in (1, 2):
        admissions.close("kling", admissions.get("kling"), not_before=1000 + failures, reason="poor", cause="account")
        assert admissions.get("kling") == Admission(1000 + failures, failures, "poor", cause="account", crowded=1)
    admissions.close("kling", admissions.get("kling"), not_before=2000, reason="longer")
    admissions.open("kling", closed)
    assert admissions.get("kling") == Admission(2000, 0, "longer", crowded=1), "closed anew since it was read"
    admissions.mark_unknown("kling", 2500)
    assert admissions.get("kling").not_before == 2000, "that pause says already that nobody knows of room"
    admissions.record_turn("kling", "acme")
    admissions.open("kling", admissions.get("kling"), crowded=True)
    assert admissions.get("kling") == Admission(0, 0, "longer", crowded=1, turn="acme")
    admissions.open("kling", admissions.get("kling"))
    assert admissions.get("kling") == Admission(0, 0, "longer", turn="acme")
    admissions.mark_unknown("kling", 2500)
    assert admissions.get("kling") == Admission(2500, 0, "longer", crowded=1, turn="acme")
    admissions.record_turn("other", "acme")
    assert admissions.get("other") == Admission()
