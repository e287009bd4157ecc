"""The leaderboard as one HTML file that asks nothing of any network.

Its style, its script and its pictures are inside, and a content policy forbids everything else. Names of
runs are other people's text: they are escaped here, and the script puts them into the page as text only.
"""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from hvc.evaluation.leaderboard.board import Board, Entry, Group, Picture
from hvc.evaluation.leaderboard.text import day, figure
from hvc.evaluation.metrics.measures import MAIN, label

Fetch = Callable[[Picture], bytes | None]
"""The bytes of a picture; None where it is gone."""

MOST_BYTES = 16_000_000
"""Of all pictures together, as they stand in the file."""
RICH = 12
"""So many measured entries of a group have curves and pictures in the file."""
_STRIPS = 3
_WIDTH = 1100
_MOST_POINTS, _MOST_MEASURES = 60, 6
_HERE = Path(__file__).parent


def page(board: Board, where: str, fetch: Fetch, now: float, most_bytes: int = MOST_BYTES) -> str:
    """The whole file.

    Args:
        board: what to show.
        where: MLflow's address without its password.
        fetch: brings pictures.
        now: seconds since 1970.
        most_bytes: of all pictures together.
    """
    style = (_HERE / "leaderboard.css").read_text()
    script = (_HERE / "leaderboard.js").read_text()
    album = _Album(fetch, most_bytes)
    facts: dict[str, Any] = {}
    groups = [_section(number, group, facts, album) for number, group in enumerate(board.groups)]
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>hvc leaderboard</title>\n<style>{style}</style>\n</head>\n<body>",
            "<header><div><h1>hvc leaderboard</h1>",
            f'<p class="soft">{_e(where)} · {when}</p></div>',
            '<p><button type="button" class="theme">dark / light</button></p></header>',
            '<p class="note">Tables differ in benchmark, protocol or files (data): a number of one is not '
            "to be compared with a number of another. Published figures have protocols of their own.</p>",
            _form(board),
            f"<main>\n{chr(10).join(groups) or '<p>Nothing is evaluated yet.</p>'}",
            _unscored(board),
            "</main>",
            f'<script type="application/json" id="facts">{_json(facts)}</script>',
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _form(board: Board) -> str:
    benchmarks = list(dict.fromkeys(group.benchmark for group in board.groups))
    presets = sorted({group.preset for group in board.groups if group.preset})
    kinds = (("run", "runs"), ("baseline", "baselines"), ("published", "published figures"))
    boxes = "".join(
        f'<label><input type="checkbox" name="kind" value="{kind}" checked> {words}</label>'
        for kind, words in kinds
    )
    return (
        f'<form aria-label="filter"><label>benchmark {_select("benchmark", benchmarks)}</label>'
        f"<label>protocol {_select('preset', presets)}</label>"
        '<label>find <input type="search" name="words" autocomplete="off"></label>'
        f'{boxes}<output id="said" aria-live="polite"></output></form>'
    )


def _select(name: str, values: Sequence[str]) -> str:
    options = "".join(f'<option value="{_e(value)}">{_e(value)}</option>' for value in values)
    return f'<select name="{name}"><option value="">all</option>{options}</select>'


