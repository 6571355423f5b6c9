"""The curves as PNG files, through matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .textplot import Curve


def draw(title: str, ours: Mapping[str, Curve], others: Mapping[str, Curve], path: Path) -> None:
    """Write a picture: ours as lines, the others as points.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, curve in ours.items():
        axes.plot([size for size, _ in curve], [percent for _, percent in curve], marker=".", label=name)
    for (name, curve), marker in zip(others.items(), "vs^Dx+*P" * 3, strict=False):
        axes.scatter([size for size, _ in curve], [percent for _, percent in curve], marker=marker, s=24, label=name)
    axes.set(title=title, xscale="log", xlabel="entries", ylabel="hit ratio, percent")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def file_name(title: str) -> str:
    """Return a file name made of a workload's name."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in title) + ".png"


def draw_all(curves: Mapping[str, tuple[Mapping[str, Curve], Mapping[str, Curve]]], folder: Path) -> Sequence[Path]:
    """Write a picture for each workload and return where.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for title, (ours, others) in curves.items():
        paths.append(folder / file_name(title))
        draw(title, ours, others, paths[-1])
    return paths
