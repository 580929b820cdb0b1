"""Pixels and lines placed by hand."""

import numpy as np

from squad_lit.report.curve import curve_figure, histogram


def test_histogram_marks_the_highest_values():
    picture = histogram([0.0] * 50 + [10.0], 1, "score")
    assert picture.shape == (240, 640, 3)
    red = (picture[..., 0] > 180) & (picture[..., 1] < 80)
    grey = (np.ptp(picture.astype(int), axis=2) == 0) & (picture[..., 0] > 100) & (picture[..., 0] < 200)
    assert np.flatnonzero(red.sum(0) > 50).min() > 500  # the line stands at the right end
    assert grey[:, :320].sum(0).max() > 1.5 * grey[:, 320:].sum(0).max() > 30  # 50 values at the left, one at the right


def test_curve_figure_draws_a_line_for_each_label_with_its_curve():
    line = ([0.0, 0.5, 1.0], [0.0, 1.0, 1.0])
    lines = {"a": {"image_roc": line, "pixel_pro": line}, "b": {"image_roc": line}}
    figure = curve_figure(lines, {"a": "red", "b": "blue"})
    first, second = figure.axes
    assert [(drawn.get_label(), drawn.get_color()) for drawn in first.lines] == [("a", "red"), ("b", "blue")]
    assert first.lines[0].get_xydata().tolist() == [[0, 0], [0.5, 1], [1, 1]]
    assert (second.get_xlabel(), second.get_ylabel(), len(second.lines)) == ("false positive rate", "region overlap", 1)
