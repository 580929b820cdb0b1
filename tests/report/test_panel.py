"""Choices made by hand."""

import random

from squad_lit.report.panel import Panel, choose, name_all


def panels(*scores: tuple[str, int, float], folder: str = "x") -> list[Panel]:
    return [
        Panel(i, f"{folder}/{i:03}.png", "bottle", defect, label, score)
        for i, (defect, label, score) in enumerate(scores)
    ]


MADE = [("cut", 1, 9.0), ("cut", 1, 1.0), ("hole", 1, 5.0), ("good", 0, 0.5), ("good", 0, 3.0), ("good", 0, 2.0)]


def test_the_first_of_each_kind_and_the_worst_of_each_category_are_chosen():
    chosen = {p.index: list(p.choice) for p in choose(panels(*MADE), per_defect=1, worst=1)}
    assert chosen == {0: ["first"], 1: ["lowest anomalous"], 2: ["first"], 3: ["first"], 4: ["highest normal"]}


def test_choosing_batch_by_batch_and_in_any_order_is_choosing_from_all():
    rng = random.Random(0)
    made = [("good" if rng.random() < 0.5 else "cut", 0, rng.random()) for _ in range(60)]
    everything = panels(*[(kind, int(kind != "good"), score) for kind, _, score in made])
    whole = [(p.index, list(p.choice)) for p in choose(everything, per_defect=2, worst=3)]
    assert len(whole) <= 2 * (2 + 3)
    shuffled = rng.sample(everything, len(everything))
    kept: list[Panel] = []
    for at in range(0, 60, 7):
        kept = choose([*kept, *shuffled[at : at + 7]], per_defect=2, worst=3)
    assert [(p.index, list(p.choice)) for p in kept] == whole


def test_the_verdict_is_that_of_the_threshold_and_not_of_the_rank():
    made = panels(*MADE)
    assert {p.verdict for p in made} == {""}
    for p in made:
        p.threshold = 2.0  # a score at the threshold is no alarm
    assert [p.verdict for p in made] == ["detected", "missed", "detected", "passed", "false alarm", "passed"]


def test_names_are_of_their_own():
    made = panels(*MADE[3:])
    made[0].image_path, made[1].image_path, made[2].image_path = "a/000.png", "a/000.jpg", "b/000.png"
    name_all(made)
    assert [p.name for p in made] == ["bottle_good_000_0.png", "bottle_good_000.jpg.png", "bottle_good_000_2.png"]


def test_names_as_long_as_can_be_have_room_and_stay_apart() -> None:
    names = [f"{'a' * 250}{end}.png" for end in "12"] + [f"{'é' * 125}.bmp"]
    made = [Panel(i, f"/parts/{name}", "cap", "good", 0, 1.0) for i, name in enumerate(names)]
    name_all(made)
    assert len({p.name for p in made}) == 3
    assert all(len(p.name.encode()) <= 255 and p.name.startswith("cap_good_") for p in made)
