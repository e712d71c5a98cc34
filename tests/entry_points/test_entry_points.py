"""What a person types, in a clone of its own at an odd place, with what a person's shell and account may hold."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a shell, a template, ssh, YAML and Python's string formatting would each read something into.
ODD = "o d ü'q\"\\#%sx"
NO_ENVIRONMENT = "environment 'entry' does not exist yet"


def files(of: Path) -> list[str]:
    """Every file of the repository that git knows, and that is there."""
    listed = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=of, text=True)
    return [name for name in listed.split("\0") if name and os.path.lexists(of / name)]


@dataclass
class Clone:
    """A copy of the tree, and an account beside it."""

    root: Path
    home: Path

    def run(
        self, *command: str, check: bool = True, shell: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there, as an account that has nothing but these variables; or, after `shell`, in a shell."""
        # The way to the registries is this machine's.
        inherited = re.compile(
            r"PATH|(PIP|UV)_(?!CONFIG)\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|\w+_(proxy|PROXY)"
        )
        clean = {name: value for name, value in os.environ.items() if inherited.fullmatch(name)}
        places = {"HOME": str(self.home), "MILLRACE_ENV": "entry", "VAGRANT_DEFAULT_PROVIDER": "virtualbox"}
        places["XDG_CACHE_HOME"] = str(self.home / ODD.replace('"', "").replace("\\", ""))
        places |= {f"XDG_{name}_HOME": str(self.home / f"{name} {ODD}") for name in ("STATE", "CONFIG")}
        if "UV_CACHE_DIR" not in clean:
            # What is there need not be fetched.
            places["UV_CACHE_DIR"] = str(Path.home() / ".cache/uv")
        result = subprocess.run(
            ["bash", "-c", f'{shell}; "$@"', "shell", *command] if shell else command,
            cwd=self.root,
            env=clean | places | variables,
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def refused(self, *command: str, shell: str = "", **variables: str) -> str:
        """Run a command that must fail; return what it says."""
        result = self.run(*command, check=False, shell=shell, **variables)
        assert result.returncode != 0, result.stdout
        return result.stdout + result.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """With tools of its own, in spite of settings for other packages and of tools that were made for another place."""
    base = tmp_path_factory.mktemp("person")
    made = Clone(base / ODD / "clone", base / "home")
    for name in files(ROOT):
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, made.root / name, follow_symlinks=False)
    moved = made.root / ".venv"
    (moved / "bin").mkdir(parents=True)
    (moved / ".lock").write_text((ROOT / ".venv/.lock").read_text())
    (moved / "bin/python").symlink_to("/usr/bin/python3")
    elsewhere = str(base / "elsewhere")
    for file, text in {
        "pip/pip.conf": f"[global]\ntarget = {elsewhere}\n[install]\nuser = true\n",
        "uv/uv.toml": f'[pip]\ntarget = "{elsewhere}"\nsystem = true\n',
    }.items():
        path = made.home / f"CONFIG {ODD}" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
    made.run(
        "scripts/setup", PIP_USER="1", PIP_REQUIRE_VIRTUALENV="0", PIP_PREFIX=elsewhere, UV_SYSTEM_PYTHON="1"
    )
    assert not Path(elsewhere).exists()
    return made


@pytest.fixture(scope="module")
def environment(clone: Clone) -> str:
    """An environment there, whose hosts are not made; the start of their names."""
    clone.run(
        "scripts/run", "python", "-m", "millrace.environment", "show", "--create", MILLRACE_ENV="entry-made"
    )
    return "entry-made"


def test_tools_are_made_once_for_their_place(clone: Clone) -> None:
    stamp = clone.root / ".venv/.lock"
    made = stamp.stat().st_mtime_ns
    clone.run("scripts/setup")
    assert stamp.stat().st_mtime_ns == made
    assert str(clone.root) in clone.run(".venv/bin/ansible", "--version").stdout


SHELL_STATE = {
    "search path of cd": {"CDPATH": ".:/"},
    "functions": {"BASH_FUNC_cd%%": "() { exit 9; }", "BASH_FUNC_dirname%%": "() { echo /; }"},
    "startup files": {"BASH_ENV": "/dev/stdin", "ENV": "/dev/stdin"},
    "options": {"SHELLOPTS": "noglob:noexec", "BASHOPTS": "failglob", "POSIXLY_CORRECT": "1"},
    "Python's home": {"PYTHONHOME": "/nonexistent"},
    "Python's modules": {"PYTHONPATH": "~", "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error"},
    "another environment": {"VIRTUAL_ENV": "/nonexistent", "CONDA_PREFIX": "/nonexistent"},
    "names that make knows": {"HOSTS": "laptop", "NAME": "laptop", "MAKEFLAGS": "-j4"},
    "temporary files": {"TMPDIR": "/nonexistent/t m p"},
    "no terminal, no language": {"TERM": "", "LANG": ""},
}


