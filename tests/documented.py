"""Every command that README.md and CONTRIBUTING.md show, and the test that runs it.

`tests/repo/test_documented.py` holds the pages to these tables; `tests/platform/test_documented.py` runs what a person types
beside a running platform.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")
# What a command begins with, after variables of its own.
COMMAND = re.compile(
    r"(?:\w+=\S+ )*(?:make|scripts/[\w-]+|ansible(?:-\w+)?|terraform|vagrant|molecule|pytest|millrace|nodetool|cqlsh|zkCli|psql"
    r"|airflow|kafka-[\w-]+|nft|sudo|eval|export|cd|source|apt)(?= |$)"
)
# Programs and folders that the pages name, which nobody types like this.
NAMES = {"millrace", "scripts/lxc-hosts"}

# Typed at the root of the repository. What is said of the default environment is done to the one under test.
AT_THE_ROOT = (
    "make",
    "make status",
    "make secrets",
    "make secrets NAME=airflow_admin",
    "make verify",
    "ansible-playbook site.yml --tags kafka --check --diff",
)
# The same, in an environment whose hosts are not Terraform's: refused by its name, before anything is done.
REFUSED = ("make up HOSTS=terraform", "make status HOSTS=terraform")
# Typed as root on a host, with what it reads where it would wait for a person; by the service whose host it is.
ON_A_HOST = {
    "kafka-topics --list": ("kafka", ""),
    "nodetool status": ("cassandra", ""),
    "cqlsh": ("cassandra", "SELECT release_version FROM system.local;\n"),
    "zkCli": ("zookeeper", "ls /\nquit\n"),
    "psql": ("postgresql", "SELECT 1;\n"),
    "airflow version": ("airflow", ""),
    "nft list table inet millrace": ("kafka", ""),
}
# Run by another test or target: the file that does it, and what stands there.
ELSEWHERE = {
    "make up": ("tests/platform/test_again.py", r'"make", "up"'),
    "make down": ("tests/entry_points/test_vagrant.py", r'"make", "down"'),
    "vagrant up": ("tests/entry_points/test_vagrant.py", r'"vagrant", "up"'),
    "vagrant ssh mill-data1": ("tests/entry_points/test_vagrant.py", r'"vagrant", "ssh"'),
    "sudo -i": ("tests/entry_points/test_vagrant.py", r"sudo -i"),
    "MILLRACE_TOPOLOGY=single make up": (
        "Makefile",
        r"bench: export MILLRACE_ENV := bench\n(.*\n)\tscripts/up",
    ),
    "source .venv/bin/activate": ("tests/platform/test_documented.py", r"source \.venv/bin/activate"),
    "scripts/setup && source .venv/bin/activate": (
        "tests/platform/test_documented.py",
        r"source \.venv/bin/activate",
    ),
    "millrace republish --batch ID": ("tests/operations/test_deletions.py", r"millrace republish --batch"),
    "millrace audit": ("tests/platform/test_flow.py", r"millrace audit"),
    "ansible-playbook site.yml": ("molecule/default/molecule.yml", r"converge: .*site\.yml"),
    "ansible-playbook ansible/restart.yml -e service=kafka": (
        "tests/operations/test_restart.py",
        r"ansible/restart\.yml",
    ),
    "ansible-playbook ansible/reboot.yml -l mill-data1": (
        "tests/operations/test_restart.py",
        r"ansible/reboot\.yml",
    ),
    "ansible-playbook -i inventories/terraform site.yml": (
        "tests/terraform/test_local.py",
        r'"inventories/terraform", "site\.yml"',
    ),
    'eval "$(scripts/terraform-hosts prepare)"': (
        "tests/terraform/test_local.py",
        r"scripts/terraform-hosts prepare",
    ),
    "terraform -chdir=terraform/environments/local apply": (
        "scripts/terraform-hosts",
        r'-chdir="\$folder" apply',
    ),
    "export MILLRACE_ENV=prod MILLRACE_TERRAFORM=aws TF_VAR_operator_cidrs='[\"203.0.113.7/32\"]'": (
        "tests/terraform/test_aws.py",
        r"operator_cidrs",
    ),
    "TF_VAR_protected=false scripts/terraform-hosts make": (
        "tests/terraform/test_aws.py",
        r'TF_VAR_protected="false"',
    ),
    "make test": (".ci/run", r"make test"),
    "make lint": ("Makefile", r"^test: .*\blint\b"),
    "make test-terraform": ("Makefile", r"^test: .*\btest-terraform\b"),
    "make locks": ("Makefile", r"^\t\$\(MAKE\) locks$"),
    "make depot-rebuild": ("Makefile", r"^\t\$\(MAKE\) depot-rebuild$"),
    "make faults-down": ("Makefile", r"MILLRACE_ENV=faults scripts/down"),
    "molecule test": ("Makefile", r"molecule test"),
    "molecule converge": ("Makefile", r"molecule test"),
    "molecule destroy": ("Makefile", r"molecule test"),
    "cd roles/zookeeper && molecule test": ("Makefile", r"^test-roles:"),
    "MILLRACE_ENV=test pytest -q tests/platform -k zookeeper": (
        "molecule/default/molecule.yml",
        r"directory: .*tests/platform",
    ),
    "scripts/test-needs && pytest -q tests/unit -k store": (
        "Makefile",
        r"scripts/test-needs\n.*pytest -q tests/unit",
    ),
    "scripts/test-dags -q -k windows": ("Makefile", r"scripts/test-dags -q"),
    "scripts/test-spark -q -k rollup": ("Makefile", r"scripts/test-spark -q"),
}
# Tests themselves, each a target of the Makefile.
TESTS = (
    "make test-apart",
    "make test-depot",
    "make test-operations",
    "make test-roles",
    "make test-vm",
    "make faults",
    "make bench",
)
# Asks apt, which only says what it would do.
SIMULATED = ("apt install git make",)


def commands() -> set[str]:
    """Every command of the pages: lines of indented blocks less their comments, and code within the text."""
    found = set()
    for page in PAGES:
        # The picture is no command.
        text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        lines = re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
        found |= {re.split(r" {2,}", line)[0] for line in lines}
        found |= {" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)}
    return {command for command in found if COMMAND.match(command)} - NAMES
