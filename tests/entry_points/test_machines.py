"""What the scripts make of machines that are set up in other ways than this one; programs in the place of those that say so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script on a machine with these programs (name=lines of bash); return what it says and its exit status."""

    def with_programs(
        *command: str, terminal: bool = False, variables: dict[str, str] | None = None, **programs: str
    ) -> str:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, lines in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
            (folder / name).chmod(0o755)
        # With a terminal, but none to read from: as Vagrant starts scripts.
        words = f"{shlex.join(command)} </dev/null"
        result = subprocess.run(
            ["script", "-qec", words, "/dev/null"] if terminal else ["bash", "-c", words],
            cwd=ROOT,
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            check=False,
        )
        return f"{result.stdout}exit status {result.returncode}"

    return with_programs


USER = 'case $1 in -u) echo 1000 ;; -un) echo person ;; *) exec /usr/bin/id "$@" ;; esac'
# Takes a password, and gives root's rights to who has typed it.
SUDO = """case $1 in
  -n) exit 1 ;;
  -v) echo "[sudo] password for person:" ;;
  -E) "${@:2}" ;;
esac"""


def test_sudo_asks_at_the_terminal(run: Run) -> None:
    said = run("scripts/as-root", "echo", "as root", terminal=True, id=USER, sudo=SUDO)
    assert "as root" in said and "exit status 0" in said, said


def test_sudo_without_a_terminal(run: Run) -> None:
    said = run("scripts/as-root", "echo", "as root", id=USER, sudo=SUDO)
    assert "sudo has no terminal to ask person for a password" in said, said


def test_a_person_without_rights(run: Run) -> None:
    said = run("scripts/as-root", "echo", "as root", terminal=True, id=USER, sudo="exit 1")
    assert "sudo does not give them to person" in said, said


def test_a_persons_own_vagrantfile(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Vagrantfile").write_text(
        'Vagrant.configure("2") { |config| config.ssh.username = "person" }\n'
    )
    said = run("vagrant", "status", variables={"VAGRANT_HOME": str(tmp_path)})
    assert f"{tmp_path}/Vagrantfile is for other hosts" in said, said


# Less what does not matter here. Docker's and ufw's as iptables-nft makes them, in one table.
RULESETS = {
    "LXC's own": """table inet lxc {
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "lxcbr0" accept
	}
}
""",
    "Docker": """# Warning: table ip filter is managed by iptables-nft, do not touch!
table ip filter {
	chain DOCKER-USER {
		counter packets 0 bytes 0 return
	}

	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter packets 0 bytes 0 jump DOCKER-USER
		oifname "docker0" ct state established,related counter packets 0 bytes 0 accept
	}
}
""",
    "ufw": """table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
		counter packets 9 bytes 9 jump ufw-user-input
	}

	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter packets 9 bytes 9 jump ufw-user-forward
	}

	chain ufw-user-input {
		ip protocol tcp tcp dport 22 counter packets 0 bytes 0 accept
	}

	chain ufw-user-forward {
	}
}
""",
    "firewalld": """table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		jump filter_INPUT_ZONES
		reject with icmpx admin-prohibited
	}

	chain filter_INPUT_ZONES {
		goto filter_IN_public
	}

	chain filter_IN_public {
		tcp dport 22 accept
	}
}
""",
    "a person's own": """table inet filter {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		counter packets 0 bytes 0 drop
	}
}
""",
}


@pytest.mark.parametrize(
    ("ruleset", "opened_at", "fix"),
    [
        ("Docker", ["DOCKER-USER"], "iptables -I DOCKER-USER -i lxcbr0 -j ACCEPT"),
        ("ufw", ["ufw-user-input", "ufw-user-forward"], "ufw allow in on lxcbr0"),
        ("firewalld", ["filter_INPUT_ZONES"], "firewall-cmd --permanent --zone=trusted"),
        ("a person's own", ["forward"], "nft insert rule inet filter forward iifname lxcbr0 accept"),
    ],
)
def test_another_firewall_that_closes_the_hosts_off(
    run: Run, ruleset: str, opened_at: list[str], fix: str
) -> None:
    machine = {
        "ip": "echo '2: lxcbr0 inet 10.0.3.1/24 '",
        "dpkg-query": "echo -n installed",
        "tee": "cat >/dev/null",
    }

    def up(rules: str) -> str:
        return run("scripts/lxc-network", "up", nft=f"cat <<'RULES'\n{rules}RULES", **machine)

    closed = RULESETS["LXC's own"] + RULESETS[ruleset]
    said = up(closed)
    assert " to LXC hosts" in said and f"as root: {fix}" in said, said
    for chain in opened_at:
        head = rf"(chain {chain} {{\n(?:\t\ttype .*\n)?)"
        closed = re.sub(head, r'\1\t\tiifname "lxcbr0" counter packets 0 bytes 0 accept\n', closed)
    assert up(closed) == "exit status 0"


