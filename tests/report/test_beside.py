"""Several metrics of the same runs in one table."""

from rich.console import Console

from sslrun.report.beside import beside


def printed(table, capsys):
    Console(width=200).print(table)
    return {line.split("  ")[0]: line.split("  ")[1:] for line in capsys.readouterr().out.splitlines()}


def test_metrics_stand_beside_each_other_and_missing_ones_are_left_out(make, capsys):
    for seed, (nmi, matched) in enumerate([(0.5, 0.7), (0.6, 0.9)]):
        rows = {"trained": {"cluster/nmi": nmi, "mixture/accuracy": matched}, "trivial": {"cluster/nmi": 0.0}}
        rows["model"] = {"cluster/nmi": 0.1}  # a hundred clusters of its own, where every method has ten
        make("simclr", seed, results=rows, primary="cluster/nmi")
        make("kmeans", seed, results={"model": {"cluster/nmi": 0.4}}, primary="cluster/nmi")
    shown = printed(beside(make.root, ["cluster/nmi", "mixture/accuracy", "graph/accuracy"]), capsys)
    assert [c.strip() for c in shown["simclr"] if c.strip()] == ["0.550 ± 0.071", "80.0 ± 14.1"]
    assert [c.strip() for c in shown["kmeans"] if c.strip()] == ["0.400 ± 0.000", "-"]
    assert any(name.startswith("trivial") for name in shown) and "graph" not in str(shown)
    assert beside(make.root, ["graph/accuracy"]) is None
