"""Everything that charts share: the axis of steps, the look, the marks where a run changed, and stacking.

A chart is one or more figures and their named sources. Of columns that have grown only the new rows are sent
(`Chart.draw`). Colours suit a light page; style.css inverts whole figures for a dark
one. The browser saves a chart as a picture when its root is tagged with a kind of picture (`Chart.save`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bokeh.core.properties import value
from bokeh.events import MouseLeave, MouseMove
from bokeh.layouts import column
from bokeh.models import BasicTicker, ColumnDataSource, CustomJS, HoverTool, InlineStyleSheet, LayoutDOM, Range1d
from bokeh.models.annotations import Span, Title
from bokeh.plotting import figure

from editlab.core.records import SessionState, Step

INK, MUTED, GRID, BAR = "#17202b", "#566272", "#e3e8ee", "#c3cfdd"
NOW, LEVEL, CHANCE = "#2452c7", "#11734b", "#a3262f"
PINNED = "#7b3fb5"
CHANGES = {"jump": "#a3262f", "trend": "#8a5a00"}
AXIS_WIDTH = 64  # pixels left of every plot, so that stacked plots are aligned
TITLE_INDENT = 8  # pixels from a chart's left edge to its title
LETTER = 6  # pixels of one letter in a level's words
FLAG = 0.95  # height of a change's flag, as a share of the plot
FEWEST_STEPS = 1  # edits that the axis shows at least

SAVE = """
const [kind] = cb_obj.tags, view = Bokeh.index.find_one(cb_obj)
if (kind === undefined || view == null) return
view.export(kind).to_blob().then((blob) => {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(blob)
  link.download = `${name}.${kind}`
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
})
"""

POINT_OUT = """
const step = cb_obj.event_name === "mousemove" ? Math.round(cb_obj.x) : -1
const documents = globalThis.Bokeh?.documents ?? [cb_obj.origin.document]
for (const line of documents.flatMap((one) => [...one.all_models]).filter((model) => model.name === "pointed"))
  line.setv({location: step, visible: step >= 0}, {sync: false})
document.querySelectorAll(".el-steps .el-step").forEach((row) => {
  row.classList.toggle("el-step-pointed", Number(row.querySelector(".el-index")?.textContent) === step)
})
"""  # page.js does the same for a row of the timeline that is pointed at

# The line of another level may cross a level's words.
UNDER_WORDS: Mapping[str, Any] = {"background_fill_color": "#ffffff", "background_fill_alpha": 0.8}

FOCUS = f":host(:focus-within) {{ outline: var(--chart-focus, none) {NOW}; outline-offset: -2px }}"

Picture = Literal["png", "svg"]
Scale = Literal["linear", "log"]
Columns = Mapping[str, Mapping[str, Sequence[Any]]]
NO_STEPS = SessionState(id="", steps=(), position=0, watched=(), model={})


@dataclass(frozen=True)
class Chart:
    """Figures over one axis of steps. A tap on a mark of a source in `tappable` means that mark's step.

    With another `key` the axis is not of steps, and a tap means the value in that column.
    """

    figures: tuple[figure, ...]
    sources: Mapping[str, ColumnDataSource]
    tappable: tuple[str, ...] = ()
    layout: LayoutDOM | None = None
    key: str = "step"

    @property
    def root(self) -> LayoutDOM:
        return self.layout or self.figures[0]

    def draw(self, columns: Columns, last_step: int, pinned: int | None = None) -> None:
        """Show `columns` on an axis that ends with `last_step`, so that all charts of a session share theirs."""
        for name, data in columns.items():
            drawn = {key: list(values) for key, values in data.items()}
            before = {key: list(values) for key, values in self.sources[name].data.items()}
            n = min(map(len, before.values()), default=0)
            if drawn == before:
                continue
            if n and all(values[:n] == before.get(key) for key, values in drawn.items()):
                self.sources[name].stream({key: values[n:] for key, values in drawn.items()})
            else:
                self.sources[name].data = drawn
        for plot in self.figures if self.key == "step" else ():
            plot.x_range.update(end=max(last_step, FEWEST_STEPS) + 0.6)
            for line in plot.select({"name": "pinned"}):
                line.update(location=pinned or 0, visible=pinned is not None)

    def save(self, kind: Picture) -> None:
        """Make the browser that shows the chart save it."""
        self.root.tags = []
        self.root.tags = [kind]

    def can_be_saved(self, name: str) -> None:
        """Let the browser save the chart under this name."""
        self.root.js_on_change("tags", CustomJS(args={"name": name}, code=SAVE))


def stacked(charts: Mapping[str, Chart]) -> Chart:
    """Charts above each other over one axis."""
    figures = [plot for chart in charts.values() for plot in chart.figures]
    for plot in figures:
        plot.x_range = figures[0].x_range
    for plot in figures[:-1]:
        plot.xaxis.axis_label = None
    sources = {f"{name}.{key}": source for name, chart in charts.items() for key, source in chart.sources.items()}
    tappable = tuple(f"{name}.{key}" for name, chart in charts.items() for key in chart.tappable)
    return Chart(tuple(figures), sources, tappable, column(*figures, sizing_mode="stretch_width", spacing=4))


def stacked_columns(columns: Mapping[str, Columns]) -> Columns:
    """The columns of `stacked` charts, by the same names."""
    return {f"{name}.{key}": data for name, found in columns.items() for key, data in found.items()}


def step_title(step: Step) -> str:
    """A step's title in charts, as plain text."""
    if not step.facts:
        return "unedited model"
    more = f" and {len(step.facts) - 1} more" if len(step.facts) > 1 else ""
    return f"{step.facts[0].subject} → {step.facts[0].target_new}{more}"


