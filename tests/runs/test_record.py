from qpeft.runs.record import held_out_ends

MEASURED = {"steps": 6, "before": {"loss": 3.0}, "after": {"loss": 2.0}}


def test_a_loss_after_training_belongs_to_the_step_whose_adapter_was_kept():
    best = {"step": 4, "loss": 2.0}
    assert held_out_ends(MEASURED | {"best": best | {"kept": True}}) == {0: 3.0, 4: 2.0}
    assert held_out_ends(MEASURED | {"best": best | {"kept": False}}) == {0: 3.0, 6: 2.0}


def test_what_was_not_measured_is_left_out():
    assert held_out_ends(MEASURED | {"before": None}) == {6: 2.0}
    assert held_out_ends({"steps": 6, "before": None, "after": None, "best": None}) == {}
