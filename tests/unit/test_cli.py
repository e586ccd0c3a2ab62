"""The command line: quick help, one message per mistake, exit codes, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from commandline import Command

from rareal import plugin
from rareal.config import load
from rareal.lock import NAME
from rareal.rundir import RunFolder
from rareal.units import KCAL_MOL

EXAMPLES = Path(__file__).parents[2] / "examples" / "hexane"


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, the current one, with the hexane example in it."""
    for name in ("hexane.yaml", "hexane.xyz"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(case: Path, old: str, new: str) -> None:
    """Replace what the pattern ``old`` finds, which must be there once, in the example."""
    file = case / "hexane.yaml"
    text, count = re.subn(old, new, file.read_text(), flags=re.MULTILINE)
    assert count == 1, f"the example no longer has '{old}' once"
    file.write_text(text)


MISTAKES = {
    "unknown key": ("members: 4", "membrs: 4", ["training.membrs: 4", "unknown key, did you mean 'members'?"]),
    "unknown section": (r"^rounds: \d+", "round: 6", ["round: 6", "did you mean 'rounds'?"]),
    "wrong type": (r"epochs: \d+", "epochs: many", ["training.epochs: 'many'", "give a whole number"]),
    "wrong unit": (
        "velocity: 1 angstrom/ps",
        "velocity: 1 ps",
        ["sampler.velocity: '1 ps'", "converts to angstrom/fs"],
    ),
    "missing structure": ("hexane.xyz ", "hexan.xyz ", ["structure: 'hexan.xyz'", "did you mean 'hexane.xyz'?"]),
    "atom index": (r"atoms: \[1, 6\]", "atoms: [1, 21]", ["cv.atoms: [1, 21]", "number the atoms 1 to 20"]),
    "atom zero": (r"atoms: \[1, 6\]", "atoms: [0, 6]", ["cv.atoms[1]: 0", "at least 1"]),
    "one member": ("members: 4", "members: 1", ["training.members: 1", "at least 2", "committee of one"]),
    "negative": ("budget: 600", "budget: -600", ["labels.budget: -600", "at least 1"]),
    "unknown kind": (
        "{kind: event,",
        "{kind: evnt,",
        ["selection.kind: 'evnt'", "did you mean 'event'?", "'paper'"],
    ),
    "duplicate key": ("^seed: 1", "seed: 1\nseed: 2", ["the key 'seed' is given twice"]),
    "no YAML": ("^seed: 1", "seed: [1", ["this is not YAML"]),
}


@pytest.mark.parametrize("verb", ["run", "validate", "reference"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(case: Path, command: Command, verb: str, mistake: str) -> None:
    old, new, parts = MISTAKES[mistake]
    edited(case, old, new)
    before = sorted(case.rglob("*"))
    code, out, error = command(verb, "hexane.yaml")
    assert code == 2
    assert out == ""
    assert error.startswith("Error: hexane.yaml:")
    assert len(error.splitlines()) == 1
    for part in parts:
        assert part in error
    assert sorted(case.rglob("*")) == before


@pytest.mark.parametrize(
    ("symbol", "parts"), [("Fr", ["engine.method", "no element 87"]), ("Qq", ["structure", "Qq", "correct the symbol"])]
)
def test_unknown_elements(case: Path, command: Command, symbol: str, parts: list[str]) -> None:
    text = (case / "hexane.xyz").read_text()
    (case / "hexane.xyz").write_text(text.replace("\nH ", f"\n{symbol} ", 1))
    code, _, error = command("run", "hexane.yaml")
    assert code == 2
    for part in parts:
        assert part in error
    assert not (case / "runs").exists()


def test_no_such_file(case: Path, command: Command) -> None:
    code, _, error = command("run", "nothing.yaml")
    assert code == 2
    assert error.startswith("Error: nothing.yaml: there is no such file")


def test_wrong_options_are_usage_errors(case: Path, command: Command) -> None:
    assert command("run", "hexane.yaml", "--rounds", "many")[0] == 2
    assert command("fly")[0] == 2
    code, _, error = command("run", "hexane.yaml", "--rounds", "0")
    assert code == 2
    assert "--rounds: rounds: 0: out of range" in error


@pytest.mark.parametrize("name", ["hexane.yaml", "paper.yaml", "schnet.yaml"])
def test_examples_are_valid(case: Path, command: Command, name: str) -> None:
    shutil.copy(EXAMPLES / name, case)
    code, out, _ = command("validate", name, "--no-measure")
    assert code == 0
    assert out.startswith(f"{name} is valid")
    # what it prints is a YAML that says the same
    (case / "printed.yaml").write_text(out.partition("\n\n")[2])
    assert load(case / "printed.yaml").resolved() == load(case / name).resolved()
    assert not (case / "runs").exists()


def test_a_foreign_folder_is_refused(case: Path, command: Command) -> None:
    code, _, error = command("run", "hexane.yaml", "--dir", ".")
    assert code == 1
    assert "holds other files" in error


def test_status(case: Path, command: Command) -> None:
    config = load("hexane.yaml")
    with RunFolder.open("here", config) as run:
        run.stage(0, "train").finish()
        run.append_round({"round": 0, "labels": 150, "barrier_eV": 7.5, "barrier_se_eV": 0.01})
        run.stage(1, "train")
        state = json.loads(command("status", "here", "--json")[1])
        assert (state["state"], state["pid"]) == ("running", os.getpid())
        assert (state["round"], state["stage"], state["rounds_done"]) == (1, "train", 1)
    state = json.loads(command("status", "here", "--json")[1])
    assert (state["state"], state["pid"]) == ("stopped", None)
    assert (state["labels"], state["budget"], state["rounds"]) == (
        150,
        config.labels.budget,
        config.rounds,
    )
    assert state["table"][0]["barrier_eV"] == 7.5
    code, out, _ = command("status", "here")
    assert code == 0
    for part in (
        "hexane (seed 1)",
        f"1 of {config.rounds} rounds",
        "stopped in stage 'train' of round 1",
        "barrier 7.500 ± 0.010 eV",
    ):
        assert part in out
    with RunFolder.open("here", config) as run:
        run.stage(1, "train").finish()
        run.finish(converged=True)
    state = json.loads(command("status", "here", "--json")[1])
    assert (state["state"], state["stage"], state["end"]["converged"]) == ("finished", None, True)


def test_status_tells_stages_labels_and_selection(case: Path, command: Command) -> None:
    with RunFolder.open("here", load("hexane.yaml")) as run:
        run.stage(-1, "data").finish(labels=100)
        run.stage(0, "select").finish(threshold=[0.02], worthwhile=[30], rows=[200], labels=36, failed=4)
        for number, barrier in enumerate((7.5, 7.6)):
            run.append_round({"round": number, "labels": 136, "barrier_eV": barrier, "barrier_se_eV": 0.01})
        sample = run.stage(1, "sample").folder
        for k, done in enumerate((30, 50)):
            (sample / f".walker-{k:02d}.progress").write_text(f"{done} 100")
        # a stage within another one, as exploration on the fly has them
        run.stage(0, "fly/part-000").finish(labels=3, failed=1)
        run.stage(0, "fly", keep=True).finish()
        (Path("here") / "STOP").touch()
        state = json.loads(command("status", "here", "--json")[1])
        out = command("status", "here")[1]
    assert state["stages"] == [{"round": 1, "stage": "sample", "done": 80, "total": 200}]
    assert (state["bought"], state["refused"], state["stop_requested"]) == (139, 5, True)
    assert state["barrier"]["change_kcal_mol"] == pytest.approx(0.1 / KCAL_MOL)
    assert state["selection"]["threshold"] == [0.02]
    for part in (
        "in stage 'sample' of round 1 (80 of 200)",
        "139 of 600 bought, 5 refused",
        "7.600 ± 0.010 eV, +2.31 kcal/mol since the round before",
        "threshold 0.02, 30 of 200 frames above it; 36 labels bought, 4 refused",
        "the run ends after this round",
    ):
        assert part in out


def test_status_is_watched_until_the_run_ends(case: Path, command: Command) -> None:
    """Plain lines where there is no terminal, and only what is new; JSON is an object a line."""
    opened = RunFolder.open("here", load("hexane.yaml"))
    stage = opened.stage(0, "train")

    def go_on() -> None:
        time.sleep(0.5)
        stage.finish()
        opened.append_round({"round": 0, "labels": 150, "barrier_eV": 7.5})
        time.sleep(0.5)
        opened.finish(converged=True)
        opened.close()

    helper = threading.Thread(target=go_on)
    helper.start()
    code, out, _ = command("status", "here", "--watch", "--interval", 0.1)
    helper.join()
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("hexane (seed 1) in here: running")
    assert lines[-1] == "converged"
    assert len(lines) == len(set(lines)), "a line that has not changed is not told again"
    assert any("barrier 7.500" in line for line in lines)
    code, out, _ = command("status", "here", "--watch", "--json")
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["finished"]


def test_what_reads_a_run_wants_a_run_folder(case: Path, command: Command) -> None:
    for verb in ("status", "plot", "report", "compare"):
        code, _, error = command(verb, ".")
        assert code == 1
        assert "this is no run folder" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_where_and_how_to_go_on(
    case: Path, command: Command, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """By Ctrl-C, or by a queue whose time is over."""

    def work(config: object, run: RunFolder, *rest: object) -> None:
        run.stage(2, "sample")
        os.kill(os.getpid(), number)
        time.sleep(30)

    monkeypatch.setattr("rareal.loop.run_loop", work)
    before = signal.getsignal(signal.SIGTERM)
    # tests that a script runs in the background are born deaf to Ctrl-C
    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, error = command("run", "hexane.yaml", "--quiet")
    finally:
        signal.signal(signal.SIGINT, deaf)
    assert code == 128 + number
    assert "Stopped in round 2, stage 'sample'. The same command goes on from here." in error
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads(command("status", "runs/hexane", "--json")[1])["state"] == "stopped"


def test_a_run_that_a_stop_file_has_ended_says_so(
    case: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(config: object, run: RunFolder, *rest: object) -> None:
        (run.path / "STOP").touch()
        run.append_round({"round": 0, "labels": 150, "barrier_eV": 7.5, "barrier_se_eV": 0.01})
        run.finish(converged=False)

    monkeypatch.setattr("rareal.loop.run_loop", work)
    monkeypatch.setattr("rareal.report.plots.plot_run", lambda folder: None)
    code, out, _ = command("run", "hexane.yaml")
    assert code == 0
    assert "Ended by runs/hexane/STOP; the same command goes on from here." in out
    state = json.loads(command("status", "runs/hexane", "--json")[1])
    assert (state["state"], state["end"]["stopped"]) == ("stopped", True)


def test_two_runs_in_one_folder(case: Path, command: Command) -> None:
    RunFolder.open("runs/hexane", load("hexane.yaml")).close()
    (case / "runs/hexane" / NAME).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    code, _, error = command("run", "hexane.yaml")
    assert code == 1
    assert "process 1 on elsewhere is working in this run folder" in error


def test_dry_run_writes_the_scripts_of_a_round_and_runs_nothing(case: Path, command: Command) -> None:
    """They run by hand: the committee that they name is there, and LAMMPS takes them."""
    text = (case / "hexane.yaml").read_text().replace("model: ani ", "model: {hidden: {C: [8], H: [8]}} ")
    (case / "hexane.yaml").write_text(text.replace("steps: 6500", "steps: 20").replace("steps: 2000", "steps: 20"))
    code, out, error = command("run", "hexane.yaml", "--dry-run")
    assert code == 0, error
    scripts = [Path(line) for line in out.splitlines()]
    assert [str(path) for path in scripts] == [f"runs/hexane-dry-run/walker-{k:02d}/in.steered" for k in range(5)]
    assert len({path.read_text() for path in scripts}) == 5, "walkers differ in their seeds"
    assert not (case / "runs" / "hexane").exists()
    assert not list(case.rglob("log.lammps"))
    assert "../untrained.pt" in scripts[0].read_text()
    done = subprocess.run(
        [*plugin.lmp_command(), "-in", "in.steered"], cwd=scripts[0].parent, env=plugin.lmp_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    code, _, error = command("run", "hexane.yaml", "--dry-run")
    assert (code, "holds other files" in error) == (1, True)


SAMPLERS = {
    "md": ("{kind: md, steps: 20, equilibration: 10}", "in.md"),
    "umbrella": ("{kind: umbrella, first: 6.5, last: 7, windows: 2, walkers: 1, steps: 20}", "in.umbrella"),
    "metadynamics": ("{kind: metadynamics, steps: 20, biased: [{hill_width: 0.1, range: [6, 9]}]}", "in.metadynamics"),
    "udd": ("{kind: udd, steps: 20}", "in.md"),
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_dry_run_of_every_sampler(case: Path, command: Command, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Nothing runs, not even what a bias would be measured with."""
    section, name = SAMPLERS[kind]
    data = yaml.safe_load((case / "hexane.yaml").read_text())
    data |= {"sampler": yaml.safe_load(section), "model": {"hidden": {"C": [8], "H": [8]}}}
    (case / "other.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.setenv("RAREAL_LMP", "/no/such/program")
    code, out, error = command("run", "other.yaml", "--dry-run", "--dir", "dry")
    assert code == 0, error
    scripts = {Path(line).name for line in out.splitlines()}
    assert name in scripts
    assert all(Path(line).is_file() for line in out.splitlines())


def test_dry_run_of_what_runs_no_lammps(case: Path, command: Command) -> None:
    shutil.copy(case / "hexane.xyz", case / "product.xyz")
    data = yaml.safe_load((case / "hexane.yaml").read_text())
    (case / "neb.yaml").write_text(yaml.safe_dump(data | {"sampler": {"kind": "neb", "product": "product.xyz"}}))
    code, _, error = command("run", "neb.yaml", "--dry-run")
    assert code == 2
    assert "writes no LAMMPS scripts" in error
    assert not (case / "runs").exists()


def test_plugin(command: Command) -> None:
    code, out, _ = command("plugin", "--dir")
    assert code == 0
    assert (Path(out.strip()) / plugin.PLUGIN).is_file()
    code, out, _ = command("plugin")
    assert code == 0
    assert "plugin load" in out
    assert "22 Jul 2025" in out


def processor_time(arguments: list[str]) -> tuple[float, str]:
    """Seconds of processor time of a command and all that it starts, and its output; what else runs does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-P", *arguments], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def quick(arguments: list[str], seconds: float) -> str:
    """The output of a command that takes less than so many seconds, in one of five times: processors are shared."""
    times = []
    for _ in range(5):
        time, out = processor_time(arguments)
        if time < seconds:
            return out
        times.append(time)
    raise AssertionError(f"{arguments} takes {times} s")


def test_help_is_instant_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['rareal', '--help']\n"
        "from rareal.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('numpy', 'torch', 'ase', 'pydantic', 'yaml', 'pint') if name in sys.modules])"
    )
    out = quick(["-c", code], 0.3)
    assert out.splitlines()[-1] == "[]"
    assert "reference" in out


def test_validate_takes_less_than_two_seconds_with_a_label_measured() -> None:
    out = quick(["-m", "rareal", "validate", str(EXAMPLES / "hexane.yaml"), "--limit", "60"], 2.0)
    assert "one label:" in out