def _section(number: int, group: Group, facts: dict[str, Any], album: "_Album") -> str:
    measures = group.measures
    stepped = any(entry.steps > 1 for entry in group.entries)
    measured = any(entry.kind != "published" for entry in group.entries)
    head = [_head("#", "n", "data-rising"), _head("name")]
    head += [_head("step", "n")] if measured else []
    head += [
        _head(label(name), "n", 'aria-sort="descending"' if not place else "")
        for place, name in enumerate(measures)
    ]
    head += [_head("last step's", "n")] if stepped else []
    head += [_head("state"), _head("evaluated")] if measured else []
    head += [_head("remark")]
    rows, rich = [], 0
    for place, entry in enumerate(group.entries, 1):
        key = f"g{number}e{place}"
        opener = ""
        if entry.kind != "published":
            rich += 1
            facts[key] = _facts(group, entry, album if rich <= RICH else None)
            opener = (
                f'<button type="button" class="open" data-fact="{key}" aria-expanded="false" '
                f'aria-controls="{key}" aria-label="details of {_e(entry.name)}"></button>'
            )
        cells = [
            f'<td class="n" data-value="{place}">{place}</td>',
            _name(entry, opener),
        ]
        cells += [_step(entry.step)] if measured else []
        cells += [_score(entry.scores.get(name), not index) for index, name in enumerate(measures)]
        cells += [_last(entry)] if stepped else []
        cells += [_state(entry.state), _day(entry.evaluated)] if measured else []
        cells += [f'<td class="remark">{_e(entry.remark)}</td>']
        rows.append(f'<tr class="entry" data-kind="{entry.kind}">{"".join(cells)}</tr>')
        if opener:
            rows.append(f'<tr class="details" id="{key}" hidden><td colspan="{len(head)}"></td></tr>')
    title = _e(group.title)
    return (
        f'<section class="group" data-benchmark="{_e(group.benchmark)}" data-preset="{_e(group.preset)}">'
        f"<h2>{title}</h2>{_protocol(group)}"
        f'<div class="wide"><table><caption class="vh">{title}; columns sort</caption>'
        f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>{chr(10).join(rows)}</tbody></table></div></section>"
    )


def _protocol(group: Group) -> str:
    if not group.protocol:
        return ""
    words = ", ".join(f"{key} {json.dumps(value)}" for key, value in group.protocol.items())
    return f'<p class="note">{_e(words)}</p>'


def _head(words: str, classes: str = "", more: str = "") -> str:
    named = f' class="{classes}"' if classes else ""
    return f'<th scope="col"{named} {more}><button type="button">{_e(words)}</button></th>'


def _name(entry: Entry, opener: str) -> str:
    tag = "" if entry.kind == "run" else f' <span class="tag">{entry.kind}</span>'
    short = f' <span class="soft">{_e((entry.run_id or "")[:8])}</span>' if entry.run_id else ""
    return f'<td class="name">{opener}{_e(entry.name)}{short}{tag}</td>'


def _step(value: int | None) -> str:
    return '<td class="n"></td>' if value is None else f'<td class="n" data-value="{value}">{value:,}</td>'


def _score(value: float | None, headline: bool) -> str:
    classes = "n headline" if headline else "n"
    known = f' data-value="{value}"' if value is not None and math.isfinite(value) else ""
    return f'<td class="{classes}"{known}>{figure(value)}</td>'


def _last(entry: Entry) -> str:
    if entry.steps < 2 or entry.last is None:
        return '<td class="n"></td>'
    known = f' data-value="{entry.last}"' if math.isfinite(entry.last) else ""
    return f'<td class="n"{known}>{figure(entry.last)} <span class="soft">@{entry.last_step:,}</span></td>'


def _unscored(board: Board) -> str:
    if not board.unscored:
        return ""
    rows = "".join(
        f'<tr><td class="name">{_e(run.name)} <span class="soft">{_e(run.run_id[:8])}</span></td>'
        f"<td>{_e(run.experiment)}</td>{_state(run.state)}{_day(run.started)}</tr>"
        for run in board.unscored
    )
    heads = "".join(f'<th scope="col">{word}</th>' for word in ("name", "experiment", "state", "begun"))
    count = len(board.unscored)
    return (
        f"<section><h2>{count:,} run{'' if count == 1 else 's'} without a score</h2>"
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</section>"
    )


def _day(seconds: float | None) -> str:
    return f'<td class="day">{day(seconds)}</td>'


def _state(state: str) -> str:
    return f"<td{' class=failed' if state == 'failed' else ''}>{_e(state)}</td>"


