"""`llamastack provider new`: every package that it makes is sound, installs, passes its own tests and serves."""

from __future__ import annotations

import functools
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import yaml
from backends.llama_model import model_path
from backends.llama_server import MODEL
from projects import ROOT, provider
from running_server import RunningServer, running_server

from llamastack_cli.group import cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
TOOLS = Path(sys.executable).parent
CONSTRAINTS = ("-c", str(ROOT / "constraints.txt"))
QUESTIONS = yaml.safe_load((ROOT / "provider_template/src/llamastack_provider_template/copier.yml").read_text("utf-8"))
VARIANTS = QUESTIONS["variants"]["default"]
AUTHS = tuple(QUESTIONS["auth"]["choices"].values())
COMBINATIONS = [
    (variant, auth)
    for variant in VARIANTS
    for auth in (AUTHS if variant in QUESTIONS["with_auth"]["default"] else ("",))
]
"""Every variant, with every answer about its key."""


@dataclass(frozen=True)
class Call:
    """A request to the served stack, a GET where it has no body, and what its reply must hold."""

    path: str
    body: Mapping[str, Any] | None
    holds: str = ""


@dataclass(frozen=True)
class Variant:
    """calls: made in this order. again: made once more, of a server that is started anew.

    environment: values in which {backend} is the backend's URL. options: of its own pytest; none is what its README
    says. The calls of the stress tier take a small machine long where a model computes: one of the inference providers
    makes them. auth: the answer about its key; together they have each one.
    """

    calls: tuple[Call, ...]
    again: tuple[Call, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    auth: str = ""


def say(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "sampling_params": {"max_tokens": 12}}


def go_on(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "content": text, "sampling_params": {"max_tokens": 4}}


def shield(name: str, text: str) -> dict[str, Any]:
    return {"shield_type": name, "messages": [{"role": "user", "content": text}]}


WAIVED = (f"--llamastack-waivers={Path(__file__).parent / 'template_waivers.yaml'}",)
WITHOUT_STRESS = ("--llamastack-tiers", "static,live,failure")
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
INFERENCE = (
    Call("inference/chat_completion", say(MODEL, QUESTION), ANSWER),
    Call("inference/chat_completion", {**say(MODEL, QUESTION), "stream": True}, "end_of_turn"),
    Call("inference/completion", go_on(MODEL, "The capital of France is"), "Paris"),
    Call("inference/embeddings", {"model": MODEL, "contents": ["a", "b"]}, "embeddings"),
)
BANK = {"memory_bank": {"identifier": "notes", "type": "keyword"}}
DOCUMENTS = [
    {"document_id": "1", "content": "Llamas live in the Andes."},
    {"document_id": "2", "content": "Whales live in the sea."},
]
MEMORY = (
    Call("memory_banks/register", BANK),
    Call("memory/insert", {"bank_id": "notes", "documents": DOCUMENTS}),
    Call("memory/query", {"bank_id": "notes", "query": "Where are whales?"}, '"document_id":"2"'),
)
VECTOR_BANK = {"identifier": "notes", "type": "vector", "embedding_model": "hashed-words", "chunk_size_in_tokens": 64}
VECTOR_MEMORY = (Call("memory_banks/register", {"memory_bank": VECTOR_BANK}), *MEMORY[1:])
GAMBLING = (
    Call("safety/run_shield", shield("gambling", "Which casino pays best?"), '"similarity"'),
    Call("safety/run_shield", shield("gambling", "Llamas live in the Andes."), '{"violation":null}'),
)
EVENT = {
    "type": "unstructured_log",
    "trace_id": "t",
    "span_id": "s",
    "timestamp": "2030-01-01T00:00:00Z",
    "message": "hello",
    "severity": "info",
}
TRACE = Call("telemetry/get_trace?trace_id=t", None, '"root_span_id":"s"')
CHECKED: Mapping[str, Variant] = {
    "inference-openai": Variant(
        INFERENCE, environment={"URL": "{backend}/v1"}, options=WITHOUT_STRESS, auth="per-request"
    ),
    "inference-rest": Variant(INFERENCE, environment={"URL": "{backend}"}, auth="header"),
    "inference-sdk": Variant(INFERENCE, environment={"URL": "{backend}/v1"}, options=WITHOUT_STRESS, auth="bearer"),
    "inference-in-process": Variant(
        (Call("inference/completion", go_on(model_path().stem, "The capital of France is"), "Paris"),),
        environment={"MODEL": str(model_path())},
        options=(*WITHOUT_STRESS, *WAIVED),
    ),
    "safety-openai": Variant(
        GAMBLING, environment={"URL": "{backend}/v1"}, options=(*WITHOUT_STRESS, *WAIVED), auth="bearer"
    ),
    "safety-rest": Variant(GAMBLING, environment={"URL": "{backend}"}, options=(*WITHOUT_STRESS, *WAIVED), auth="none"),
    "safety-in-process": Variant(
        (
            Call("safety/run_shield", shield("card-numbers", "It is 4111 1111 1111 1111."), "violation"),
            Call("safety/run_shield", shield("card-numbers", "It is 4."), '{"violation":null}'),
        )
    ),
    "memory-rest": Variant(VECTOR_MEMORY, again=MEMORY[-1:], environment={"URL": "{backend}"}, auth="header"),
    "memory-sdk": Variant(
        VECTOR_MEMORY,
        again=MEMORY[-1:],
        environment={"URL": "{backend}"},
        options=WITHOUT_STRESS,
        auth="per-request",
    ),
    "memory-sql": Variant(MEMORY, again=MEMORY[-1:], environment={"URL": "{backend}"}),
    "memory-in-process": Variant(MEMORY, again=MEMORY[-1:]),
    "agents-in-process": Variant(
        (
            Call(
                "agents/create",
                {"agent_config": {"model": "sample-echo", "instructions": "x", "enable_session_persistence": False}},
                "agent_id",
            ),
        )
    ),
    "telemetry-in-process": Variant((Call("telemetry/log_event", {"event": EVENT}), TRACE), again=(TRACE,)),
}


def answers(variant: str, name: str, auth: str = "") -> list[str]:
    """The options that choose `variant`."""
    api, _, transport = variant.partition("-")
    return ["--name", name, "--api", api, "--transport", transport, *(["--auth", auth] if auth else [])]


def run(*command: str, cwd: Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def command(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`llamastack provider new` of the workspace, with nothing to ask on."""
    return run(str(TOOLS / "llamastack"), "provider", "new", *arguments, cwd=cwd, stdin=subprocess.DEVNULL, **options)


def new(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The same in this process: to start one takes longer than to write a package."""
    out, err = io.StringIO(), io.StringIO()
    with (
        chdir(cwd),
        redirect_stdout(out),
        redirect_stderr(err),
        open(os.devnull) as nothing,
        patch.object(sys, "stdin", nothing),
    ):
        status = cli.run(["provider", "new", *arguments])
    if check:
        assert status == 0, f"{arguments}\n{out.getvalue()}\n{err.getvalue()}"
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


# `llamastack provider new` for several lists of arguments, in one process.
NEW_PACKAGES = """
import json, sys
from llamastack_cli.group import cli
for arguments in json.loads(sys.argv[1]):
    if cli.run(["provider", "new", *arguments]) != 0:
        sys.exit(f"provider new failed with {arguments}")
"""


# ---- what it makes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def author(make_venv: Callable[..., Any], server_venv: Any, build_wheels: Callable[..., list[str]]) -> Any:
    """An environment with the core and the template, from wheels. It finds the wheels of what else a package needs."""
    kits = [ROOT / "plugins" / "kits" / name for name in ("conformance", "memory-kit")]
    wheels = build_wheels([*kits, provider("sample"), ROOT / "provider_template"])
    [template] = [wheel for wheel in wheels if "provider_template" in wheel]
    venv = make_venv("author", server_venv)
    venv.wheels = str(Path(template).parent)
    venv.install(*CONSTRAINTS, "--find-links", venv.wheels, template)
    return venv


@pytest.fixture(scope="session")
def backend_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Start the backend that comes along with a package, as its README says; gives its URL. One serves all alike."""
    with ExitStack() as opened:
        urls: dict[bytes, str] = {}

        def url(variant: str) -> str:
            folder = tmp_path_factory.mktemp("backend")
            new(*answers(variant, "backend", CHECKED[variant].auth), "--defaults", "made", cwd=folder)
            script = folder / "made" / "tests" / "backend.py"
            if not script.exists():
                return ""
            if script.read_bytes() not in urls:
                urls[script.read_bytes()] = opened.enter_context(started(script))
            return urls[script.read_bytes()]

        yield url


@contextmanager
def started(script: Path) -> Iterator[str]:
    command = [sys.executable, str(script), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            assert words[:2] == ["listening", "on"]
            yield words[2]
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of the core is the same for each."""
    return tmp_path_factory.mktemp("mypy")


@contextmanager
def served(author: Any, tree: Path, home: Path) -> Iterator[RunningServer]:
    with running_server(tree / "run.yaml", home=home, command=(str(author.bin / "llamastack"),)) as server:
        yield server
        assert server.stop() == 0
    assert "Traceback" not in "".join(server.output)


def test_every_variant_is_checked() -> None:
    assert list(CHECKED) == list(VARIANTS)
    assert {each.auth for each in CHECKED.values()} == {"", *AUTHS}


# Two groups, each with an environment of its own, for two cores.
def group_of(variant: str) -> str:
    return "inference" if variant.startswith("inference") else "others"


@pytest.fixture(scope="session")
def packages(author: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, Path]]:
    """The packages of a group by variant: written by the command, built, and installed in one environment.

    Each step is one process for the whole group where it can be: to start pip takes longer than to install a package.
    """

    @functools.cache
    def made(group: str) -> Mapping[str, Path]:
        folder = tmp_path_factory.mktemp("packages")
        trees = {name: folder / f"llamastack-provider-{name}" for name in CHECKED if group_of(name) == group}
        first, *others = ([*answers(name, name, CHECKED[name].auth), "--defaults"] for name in trees)
        author.run("llamastack", "provider", "new", *first, cwd=folder)
        author.run("python", "-c", NEW_PACKAGES, json.dumps(others), cwd=folder)
        for tree in trees.values():
            run(sys.executable, "-m", "build", "--no-isolation", cwd=tree)
        wheels = [next(tree.glob("dist/*.whl")) for tree in trees.values()]
        sdists = [next(tree.glob("dist/*.tar.gz")) for tree in trees.values()]
        run(str(TOOLS / "twine"), "check", "--strict", *map(str, [*wheels, *sdists]), cwd=folder)
        author.install(*CONSTRAINTS, "--find-links", author.wheels, *(f"{wheel}[dev]" for wheel in wheels))
        author.pip("check")
        return trees

    return made


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=pytest.mark.xdist_group(f"provider_template_{group_of(name)}")) for name in CHECKED],
)
def test_what_is_made_is_sound_and_serves(
    variant: str,
    author: Any,
    packages: Callable[[str], Mapping[str, Path]],
    backend_of: Callable[[str], str],
    mypy_cache: Path,
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = packages(group_of(variant))[variant]
    for key, value in CHECKED[variant].environment.items():
        monkeypatch.setenv(f"{variant.replace('-', '_').upper()}_{key}", value.format(backend=backend_of(variant)))

    run(str(TOOLS / "ruff"), "format", "--check", ".", cwd=tree)
    run(str(TOOLS / "ruff"), "check", ".", cwd=tree)
    run(str(TOOLS / "mypy"), "--cache-dir", str(mypy_cache), cwd=tree)
    provider_type = ("" if variant.endswith("-in-process") else "remote::") + variant
    author.run("llamastack", "providers", "config-table", provider_type, "--write", "README.md", cwd=tree)
    assert "| config | type | default | what |" in (tree / "README.md").read_text("utf-8")
    author.run("llamastack", "providers", "config-table", provider_type, "--check", "README.md", cwd=tree)
    author.run("llamastack", "providers", "verify", provider_type, cwd=tree)
    author.run("python", "-m", "pytest", "-p", "no:cacheprovider", *CHECKED[variant].options, cwd=tree)

    for calls in filter(None, (CHECKED[variant].calls, CHECKED[variant].again)):
        with served(author, tree, own_home) as server:
            for call in calls:
                method = "GET" if call.body is None else "POST"
                reply = httpx.request(method, f"{server.url}/{call.path}", json=call.body, timeout=60)
                assert reply.is_success, reply.text
                assert call.holds in reply.text.replace('": ', '":')


@pytest.mark.parametrize("name", ["a", "x" * 24])
def test_any_name_is_formatted(name: str, tmp_path: Path) -> None:
    """Line lengths and the order of imports follow from the name, too."""
    for place, (variant, auth) in enumerate(COMBINATIONS):
        new(*answers(variant, name, auth), "--defaults", str(place), cwd=tmp_path)
    run(str(TOOLS / "ruff"), "format", "--check", ".", cwd=tmp_path)
    run(str(TOOLS / "ruff"), "check", ".", cwd=tmp_path)


@pytest.mark.parametrize("variant", CHECKED)
def test_the_workflow_does_what_the_readme_says(variant: str, tmp_path: Path) -> None:
    new(*answers(variant, "acme"), "--defaults", "made", cwd=tmp_path)
    workflow = yaml.safe_load((tmp_path / "made/.github/workflows/ci.yml").read_text("utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    table = next(each for each in commands if "config-table" in each)
    for command in ("ruff format --check .", "ruff check .", "mypy", table, "python -m build", "pytest"):
        assert command in commands
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    shown = "".join(file.read_text("utf-8") for file in (tmp_path / "made").rglob("*") if file.is_file())
    assert "{%" not in shown
    assert "[[ " not in shown
    assert "{{ " not in shown.replace("${{ matrix.python-version }}", "")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_it_says_what_to_do_next(tmp_path: Path) -> None:
    printed = new("--name", "acme", "--api", "safety", "--transport", "in-process", "--defaults", cwd=tmp_path).stdout
    assert printed.startswith("llamastack-provider-acme: safety provider acme, which begins with regular expressions.")
    assert "  cd llamastack-provider-acme\n" in printed
    assert "  llamastack run run.yaml\n" in printed
    spec = tmp_path / "llamastack-provider-acme/src/llamastack_provider_acme/__init__.py"
    assert 'description="Safety by Acme"' in spec.read_text("utf-8")


def test_what_is_told_of_it_is_written(tmp_path: Path) -> None:
    given = ("--description", "Löscht Ümlaute: it's 'good'", "--author", "O'Neill & Söhne <x@y.example>")
    new(*answers("safety-in-process", "acme"), *given, "made", "--defaults", cwd=tmp_path)
    run(str(TOOLS / "ruff"), "check", ".", cwd=tmp_path)
    assert "O'Neill & Söhne <x@y.example>" in (tmp_path / "made" / "LICENSE").read_text("utf-8")
    assert "Löscht Ümlaute: it's 'good'" in (tmp_path / "made" / "pyproject.toml").read_text("utf-8")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=tmp_path / "made")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "Acme!"], "--name: 'Acme!' is not 1 to 24 lower-case letters, digits and single dashes"),
        (["--name", ""], "--name: '' is not 1 to 24 lower-case letters"),
        (["--name", "a--b"], "--name: 'a--b' is not 1 to 24"),
        (["--name", "x" * 25], "is not 1 to 24"),
        (["--name", "llamastack"], "--name: 'llamastack' is reserved for llamastack"),
        (["--name", "llamastack-provider-acme"], "is reserved for llamastack"),
        (["--name", "remote"], "--name: 'remote' is reserved for llamastack"),
        ([], "--name is missing"),
        (["--name", "acme", "--api", "cooking"], "--api: 'cooking' is not in ['inference', 'safety', 'memory'"),
        (["--name", "acme", "--transport", "local"], "--transport: 'local' is not in ['openai', 'rest', 'sdk',"),
        (
            ["--name", "acme", "--api", "memory", "--transport", "openai"],
            "--transport: 'openai' is not in ['rest', 'sql'",
        ),
        (["--name", "acme", "--api", "agents", "--transport", "rest"], "--transport: 'rest' is not in ['in-process']"),
        (
            ["--name", "acme", "--auth", "password"],
            "--auth: 'password' is not in ['none', 'bearer', 'header', 'per-req",
        ),
        (
            ["--name", "acme", "--api", "memory", "--transport", "sql", "--auth", "bearer"],
            "--auth: the template for memory with the transport sql has no choice of keys; leave it out",
        ),
        (
            ["--name", "qdrant", "--api", "memory", "--transport", "sql"],
            "--name: the provider type 'remote::qdrant' of API 'memory' is already installed, by llamastack-provider-",
        ),
        (
            ["--name", "qdrant", "--api", "safety", "--transport", "in-process"],
            "--name: a package llamastack-provider-qdrant is already installed (",
        ),
        (["--name", "acme", "--description", 'a "quote"'], "--description: must be one line of 1 to 80 characters"),
        (["--name", "acme", "--author", "two\nlines"], "--author: must be one line of 1 to 80 characters"),
    ],
)
def test_answers_that_do_not_fit(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = new(*arguments, "--defaults", "made", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "home"])


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ([], "--name is missing"),
        (["--name", "acme"], "give --api, --transport, --auth, --description, --author, or --defaults"),
        (["--name", "acme", "--api", "memory", "--transport", "sql"], "give --description, --author, or --defaults"),
    ],
)
def test_answers_that_are_missing_where_nobody_can_be_asked(arguments: list[str], missing: str, tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == 2
    assert missing in done.stderr
    assert not list(tmp_path.glob("*acme*"))


def test_a_folder_that_is_there(tmp_path: Path) -> None:
    made = tmp_path / "made"
    given = (*answers("safety-in-process", "acme"), "--defaults")
    made.mkdir()
    new(*given, "made", cwd=tmp_path)  # an empty one will do
    (made / "notes.txt").write_text("mine")
    (made / "run.yaml").write_text("old")
    refused = new(*given, "made", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "made already exists and is not empty; --force" in refused.stderr
    assert (made / "run.yaml").read_text() == "old"
    new(*given, "made", "--force", cwd=tmp_path)
    assert "safety:" in (made / "run.yaml").read_text()
    assert (made / "notes.txt").read_text() == "mine"

    (tmp_path / "llamastack-provider-acme").write_text("a file")
    refused = new(*given, cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "llamastack-provider-acme already exists and is not a folder" in refused.stderr


def test_help(tmp_path: Path) -> None:
    shown = command("--help", cwd=tmp_path).stdout
    for option in ("--name", "--api", "--transport", "--auth", "--defaults", "--force", "DEST"):
        assert option in shown


def test_the_command_costs_nothing_until_it_is_used(tmp_path: Path) -> None:
    code = "import sys, llamastack_provider_template; sys.exit('copier' in sys.modules or 'jinja2' in sys.modules)"
    run(sys.executable, "-c", code, cwd=tmp_path)


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *arguments: str, cwd: Path, environment: Mapping[str, str]) -> None:
        self._mine, theirs = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [str(TOOLS / "llamastack"), "provider", "new", *arguments],
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment},
        )
        os.close(theirs)

    def read_until(self, text: str, within_s: float = 30) -> None:
        """What is shown up to `text`; raises AssertionError where it does not come."""
        deadline = time.monotonic() + within_s
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._mine], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._mine, 65536).decode(errors="replace")
                except OSError:  # it has ended
                    assert text in self.shown, self.shown

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def close(self) -> int:
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            os.close(self._mine)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where the command keeps what is not ready."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_it_asks(tmp_path: Path, scratch: Path) -> None:
    terminal = Terminal("made", cwd=tmp_path, environment={"TMPDIR": str(scratch)})
    terminal.read_until("Name of the provider")
    terminal.type("acme\r")
    terminal.read_until("API that it implements")
    terminal.type("\r")
    terminal.read_until("How it reaches what does the work")
    terminal.type("\x1b[B\r")
    terminal.read_until("The key that the service wants")
    terminal.type("\r")
    terminal.read_until("What it does, in one line")
    terminal.type("\r")
    terminal.read_until("Author of the package")
    terminal.type("\r")
    terminal.read_until("Next:")
    assert terminal.close() == 0
    assert "HttpBackend" in (tmp_path / "made/src/llamastack_provider_acme/inference.py").read_text("utf-8")
    assert not list(scratch.iterdir())


def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path, scratch: Path) -> None:
    terminal = Terminal("made", cwd=tmp_path, environment={"TMPDIR": str(scratch)})
    terminal.read_until("Name of the provider")
    terminal.type("acme\r")
    terminal.read_until("API that it implements")
    terminal.type("\x03")
    assert terminal.close() == 130
    assert not (tmp_path / "made").exists()
    assert not list(scratch.iterdir())


def test_nothing_is_left_when_it_cannot_be_written(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is broken in the middle: its template is."""
    from llamastack_provider_template import new

    broken = tmp_path / "template"
    run("cp", "-r", str(new.TEMPLATE), str(broken), cwd=tmp_path)
    (broken / "template" / "zzz.txt.jinja").write_text("{{ 1 / 0 }}")
    code = f"""
import sys
from pathlib import Path
from llamastack_cli.group import cli
from llamastack_provider_template import new
new.TEMPLATE = Path({str(broken)!r})
sys.exit(cli.run(sys.argv[1:]))
"""
    monkeypatch.setenv("TMPDIR", str(scratch))
    given = ("provider", "new", "made", *answers("safety-in-process", "acme"), "--defaults")
    done = run(sys.executable, "-c", code, *given, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "made").exists()
    assert not list(scratch.iterdir())
