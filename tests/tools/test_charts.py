"""SVG charts: ticks, lines and histograms."""

from ember_reid.tools.common.charts import Line, histogram, line_chart, ticks


def test_ticks_are_round():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.3, 7.2) == [2, 4, 6]
    assert ticks(-3, 3) == [-2, 0, 2]
    assert ticks(0, 3.5e-4) == [0, 0.0001, 0.0002, 0.0003]


def test_lines_end_in_the_corners():
    chart = line_chart("mAP", [Line("a<b", ((0.0, 0.0), (10.0, 1.0)))], x="epoch", percent=True)
    assert '<polyline points="46.0,186.0 350.0,10.0"' in chart and "a&lt;b: 100% at 10" in chart
    # Epochs count from 0.
    only = line_chart("mAP", [Line("a", ((6.0, 0.5),))], x="epoch", percent=True)
    assert '<circle cx="350.0" cy="98.0"' in only
    assert (
        line_chart("nothing", [Line("a", ()), Line("b", ((1.0, float("nan")),))], x="epoch") == ""
    )


def test_histograms_are_shares():
    chart = histogram("d", [0, 1, 2], {"same": [3, 1], "different": [0, 10]}, x="distance")
    # The highest share is 1 (different, second bin), 10 px from the top.
    # 3/4 of the same pairs are at 186 - 0.75 * 176 = 54.
    assert (
        chart.count("<polygon") == 2
        and "46.0,54.0 198.0,54.0" in chart
        and "198.0,10.0 350.0,10.0" in chart
    )
    assert histogram("d", [0, 1], {"same": [0]}, x="distance") == ""