def _facts(group: Group, entry: Entry, album: "_Album | None") -> dict[str, Any]:
    """What a row shows when it is opened."""
    sequences = {
        name: values
        for name, values in entry.report.get("per_sequence", {}).items()
        if isinstance(values, dict)
    }
    curves = entry.report.get("curves", {}) if album else {}
    curves = {
        name: {measure: thinned(values) for measure, values in by_measure.items() if "/" not in measure}
        for name, by_measure in curves.items()
    }
    objects = entry.report.get("per_object", {}) if album else {}
    pictures = album.pictures(group, entry) if album else []
    gone = "Pictures of this evaluation are at MLflow, in the run's artifacts."
    said = {
        "run": entry.run_id,
        "experiment": entry.experiment,
        "checkpoint": entry.checkpoint,
        "step": f"{entry.step:,}" + (f", the best of {entry.steps:,} evaluated" if entry.steps > 1 else ""),
        "data": group.digest,
    }
    known = {name for values in sequences.values() for name in values}
    measures = [group.headline, *MAIN, *sorted(known)]
    curved = {name for values in curves.values() for name in values}
    return {
        "headline": group.headline,
        "measures": [name for name in dict.fromkeys(measures) if name in known][:_MOST_MEASURES],
        "labels": {name: label(name) for name in sorted({*known, *curved, group.headline})},
        "facts": [[key, value] for key, value in said.items() if value],
        "history": [[step, value] for step, value in entry.history],
        "per_sequence": sequences,
        "per_object": {key: _main(values, group.headline) for key, values in objects.items()},
        "curves": curves,
        "pictures": pictures,
        "more": gone if entry.pictures and len(pictures) < len(entry.pictures) else "",
    }


def _main(values: Any, headline: str) -> float | None:
    """One number of an object's: the headline, else the mean of J and F, else its first."""
    if headline in values:
        return float(values[headline])
    if {"j_mean", "f_mean"} <= set(values):
        return (float(values["j_mean"]) + float(values["f_mean"])) / 2
    return next((float(value) for value in values.values()), None)


def thinned(values: Sequence[float], most: int = _MOST_POINTS) -> list[float]:
    """At most `most` values: each the mean of its share of neighbours."""
    size = -(-len(values) // most) or 1
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [round(sum(part) / len(part), 1) for part in parts]


class _Album:
    """Pictures for the page, smaller than at MLflow, until the file is large enough."""

    def __init__(self, fetch: Fetch, most_bytes: int) -> None:
        self._fetch, self._left = fetch, most_bytes

    def pictures(self, group: Group, entry: Entry) -> list[dict[str, str]]:
        """The overview, and the film strips of the worst sequences."""
        named = {picture.name: picture for picture in entry.pictures}
        scores = entry.report.get("per_sequence", {})

        def score(name: str) -> float:
            values = scores[name]
            return float(values.get(group.headline, math.inf) if isinstance(values, dict) else values)

        worst = sorted(scores, key=score)[:_STRIPS]
        wanted = [
            ("overview.png", "all sequences, worst first: the last frame and the curve over the frames")
        ]
        wanted += [(f"{name}.png", f"{name}: propagated, above the truth") for name in worst]
        made = []
        for file, words in wanted:
            data = self._embedded(named[file]) if file in named else None
            if data is not None:
                made.append({"data": data, "words": words})
        return made

    def _embedded(self, picture: Picture) -> str | None:
        if self._left <= 0:
            return None
        content = self._fetch(picture)
        if content is None:
            return None
        data = _small(content)
        if data is None or len(data) > self._left:
            return None
        self._left -= len(data)
        return data


def _small(content: bytes) -> str | None:
    """A picture as a data URI; None where it is none."""
    try:
        with Image.open(BytesIO(content)) as image:
            height = max(1, round(image.height * min(1, _WIDTH / image.width)))
            small = image.convert("RGB").resize(
                (min(_WIDTH, image.width), height), Image.Resampling.LANCZOS
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _json(value: Any) -> str:
    """JSON that no `</script>` can end, without numbers that are none."""
    return json.dumps(_clean(value), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    if isinstance(value, float):
        return round(value, 2) if math.isfinite(value) else None
    return value


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _e(text: str) -> str:
    return escape(text, quote=True)