def alpha(step: Step, state: SessionState) -> float:
    """Steps that are undone or switched off are drawn paler."""
    return 1.0 if step.index <= state.position and (step.enabled or not step.facts) else 0.35


def change_columns(state: SessionState) -> Mapping[str, Sequence[Any]]:
    """Columns of the steps at which the run changed, by its health."""
    changes = state.health.changes if state.health else ()
    return {
        "step": [change.step for change in changes],
        "kind": [change.kind for change in changes],
        "sentence": [change.sentence for change in changes],
        "color": [CHANGES[change.kind] for change in changes],
        "dash": ["solid" if change.kind == "jump" else "dashed" for change in changes],
        "top": [FLAG] * len(changes),
    }


def blank(columns: Columns) -> dict[str, ColumnDataSource]:
    """A source without rows for each of these columns."""
    return {name: ColumnDataSource({key: [] for key in data}) for name, data in columns.items()}


def new_figure(
    title: str, y_label: str = "", scale: Scale = "linear", height: int = 150, left: int = AXIS_WIDTH
) -> figure:
    """A figure over the axis of steps. All such figures and the timeline mark the step under the pointer."""
    plot = plain_figure(title, "edit", y_label, "linear", scale, height, left)
    plot.x_range = Range1d(start=-0.6, end=FEWEST_STEPS + 0.6)
    plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    if scale == "linear":
        plot.yaxis.ticker = BasicTicker(desired_num_ticks=4, num_minor_ticks=0)  # more would be crowded
    plot.xgrid.visible = False
    pinned = Span(
        name="pinned", dimension="height", line_color=PINNED, line_dash="dotdash", line_width=2, visible=False
    )
    pointed = Span(name="pointed", dimension="height", line_color=MUTED, line_dash="dotted", visible=False)
    plot.add_layout(pinned)
    plot.add_layout(pointed)
    for event in (MouseMove, MouseLeave):
        plot.js_on_event(event, CustomJS(code=POINT_OUT))
    return plot


def plain_figure(
    title: str, x_label: str, y_label: str, x_scale: Scale, y_scale: Scale, height: int, left: int = AXIS_WIDTH
) -> figure:
    """A figure over any axis, in the common look; `left`: pixels beside the plot, for what stands at its y axis."""
    heading = Title(text=title, text_font="system-ui, sans-serif", text_font_size="12px", text_color=INK)
    heading.update(offset=TITLE_INDENT - left)
    plot = figure(
        height=height, sizing_mode="stretch_width", x_axis_type=x_scale, y_axis_type=y_scale,
        x_axis_label=x_label, y_axis_label=y_label or None, title=heading, tools="", toolbar_location=None,
        background_fill_color=None, border_fill_color=None, outline_line_color=None, min_border_left=left,
        min_border_right=12, stylesheets=[InlineStyleSheet(css=FOCUS)],
    )  # fmt: skip
    for grid in plot.grid:
        grid.grid_line_color = GRID
    for axis in plot.axis:
        axis.axis_line_color = axis.major_tick_line_color = MUTED
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = MUTED
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.major_label_text_font = axis.axis_label_text_font = "system-ui, sans-serif"
    return plot


def mark_changes(plot: figure, source: ColumnDataSource) -> None:
    """A line through the plot, with a small flag on top, wherever the run changed."""
    plot.vspan(x="step", source=source, line_color="color", line_dash="dash", line_width=1.5, line_alpha=0.7)
    flag_changes(plot, source)


def flag_changes(plot: figure, source: ColumnDataSource) -> None:
    """The small flags alone, for a plot that a line would cover."""
    plot.extra_y_ranges = {"share": Range1d(start=0, end=1)}
    flags = plot.scatter(
        "step", "top", source=source, y_range_name="share", marker="inverted_triangle", size=11, color="color"
    )
    steady(flags)
    plot.add_tools(HoverTool(renderers=[flags], tooltips=[("@kind", "@sentence")]))


def level_columns(levels: Sequence[tuple[float, str, str]]) -> Mapping[str, Sequence[Any]]:
    """Columns of levels (y, words, colour); the words are side by side, since levels may be close together."""
    found: dict[str, list[Any]] = {name: [] for name in ("y", "name", "color", "shift")}
    for y, name, color in levels:
        shift = LETTER * sum(len(words) + 2 for words in found["name"])
        for column_name, cell in zip(found, (y, name, color, shift), strict=True):
            found[column_name].append(cell)
    return found


def draw_levels(plot: figure, source: ColumnDataSource) -> None:
    """Draw levels with their words where the axis reaches them, without stretching the axis."""
    plot.hspan(y="y", source=source, line_color="color", line_dash="dashed", line_width=1.5)
    plot.text(
        x=-0.5, y="y", text="name", source=source, text_color="color", text_baseline="bottom", y_offset=-2,
        x_offset="shift", text_font_size="11px", text_font=value("system-ui, sans-serif"),
        **UNDER_WORDS,
    )  # fmt: skip


def horizontal_legend(plot: figure) -> None:
    legend = plot.legend[0]
    plot.add_layout(legend, "above")
    legend.orientation = "horizontal"
    legend.border_line_color = legend.background_fill_color = None
    legend.label_text_color, legend.label_text_font_size, legend.label_text_font = INK, "12px", "system-ui, sans-serif"
    legend.update(padding=0, margin=0)


def steady(*renderers: Any) -> None:
    """Keep the look of tapped points: a tap only goes to the step."""
    for renderer in renderers:
        renderer.selection_glyph = renderer.nonselection_glyph = None