@pytest.mark.parametrize("state", SHELL_STATE.values(), ids=SHELL_STATE)
def test_nothing_depends_on_the_shell(clone: Clone, state: dict[str, str]) -> None:
    (clone.home / "yaml.py").write_text("raise SystemExit('the one of another project')\n")
    variables = {name: value.replace("~", str(clone.home)) for name, value in state.items()}
    said = clone.refused("make", "secrets", **variables)
    assert NO_ENVIRONMENT in said, said
    assert said.count("error: ") == 1, said


@pytest.mark.parametrize("state", ["umask 077", "exec <&-", "cd scripts"])
def test_nothing_depends_on_the_process(clone: Clone, state: str) -> None:
    program = "import os, sys, yaml; print(os.getcwd(), oct(os.umask(0)), sys.stdin is not None)"
    said = clone.run(str(clone.root / "scripts/run"), "python", "-c", program, shell=state).stdout
    assert said == f"{clone.root} 0o22 True\n"
    state += f"; cd {shlex.quote(str(clone.root / 'scripts'))}"
    clone.run("bash", "setup", shell=state, FOO="1")


def test_an_empty_home_is_none(clone: Clone) -> None:
    said = clone.run("scripts/run", "sh", "-c", 'echo "$CACHE"', HOME="", XDG_CACHE_HOME="").stdout
    assert said == f"{pwd.getpwuid(os.getuid()).pw_dir}/.cache/millrace\n"


def test_a_command_of_the_clone_s_python_is_as_one_of_make(clone: Clone, tmp_path: Path) -> None:
    """Whose shell has settings for other projects, and whose temporary files lie where no socket can."""
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    (tmp_path / "yaml.py").write_text("raise SystemExit('the one of another project')\n")
    settings = {
        "ANSIBLE_TRANSPORT": "local",
        "ANSIBLE_RUN_TAGS": "none",
        "ANSIBLE_VAULT_PASSWORD_FILE": "/nonexistent",
    }
    settings |= {
        "TF_WORKSPACE": "dev",
        "TF_CLI_ARGS_output": "-bad",
        "TMPDIR": str(deep),
        "PYTHONPATH": str(tmp_path),
    }
    program = "import os, sys, yaml, tempfile; print(os.getcwd(), oct(os.umask(0)), tempfile.gettempdir(), sys.argv, *os.environ)"
    python, state = str(clone.root / ".venv/bin/python"), "cd roles; umask 077"
    said = clone.run(python, "-c", program, "a  b", shell=state, **settings).stdout
    assert said.startswith(f"{clone.root}/roles 0o22 /tmp ['-c', 'a  b'] ")
    assert set(said.split()) & set(settings) == set()
    said = clone.refused(".venv/bin/ansible-playbook", "site.yml", **settings)
    assert NO_ENVIRONMENT in said, said


