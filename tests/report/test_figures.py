import math

from squad_lit.report.figures import table


def row(value: float, **more: object) -> dict[str, object]:
    return dict.fromkeys(("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro"), value) | more


def lines(figures: dict[str, object]) -> list[list[str]]:
    return [line.split() for line in table(figures).splitlines()]


def test_one_category_has_a_line_for_each_kind_of_defect_and_one_for_all():
    kinds = {"cut": row(0.5), "hole": row(0.25)}
    found = lines(row(1.0, per_defect=kinds, psnr=30.25, **{"seconds/train": 12.0}))
    assert found[1] == ["cut", "50.0", "50.0", "50.0", "50.0"]
    assert found[2][0] == "hole"
    assert found[3] == ["all", "100.0", "100.0", "100.0", "100.0"]
    assert found[5:] == [["psnr", "30.250"], ["seconds/train", "12.000"]]


def test_a_single_kind_is_not_said_twice():
    assert [line[0] for line in lines(row(1.0, per_defect={"cut": row(1.0)}))[1:2]] == ["all"]


def test_a_mean_says_over_how_many_categories():
    each = {"a": row(0.5), "b": row(0.7, pixel_ap=math.nan)}
    averaged = {"image_auroc": 2, "pixel_auroc": 2, "pixel_ap": 1, "pixel_aupro": 2}
    found = table(row(0.6, pixel_ap=0.5, per_category=each, categories_averaged=averaged)).splitlines()
    assert found[2].split() == ["b", "70.0", "70.0", "nan", "70.0"]
    assert found[3].split() == ["mean", "of", "2", "60.0", "60.0", "50.0", "(of", "1)", "60.0"]


def test_an_interval_stands_beside_its_value():
    text = table(row(0.984, interval={"pixel_ap": [0.971, 0.99]}))
    assert "98.4 [97.1, 99.0]" in text
    assert len({len(line) for line in text.splitlines()[:2]}) == 1