DEBIAN = """Types: deb deb-src
URIs: http://mirror.example/debian
# As the installer has it.
Suites: bookworm bookworm-updates trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEYCQjIxYJKwYBBAHaRw8BAQdA
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: file:/srv/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://another.example/debian
Suites: bookworm
Components: main
"""
THIRD_PARTIES = """deb [arch=amd64 signed-by=KEYS/docker.asc] https://docker.example/linux/debian bookworm stable
deb https://editor.example/repos/code stable main
deb cdrom:[Debian GNU/Linux 12.0.0 _Bookworm_ - Official amd64 NETINST]/ bookworm main
deb http://127.0.0.1:3142/debian bookworm main
deb-src https://person:secret@own.example/debian bookworm main
"""


@pytest.fixture
def apt(tmp_path: Path) -> Callable[..., tuple[dict[str, str], str]]:
    """What hosts get of an apt that has these files in /etc/apt: those by path, and what is said to be left out."""

    def for_hosts(files: dict[str, str]) -> tuple[dict[str, str], str]:
        for name, text in files.items():
            path = tmp_path / "etc/apt" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("KEYS", f"{tmp_path}/etc/apt/keyrings"))
        (tmp_path / "apt.conf").write_text(f'Dir "{tmp_path}/";\n')
        folder = tmp_path / "for hosts"
        left_out = subprocess.check_output(
            [sys.executable, "-I", "scripts/apt_settings.py", str(folder)],
            cwd=ROOT,
            env=os.environ | {"APT_CONFIG": str(tmp_path / "apt.conf")},
            text=True,
        )
        written = {
            str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*")
            if path.is_file() and "ca-certificates" not in path.parts
        }
        return {name.removeprefix(str(tmp_path)[1:] + "/"): text for name, text in written.items()}, left_out

    return for_hosts


def test_hosts_get_debians_sources_alone(apt) -> None:
    files, left_out = apt(
        {
            "sources.list.d/debian.sources": DEBIAN,
            "sources.list": THIRD_PARTIES,
            "sources.list.d/old.list.disabled": "deb http://old.example/debian bookworm main\n",
            "keyrings/docker.asc": "Docker's",
            "trusted.gpg.d/editor.asc": "the editor's",
            "preferences.d/pin": "Package: *\nPin: release n=trixie\nPin-Priority: 900\n",
            "apt.conf.d/50hooks": 'DPkg::Post-Invoke { "/usr/bin/of-this-machine"; };\n',
            "auth.conf.d/own.conf": "machine docker.example login person password secret\n",
        }
    )
    assert list(files) == ["etc/apt/sources.list.d/debian.sources"], files
    (text,) = files.values()
    assert "types: deb\nuris: http://mirror.example/debian\nsuites: bookworm bookworm-updates\n" in text
    assert "\n .\n mDMEYCQjIxYJKwYBBAHaRw8BAQdA\n" in text
    assert text.count("uris") == 1
    assert [line.split()[1] for line in left_out.splitlines()] == [
        "https://docker.example/linux/debian",
        "https://editor.example/repos/code",
        "cdrom:[Debian",
        "http://127.0.0.1:3142/debian",
        "file:/srv/debian",
    ]


def test_hosts_get_the_way_to_a_mirror(apt) -> None:
    """Its key, its login, and proxies that they reach."""
    files, left_out = apt(
        {
            "sources.list": "deb [arch=amd64,arm64 signed-by=KEYS/own.asc] https://mirror.example:8443/debian bookworm main # own\n"
            "deb mirror+file:KEYS/mirrors bookworm-security main\n",
            "keyrings/own.asc": "the mirror's",
            "keyrings/mirrors": "http://listed.example/debian\n",
            "trusted.gpg.d/own.asc": "trusted everywhere",
            "auth.conf": "machine mirror.example login a password b\nmachine other.example login c password d\n",
            "auth.conf.d/listed.conf": "machine http://listed.example/debian\nlogin e\npassword f\n",
            "apt.conf": 'Acquire::https::Proxy "http://proxy.example:3128";\n',
            "apt.conf.d/01cache": 'Acquire::http { Proxy "http://a:b@localhost:3142"; Proxy-Auto-Detect "/usr/bin/find"; };\n',
        }
    )
    text = files.pop("etc/apt/sources.list.d/debian.sources")
    assert "architectures: amd64 arm64\n" in text
    assert files == {
        "etc/apt/keyrings/own.asc": "the mirror's",
        "etc/apt/keyrings/mirrors": "http://listed.example/debian\n",
        "etc/apt/trusted.gpg.d/own.asc": "trusted everywhere",
        "etc/apt/auth.conf.d/debian.conf": "machine mirror.example login a password b\n"
        "machine http://listed.example/debian\nlogin e\npassword f\n",
        "etc/apt/apt.conf.d/90archives": 'Acquire::https::Proxy "http://proxy.example:3128";\n',
    }
    assert left_out == (
        "Acquire::http::Proxy http://localhost:3142\nAcquire::http::Proxy-Auto-Detect /usr/bin/find\n"
    )