@pytest.mark.parametrize(
    "language", [{"LC_ALL": "en_US.UTF-8"}, {"LANG": "tr_TR.UTF-8"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {}]
)
def test_no_language_is_needed(clone: Clone, language: dict[str, str]) -> None:
    """Nor by who starts a command of .venv without make."""
    said = clone.refused(".venv/bin/ansible-playbook", "ansible/status.yml", **language, LANGUAGE="de")
    assert NO_ENVIRONMENT in said, said


def test_the_clones_configuration_is_read(clone: Clone, environment: str) -> None:
    """Whoever may write to it, whatever the shell names."""
    clone.root.chmod(0o777)
    own = {
        "LC_ALL": "en_US.UTF-8",
        "ANSIBLE_CONFIG": "/dev/null",
        "ANSIBLE_INVENTORY": "/dev/null",
        "ANSIBLE_STRATEGY": "free",
    }
    for target in ("status", "verify"):
        assert NO_ENVIRONMENT in clone.refused("make", target, **own)
    listed = clone.run(
        ".venv/bin/ansible-playbook",
        "site.yml",
        "--list-hosts",
        MILLRACE_ENV=environment,
        ANSIBLE_CONFIG="/dev/null",
    ).stdout
    assert f"{environment}-control" in listed
    clone.root.chmod(0o755)


def test_a_playbook_without_a_host_is_an_error(clone: Clone, environment: str, tmp_path: Path) -> None:
    def play(playbook: str, *arguments: str, **settings: str) -> str:
        meant = [f"{name}={value}" for name, value in settings.items()]
        command = ("scripts/run", "env", *meant, "ansible-playbook", playbook, *arguments)
        return clone.refused(*command, MILLRACE_ENV=environment)

    said = play("ansible/verify.yml", "-l", f"{environment}-data1")
    assert f"--limit {environment}-data1 has none of it" in said
    assert f"relay is {environment}-control" in said
    assert "no hosts to target" in play("ansible/status.yml", "-l", "nothing")
    said = play("site.yml", "-i", "laptop,", ANSIBLE_INVENTORY_ENABLED="ansible.builtin.host_list")
    assert "No host of an environment is in laptop," in said
    shutil.copytree(clone.root / "ansible", tmp_path / "ansible")
    said = play(
        str(tmp_path / "ansible/status.yml"),
        "-l",
        "nothing",
        ANSIBLE_INVENTORY="/dev/null",
        ANSIBLE_INVENTORY_ENABLED="ansible.builtin.ini",
    )
    assert f"and not {tmp_path}/ansible.cfg" in said


def test_a_playbook_without_a_task_is_an_error(clone: Clone, environment: str) -> None:
    """What names no part of it, or would only pretend to look, looks at nothing and ends green."""

    def play(*arguments: str) -> str:
        words = ("scripts/run", "ansible-playbook", *arguments, "--list-hosts")
        done = clone.run(*words, check=False, MILLRACE_ENV=environment)
        return done.stdout + done.stderr if done.returncode else ""

    for asked in (["--tags", "kafak"], ["--tags", "kafka,kafak"], ["--skip-tags", "all"]):
        assert "Nothing here has the tag" in play("site.yml", *asked)
    for asked in (["--check"], ["--tags", "kafka"], ["--skip-tags", "all"]):
        assert "would look at nothing" in play("ansible/verify.yml", *asked)
    said = play("ansible/restart.yml", "-e", "service=kafka", "-l", f"{environment}-control")
    assert "This is for kafka" in said
    for asked in (
        ["--tags", "always"],
        ["--tags", "firewall,users_stream", "--check"],
        ["--skip-tags", "java,notest"],
    ):
        assert play("site.yml", *asked) == ""
    assert play("ansible/restart.yml", "-e", "service=kafka", "-l", f"{environment}-data1") == ""


MAKES_BELIEVE = (
    ["-i", "status"],
    ["-t", "status"],
    ["-e", "status"],
    ["-ki", "verify"],
    ["status", "HOSTS=terrafrom"],
)


@pytest.mark.parametrize("words", MAKES_BELIEVE, ids=" ".join)
def test_make_does_what_it_is_asked(clone: Clone, words: list[str]) -> None:
    assert "fix: " in clone.refused("make", *words)
    assert clone.run("make", "--no-print-directory", "-kj4", "NAME=tie", "help").stdout


def test_what_hosts_install_is_found_at_any_path(clone: Clone, environment: str) -> None:
    said = clone.run(
        "scripts/run",
        "ansible",
        "depot",
        "-m",
        "ansible.builtin.debug",
        "-a",
        "msg='{{ depot_wheel | basename }} {{ python_environment_wheel_sha256 }} {{ airflow_dags | map(\"basename\") }}'",
        MILLRACE_ENV=environment,
    ).stdout
    assert re.search(r"millrace-[\w.]+-py3-none-any\.whl [0-9a-f]{64}\s+\[.*users_ingest\.py", said), said


def test_a_path_that_cannot_be_is_refused(clone: Clone, tmp_path: Path) -> None:
    for name in ("a:b", "a\nb", "a$b", "a[b]", "a{b", "a,b"):
        (tmp_path / name / "scripts").mkdir(parents=True)
        for script in ("lib.sh", "setup"):
            shutil.copy(clone.root / "scripts" / script, tmp_path / name / "scripts")
        said = clone.refused(str(tmp_path / name / "scripts/setup"))
        reason = "the path of a clone can't have a comma" if "," in name else "a path can't have a colon"
        assert f"error: {reason}" in said
    said = clone.refused("scripts/setup", XDG_STATE_HOME=str(tmp_path / "$b"))
    assert "error: a path can't have a colon" in said


@pytest.mark.parametrize("strategy", ["linear", "mitogen_linear"])
@pytest.mark.parametrize("name", ["entry", "entry-made"])
def test_this_machine_takes_tasks(clone: Clone, environment: str, name: str, strategy: str) -> None:
    """Those that are delegated to it, and those that make an environment's hosts, when there is no such environment yet."""
    said = clone.run(
        "scripts/run",
        "env",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=false",
        "ansible",
        "localhost",
        "-a",
        "env",
        MILLRACE_ENV=name,
        ANSIBLE_STRATEGY=strategy,
    ).stdout
    assert f"\nMILLRACE_ENV={name}\n" in said, "it is the environment that is meant"
    assert "SUDO_USER" not in said


def test_links_that_are_files_are_refused(clone: Clone) -> None:
    link = clone.root / "inventories/vagrant/group_vars"
    target = link.readlink()
    link.unlink()
    link.write_text(str(target))
    assert "git has checked links out as files" in clone.refused("make", "secrets")
    link.unlink()
    link.symlink_to(target)


PROXIES = [case(f"{kind}_proxy") for kind in ("http", "https", "all") for case in (str.lower, str.upper)]


def exports(clone: Clone, **variables: str) -> dict[str, str]:
    """What pip and uv are told of the way to packages."""
    text = clone.run(".venv/bin/python", "scripts/package_settings.py", **variables).stdout
    return dict(re.findall(r"^export (\w+)='?(.*?)'?$", text, re.MULTILINE))


def test_a_mirror_is_inherited(clone: Clone, tmp_path: Path) -> None:
    """From the files and variables of pip and of uv, each also for the other one; where packages go, from neither."""
    url, another = "https://mirror.example/simple", "https://more.example/simple"
    (tmp_path / "pip").mkdir()
    (tmp_path / "uv").mkdir()
    pip, uv = tmp_path / "pip/pip.conf", tmp_path / "uv/uv.toml"
    nothing = dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_CERT", "SSL_CERT_FILE"), "")
    nothing |= {"REQUESTS_CA_BUNDLE": "", "XDG_CONFIG_HOME": str(tmp_path)}

    pip.write_text(
        f"[global]\nindex-url = {url}\nextra-index-url =\n  {another}\ncert = /ca.pem\ntarget = /x\n"
    )
    found = exports(clone, **nothing)
    assert found["PIP_INDEX_URL"] == found["UV_DEFAULT_INDEX"] == url
    assert found["PIP_EXTRA_INDEX_URL"] == found["UV_INDEX"] == another
    assert found["PIP_CERT"] == found["SSL_CERT_FILE"] == "/ca.pem"
    assert "PIP_TARGET" not in found

    proxy, another_proxy = "http://proxy.example:3128", "http://another.example:3128"
    pip.write_text(f"[global]\nproxy = {proxy}\nclient-cert = /login.pem\n")
    direct = nothing | dict.fromkeys(PROXIES, "")
    found = exports(clone, **direct)
    assert found["PIP_PROXY"] == found["HTTP_PROXY"] == found["HTTPS_PROXY"] == proxy
    assert found["PIP_CLIENT_CERT"] == found["SSL_CLIENT_CERT"] == "/login.pem"
    assert "HTTP_PROXY" not in exports(clone, **(direct | {"https_proxy": another_proxy}))

    pip.unlink()
    uv.write_text(f'[[index]]\nname = "own"\nurl = "{url}"\ndefault = true\n[pip]\ntarget = "/x"\n')
    found = exports(clone, **nothing)
    assert found["PIP_INDEX_URL"] == found["UV_DEFAULT_INDEX"] == url
    assert exports(clone, **(nothing | {"UV_DEFAULT_INDEX": another}))["PIP_INDEX_URL"] == another


def test_lines_end_as_they_do_here(tmp_path: Path) -> None:
    """Whatever git is set to: scripts would not start, and hashes would differ."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in (".gitattributes", "scripts/up", "requirements/hosts.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def git(*command: str) -> str:
        settings = ["-c", "core.autocrlf=true", "-c", "user.name=x", "-c", "user.email=x@localhost"]
        return subprocess.check_output(["git", *settings, *command], cwd=tmp_path, text=True)

    git("add", "-A")
    git("commit", "-qm", "x")
    git("rm", "-rqf", "--ignore-unmatch", "scripts", "requirements")
    git("checkout", "-q", "HEAD", "--", ".")
    assert "w/crlf" not in git("ls-files", "--eol")
    assert b"\r" not in (tmp_path / "scripts/up").read_bytes()
