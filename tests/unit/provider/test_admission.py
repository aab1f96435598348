"""A provider's gate: closed and opened by whoever knows of it last."""

from kling_relay.provider.admission import Gate

from tests.support.stack_in_memory import World


def test_gate(world: World) -> None:
    gates = world.relay.gates
    assert gates.get("kling") == Gate()
    gates.open("kling", Gate())
    assert gates.get("kling") == Gate()
    gates.close("kling", Gate(), not_before=1000, reason="full")
    closed = gates.get("kling")
    assert closed == Gate(1000, 0, "full", crowded=1)
    gates.close("kling", closed, not_before=900, reason="shorter")
    assert gates.get("kling") == closed
    for failures in (1, 2):
        gates.close("kling", gates.get("kling"), not_before=1000 + failures, reason="poor", cause="account")
        assert gates.get("kling") == Gate(1000 + failures, failures, "poor", cause="account", crowded=1)
    gates.close("kling", gates.get("kling"), not_before=2000, reason="longer")
    gates.open("kling", closed)
    assert gates.get("kling") == Gate(2000, 0, "longer", crowded=1), "closed anew since it was read"
    gates.doubt("kling", 2500)
    assert gates.get("kling").not_before == 2000, "that pause says already that nobody knows of room"
    gates.give_turn("kling", "acme")
    gates.open("kling", gates.get("kling"), crowded=True)
    assert gates.get("kling") == Gate(0, 0, "longer", crowded=1, turn="acme")
    gates.open("kling", gates.get("kling"))
    assert gates.get("kling") == Gate(0, 0, "longer", turn="acme")
    gates.doubt("kling", 2500)
    assert gates.get("kling") == Gate(2500, 0, "longer", crowded=1, turn="acme")
    gates.give_turn("other", "acme")
    assert gates.get("other") == Gate()
