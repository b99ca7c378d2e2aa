"""Recipes as tables: for a terminal, and in Markdown, with published recalls and ours."""

from __future__ import annotations

from crossmodal.recipes.recipes import PublishedRecalls, Recalls, Recipe, Reproduction

PROTOCOLS = {
    ("Flickr30k", "all"): "Flickr30k, 1,000 test images",
    ("COCO", "folds"): "COCO 1K, mean of five folds of 1,000 test images",
    ("COCO", "all"): "COCO 5K, 5,000 test images",
    ("Flickr8k", "all"): "Flickr8k, 1,000 test images",
}
SEEN = "test captions seen"  # by the encoders before
HEADER = ("recipe", "features", "words", "i2t R@1/5/10", "ours", "t2i R@1/5/10", "ours", "rsum", "ours", SEEN)


def listing(reproduction: Reproduction) -> str:
    """A line a recipe, with its published rsum and ours, in columns."""
    rows = [("recipe", "dataset", "features", "words", "rsum", "ours", SEEN)]
    for name, recipe in reproduction.all_recipes.items():
        rsums = [
            " / ".join(_rsum(recalls) or "R@1, R@5 alone" for recalls in some.values())
            for some in (recipe.published, _ours(recipe))
        ]
        rows.append((name, recipe.dataset, recipe.features, recipe.words, *rsums, _seen(recipe)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join([*lines, "", "rsum of COCO: 1K / 5K. Settings: crossmodal recipe NAME"])


def markdown(reproduction: Reproduction) -> str:
    """Markdown tables, one a protocol; empty where a recipe was not run."""
    blocks = []
    for (dataset, protocol), title in PROTOCOLS.items():
        rows = [
            _row(name, recipe, recipe.published.get(protocol), _ours(recipe).get(protocol))
            for name, recipe in reproduction.all_recipes.items()
            if recipe.dataset == dataset and recipe.expected
        ]
        if rows:
            lines = (f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *rows))
            blocks += [f"{title}:", "\n".join(lines)]
    pointing = [(name, recipe) for name, recipe in reproduction.all_recipes.items() if recipe.pointing]
    if pointing:
        header = ("recipe", "features", "words", "pointing accuracy")
        rows = [
            (f"`{name}`", recipe.features, recipe.words, f"{recipe.pointing.centre:.2f}") for name, recipe in pointing
        ]
        lines = (f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
        blocks += ["Flickr30k Entities, phrases of its 1,000 test images, as published:", "\n".join(lines)]
    marked = any(recalls.ensemble for recipe in reproduction.recipes.values() for recalls in recipe.published.values())
    return "\n\n".join([*blocks, "\\* of two models with averaged similarities"] if marked else blocks)


def comparison(expected: Recalls | PublishedRecalls, found: Recalls, label: str) -> str:
    """Expected recalls, those of a run and the difference, in columns; empty where R@10 is not published."""
    lines = [f"{'':12}{'i2t R@1':>9}{'R@5':>7}{'R@10':>7}{'t2i R@1':>9}{'R@5':>7}{'R@10':>7}{'rsum':>8}"]
    pairs = list(zip(_values(expected), _values(found), strict=True))
    differences = [None if a is None else b - a for a, b in pairs]
    rows = {label: [a for a, _ in pairs], "this run": [b for _, b in pairs], "difference": differences}
    for name, values in rows.items():
        sign = "+" if name == "difference" else ""
        cells = (
            " " * width if value is None else f"{value:{sign}{width}.1f}"
            for value, width in zip(values, (9, 7, 7, 9, 7, 7, 8), strict=True)
        )
        lines.append(f"{name:12}{''.join(cells)}")
    return "\n".join(lines)


def _ours(recipe: Recipe) -> dict[str, Recalls]:
    return recipe.ours.figures if recipe.ours else {}


def _row(name: str, recipe: Recipe, published: PublishedRecalls | None, ours: Recalls | None) -> list[str]:
    mark = "\\*" if getattr(published, "ensemble", False) else ""
    cells = [f"`{name}`", recipe.features, recipe.words]
    for way in ("i2t", "t2i"):
        cells += [
            " ".join(f"{value:.1f}" for value in getattr(some, way)) if some else "" for some in (published, ours)
        ]
    return [*cells, f"{_rsum(published)}{mark}", _rsum(ours), _seen(recipe)]


def _seen(recipe: Recipe) -> str:
    return str(recipe.overlap) if recipe.overlap else ""


def _rsum(recalls: Recalls | PublishedRecalls | None) -> str:
    return "" if recalls is None or recalls.rsum is None else f"{recalls.rsum:.1f}"


def _values(recalls: Recalls | PublishedRecalls) -> list[float | None]:
    ways = [[*way, None][:3] for way in (recalls.i2t, recalls.t2i)]
    return [*ways[0], *ways[1], recalls.rsum]
