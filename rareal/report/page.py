"""A run as one HTML page: text, tables, figures and the turnable molecule in one file that asks for no other.

Nothing on it needs JavaScript but turning the molecule. A content security policy in its head has the browser refuse
whatever might still want the network. All text from the run (names, notes, paths) is escaped.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import matplotlib
import numpy as np
import yaml
from matplotlib.figure import Figure

from rareal.report import accounts, style
from rareal.report.molecule import Molecule, drawings, molecule
from rareal.report.plots import Kind
from rareal.report.reading import left_out, number
from rareal.report.rundata import RunData
from rareal.units import KCAL_MOL

ASSETS = files("rareal.report") / "assets"
VIEWER, LICENCE = "3Dmol-min.js", "3Dmol-LICENSE.txt"
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
LARGEST_SVG, MOST_POINTS = 120_000, 4000
"""Bytes, and points of curves and clouds: a drawing with more is smaller as pixels."""

DOTS_PER_INCH = 130
SECTIONS = {
    "barrier": ("Barrier", ("barrier_convergence",)),
    "curves": ("Work and energy curves", ("work", "profile", "free_energy", "barrier_time")),
    "molecule": ("The molecule", ()),
    "path": ("Held against the label engine", ("path", "rupture")),
    "uncertainty": ("Uncertainty", ("uncertainty_cv", "uncertainty")),
    "errors": ("Errors of the last committee", (
        "parity_unseen", "calibration_unseen", "parity", "calibration")),
    "learning": ("Training", ("learning",)),
    "labels": ("Labels", ("labels",)),
    "cost": ("Time and cost", ("cost",)),
    "provenance": ("Versions, seeds, configuration", ()),
}  # fmt: skip
"""Headings and figures, in order."""

ROUND_COLUMNS = (
    ("round", "Round", "", "d"),
    ("labels", "Labels", "bought so far", "d"),
    ("barrier_eV", "Barrier", "eV", ".3f"),
    ("barrier_se_eV", "s.e.", "eV", ".3f"),
    ("reference_eV", "Reference", "eV", ".3f"),
    ("error_kcal_mol", "Error", "kcal/mol", "+.2f"),
    ("path_error_kcal_mol", "Path error", "kcal/mol", ".2f"),
    ("path_error_se_kcal_mol", "s.e.", "kcal/mol", ".2f"),
    ("rupture_energy_eV", "E_max, rupture", "eV", ".3f"),
    ("rupture_energy_error_kcal_mol", "Error", "kcal/mol", "+.2f"),
    ("rupture_force_error_percent", "F_max error", "%", "+.2f"),
    ("rupture_bond", "Bond", "that goes", ""),
    ("met", "Limits met", "", ""),
)
"""What the table of rounds shows of ``rounds.csv``: column, heading, unit, format; all else is in the CSV."""


def page(
    run: RunData,
    state: Mapping[str, Any],
    provenance: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    notes: Sequence[str] = (),
) -> str:
    """The page as text.

    Parameters
    ----------
    run : the run folder.
    state : what `rareal.status.status` says of it.
    provenance : ``provenance.json``.
    kinds : the plots, by name; `SECTIONS` says where each goes.
    notes : what the reader should know besides.
    """
    # files are read as they are needed: what is damaged is known only when all is drawn
    with left_out() as damaged, matplotlib.rc_context(style.STYLE):
        shown = {name: _figure(kind, run) for name, kind in kinds.items()}
        found = molecule(run)
        bodies = {
            "barrier": _rounds(run) + _said(run),
            "molecule": _molecule(found),
            "labels": _labels(run, state),
            "cost": _cost(run, provenance),
            "provenance": _provenance(run, provenance),
        }
        summary = _summary(run, state)
    parts, links = [], []
    for key, (title, names) in SECTIONS.items():
        body = "".join(shown.get(name, "") for name in names) + bodies.get(key, "")
        if not body:
            continue
        links.append(f'<a href="#{key}">{escape(title)}</a>')
        parts.append(f'<section id="{key}"><h2>{escape(title)}</h2>{body}</section>')
    name = escape(str(state["name"]))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: rareal report</title>\n<style>{_asset('report.css')}</style></head>\n<body>\n"
        f"<header><h1>{name}</h1>{_lead(run, state)}</header>\n{_notices(state, [*notes, *damaged])}{summary}"
        f"<nav>{''.join(links)}</nav>\n{''.join(parts)}\n{_viewer(found)}</body></html>\n"
    )


def prose(text: str) -> str:
    """Text for people as HTML: escaped, ``W_max`` with its index, commands in backticks as such."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", re.sub(r"\b([A-Z])_(max)\b", r"\1<sub>\2</sub>", escape(text)))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _figure(kind: Kind, run: RunData) -> str:
    """A figure with its caption; empty where there is nothing to show."""
    drawn = kind.draw(run)
    if drawn is None:
        return ""
    return (
        f'<figure><img alt="{escape(kind.title)}" width="{96 * drawn.get_figwidth():.0f}" src="{_picture(drawn)}">'
        f"<figcaption><b>{prose(kind.title)}.</b> {prose(kind.caption)}</figcaption></figure>"
    )


def _picture(figure: Figure) -> str:
    """A figure as a ``data:`` address: lines where they are few, pixels where they are many."""
    lines = sum(len(np.atleast_1d(line.get_xdata())) for axes in figure.axes for line in axes.get_lines())
    clouds = sum(len(np.asarray(item.get_offsets())) for axes in figure.axes for item in axes.collections)
    kind, content = "svg+xml", style.svg(figure) if lines + clouds < MOST_POINTS else b""
    if not 0 < len(content) <= LARGEST_SVG:
        kind, content = "png", style.png(figure, DOTS_PER_INCH)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def table(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]], words: Sequence[int] = (0,)) -> str:
    """A table with headings (name, unit); columns are numbers, right-aligned, but for those in ``words``."""
    kinds = ["" if k in words else ' class="n"' for k in range(len(head))]
    units = [f'<span class="unit">{escape(unit)}</span>' if unit else "" for _, unit in head]
    top = "".join(
        f"<th{kind}>{prose(name)}{unit}</th>" for (name, _), unit, kind in zip(head, units, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(str(cell))}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{prose(value)}</td></tr>" for name, value in rows)
    return f'<div class="wide"><table class="facts"><tbody>{body}</tbody></table></div>'


def _lead(run: RunData, state: Mapping[str, Any]) -> str:
    started = state.get("started") or [""]
    return (
        f'<p class="lead">Run folder <code>{escape(str(run.folder))}</code>, begun {escape(_moment(started[0]))}.</p>'
    )


def _moment(text: str) -> str:
    """``2026-11-21 13:23 UTC`` of an ISO date."""
    return text[:16].replace("T", " ") + " UTC" if "T" in text else text


def _notices(state: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Whether the run is finished and converged, and what could not be read."""
    done, wanted = state["rounds_done"], state["rounds"]
    if state["end"] and state["end"].get("converged"):
        text, kind = f"Converged after {_count(done, 'round')}: the limits of the configuration are met.", "notice good"
    elif state["end"]:
        text, kind = (
            (
                f"Finished after {_count(done, 'round')} without convergence: the limits of the configuration are not "
                "met. More rounds or labels, a larger committee or a slower drive may help; the path error below says "
                "how far the potential is off."
            ),
            "notice",
        )
    else:
        doing = "is running" if state["state"] == "running" else "has stopped, and goes on with the same command"
        text = f"This run is not finished: it {doing}. {done} of {_count(wanted, 'round')} done"
        if state["stage"]:
            where = "before the first round" if state["round"] < 0 else f"of round {state['round']}"
            text += f"; stage “{state['stage']}” {where} under way or interrupted"
        text, kind = text + ". What follows is what there was when this page was made.", "notice"
    found = f'<div class="{kind}"><p>{escape(text)}</p></div>'
    if notes:
        found += f'<div class="notice">{"".join(f"<p>{escape(note)}</p>" for note in notes)}</div>'
    return found


def _count(number: Any, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _summary(run: RunData, state: Mapping[str, Any]) -> str:
    """The run in a few lines."""
    config = run.config
    last = run.rows[-1] if run.rows else {}
    lost = sum(bool(label.failed) for label in run.labels)
    rows = [
        ("Barrier", _barrier(run, last)),
        ("Reference", _reference(run)),
        ("Error along its own path", _number(last.get("path_error_kcal_mol"), ".2f", "kcal/mol")),
        ("Coordinate", run.cv_label),
        ("Labels", f"{state['labels'] if state['labels'] is not None else len(run.labels)} bought of at most "
                   f"{state['budget']}; {lost} refused by the engine"),
        ("Label engine", _kind(config.get("engine"), "method", "xc", "functional")),
        ("Committee", f"{_section(config, 'training').get('members', '?')} × {_kind(config.get('model'))}"),
        ("Sampler", _kind(config.get("sampler"))),
        ("Atoms", f"{run.atoms}" if run.atoms else ""),
        ("Root seed", str(state["seed"])),
    ]  # fmt: skip
    return facts((name, value) for name, value in rows if value)


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _kind(section: Any, *keys: str) -> str:
    """``tblite, GFN2-xTB``: the kind of a section and what else tells."""
    if not isinstance(section, Mapping):
        return str(section or "")
    told = [section.get("kind"), *(section.get(key) for key in keys)]
    return ", ".join(str(value) for value in told if value)


def _barrier(run: RunData, row: Mapping[str, Any]) -> str:
    """The round's barrier in both units."""
    barrier, error = number(row.get("barrier_eV")), number(row.get("barrier_se_eV"))
    if not np.isfinite(barrier):
        return ""
    units = [(f"{value:.{digits}f}", f" ± {spread:.{digits}f}" if np.isfinite(spread) else "")
             for value, spread, digits in ((barrier, error, 3), (barrier / KCAL_MOL, error / KCAL_MOL, 1))]  # fmt: skip
    (ev, ev_error), (kcal, kcal_error) = units
    what = {"work": "W_max, largest work of the drive"}.get(run.barrier_kind, run.barrier_kind)
    return f"{ev}{ev_error} eV ({kcal}{kcal_error} kcal/mol); {what}, round {row['round']}"


def _reference(run: RunData) -> str:
    if run.reference_barrier is None:
        return "none: `rareal reference CONFIG` makes it"
    mean, error = run.reference_barrier
    return f"{mean:.3f}{f' ± {error:.3f}' if np.isfinite(error) else ''} eV, by the label engine itself"


def _is(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _number(value: Any, form: str, unit: str = "") -> str:
    """A number with its unit; empty where there is none."""
    return f"{format(value, form)} {unit}".rstrip().replace("-", "−") if _is(value) else ""


def _rounds(run: RunData) -> str:
    """The rounds as a table; columns that are empty throughout are left out."""
    none = {"path_error_se_kcal_mol": (None, 0)}  # nothing is averaged where frames are compared one by one
    columns = [c for c in ROUND_COLUMNS if any(row.get(c[0]) not in none.get(c[0], (None, "")) for row in run.rows)]
    if not columns:
        return "<p>No round has finished yet.</p>"
    rows = [[_cell(row.get(name), form) for name, _, _, form in columns] for row in run.rows]
    remark = (
        "<p>Errors are committee minus label engine; s.e. is the standard error. "
        "<code>rounds.csv</code> in the run folder has every column.</p>"
    )
    return table([(name, unit) for _, name, unit, _ in columns], rows, ()) + remark


def _said(run: RunData) -> str:
    """What the stages noted."""
    lines = [
        f"<li>{f'round {item.number}' if item.number >= 0 else 'initial data'}: {escape(note)}</li>"
        for item in (run.initial, *run.rounds)
        for note in item.notes
    ]
    return f"<h3>Notes of the run</h3><ul>{''.join(lines)}</ul>" if lines else ""


def _cell(value: Any, form: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _number(value, form) if form else str(value or "")


def _molecule(found: Molecule | None) -> str:
    """Three drawings, which the script makes turnable."""
    if found is None:
        return ""
    panes = "".join(
        f'<div class="molecule"><div class="stage">{drawing}<div class="canvas"></div></div>'
        f"<b>{escape(item.title)}</b>{escape(item.text)}</div>"
        for item, drawing in zip(found.snapshots, drawings(found), strict=True)
    )
    return (
        f'<div class="molecules">{panes}</div>'
        f"<p>From {escape(found.source)}. Drag to turn all three, scroll to zoom. Bonds are drawn up to 1.3 times the "
        "sum of the covalent radii; dashed are bonds of the start or the end that are longer here.</p>"
    )


def _labels(run: RunData, state: Mapping[str, Any]) -> str:
    """Labels bought and refused, by what for, and why refused."""
    if not run.labels:
        return ""
    shown = accounts.looks((label.origin for label in run.labels), accounts.ORIGINS)
    rows: list[list[Any]] = []
    for origin, (name, _) in shown.items():
        of = [label for label in run.labels if label.origin == origin]
        rows.append([name, *_sums(of)])
    rows.append(["all", *_sums(run.labels)])
    head = [
        ("For", ""),
        ("Bought", ""),
        ("Refused", "by the engine"),
        ("From the cache", ""),
        ("Engine", "s"),
        ("Per label", "s"),
    ]
    text = table(head, rows)
    reasons = Counter(label.failed for label in run.labels if label.failed)
    if reasons:
        text += "<h3>Why the engine refused</h3>" + table([("Reason", ""), ("Frames", "")], reasons.most_common(12))
    elif not any(label.failed for label in run.labels):
        text += "<p>The engine refused none of the frames.</p>"
    return text + f"<p>The budget is {escape(str(state['budget']))} labels, refused ones included.</p>"


def _sums(of: Sequence[Any]) -> list[str]:
    lost, cached = sum(bool(label.failed) for label in of), sum(label.cached for label in of)
    times = [label.seconds for label in of if _is(label.seconds) and label.seconds > 0 and not label.cached]
    total = f"{sum(times):.3g}" if times else "–"
    return [str(len(of)), str(lost), str(cached), total, f"{np.mean(times):.3g}" if times else "–"]


def _cost(run: RunData, provenance: Mapping[str, Any]) -> str:
    """Seconds of every stage, round by round."""
    rounds = accounts.timed(run)
    if not rounds:
        return ""
    stages = accounts.looks((name for item in rounds for name in item.stages), accounts.STAGES)
    rows = [
        ["initial" if item.number < 0 else str(item.number)]
        + [_time(accounts.seconds(item, stage)) for stage in stages]
        + [_time(sum(accounts.seconds(item, stage) for stage in stages))]
        + [str(len(item.labels) or ""), _time(accounts.engine_seconds(item))]
        for item in rounds
    ]
    sums = [sum(accounts.seconds(item, stage) for item in rounds) for stage in stages]
    engine = sum(accounts.engine_seconds(item) for item in rounds)
    rows.append(["all", *map(_time, sums), _time(sum(sums)), str(len(run.labels)), _time(engine)])
    head = [
        ("Round", ""),
        *((name.capitalize(), "s") for name, _ in stages.values()),
        ("Sum", "s"),
        ("Labels", ""),
        ("Engine", "s"),
    ]
    ended = max((str(marker.get("finished", "")) for item in rounds for marker in item.stages.values()), default="")
    sessions = provenance.get("sessions", [])
    told = f"{_count(len(sessions), 'session')}; the last finished stage ended {_moment(ended)}."
    return table(head, rows) + f"<p>“Engine” is the time of the labels alone, all cores together. {escape(told)}</p>"


def _time(value: float) -> str:
    return f"{value:.1f}" if value else "–"


def _provenance(run: RunData, provenance: Mapping[str, Any]) -> str:
    """What ran, when, where, from which seeds, and with which configuration."""
    sessions = provenance.get("sessions", [])
    rows = [
        [_moment(str(item.get("started", ""))), " ".join(map(str, item.get("command", []))), str(item.get("host", "")),
         str(item.get("cores", "")), str(item.get("python", ""))]
        for item in sessions
    ]  # fmt: skip
    text = ""
    if sessions:
        versions = sessions[-1].get("versions", {})
        text += "<h3>Versions</h3>" + facts((name, str(value)) for name, value in versions.items() if value)
        head = [(name, "") for name in ("Started", "Command", "Host", "Cores", "Python")]
        text += "<h3>Sessions</h3>" + table(head, rows, (0, 1, 2))
    seeds = sorted({(pull.walker, pull.seed) for item in run.rounds for pull in item.pulls})
    told = [
        ("Root seed", str(provenance.get("seed", run.config.get("seed", "")))),
        ("Velocity seeds", ", ".join(f"walker {walker}: {seed}" for walker, seed in seeds)),
        ("Configuration, hash", str(provenance.get("config_hash", ""))),
        ("Structure, hash", str(provenance.get("structure_hash", ""))),
    ]
    text += "<h3>Seeds and hashes</h3>" + facts((name, value) for name, value in told if value)
    if run.config:
        written = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=110)
        text += f"<h3>Configuration, with all defaults</h3><pre>{escape(written)}</pre>"
    return text


def _viewer(found: Molecule | None) -> str:
    """The scripts that turn the molecule, and their licence."""
    if found is None:
        return ""
    # "</" would end the script whatever it stands in
    data = json.dumps(found.viewer()).replace("</", "<\\/")
    library = _asset(VIEWER).replace("</script", "<\\/script")
    return (
        "<footer><details><summary>The molecule is shown with 3Dmol.js (N. Rego, D. Koes, Bioinformatics 2015, 31, "
        f"1322); its licence</summary><pre>{escape(_asset(LICENCE))}</pre></details></footer>\n"
        f'<script type="application/json" id="molecule-data">{data}</script>\n'
        f"<script>{library}</script>\n<script>{_asset('report.js')}</script>\n"
    )
