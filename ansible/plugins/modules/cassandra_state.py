"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from ansible.module_utils import declared_state
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: cassandra_state
short_description: Hold a Cassandra ring's roles, and the copies of every row, to what is declared
description:
  - Gives the keyspaces that hold logins, repairs and traces, and the platform's own where it exists, the declared number of
    copies; makes the administrator's role and the declared ones with their passwords; removes the superuser that every
    new ring has. Roles that are not declared are left alone.
  - A keyspace that has got more copies has them only once every node has repaired it. I(unrepaired) returns the keyspaces,
    by node, that still lack that.
  - Runs with the interpreter of the project's own Python environment.
options:
  connections: {description: "Connections file, its section cassandra with the administrator's login.", type: path, required: true}
  roles: {description: Password by role., type: dict, default: {}}
  replication_factor: {description: Copies of every row., type: int, required: true}
"""

# That of the logins last: it is what the right to alter the others is read from.
RING_KEYSPACES = ("system_distributed", "system_traces", "system_auth")
# Seconds until the copies that logins have just got are filled, by being read.
COPIES = 60
DEFAULT_SUPERUSER = "cassandra"
ROLE_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Refused(Exception):
    """A declared state that can't be reached, with the fix."""


def log_in(section: Any, host: str, username: str, password: str) -> Any:
    """Return a session that has this one node for coordinator; None if it refuses the login.

    The caller ends it with `session.cluster.shutdown()`. Raises NoHostAvailable when the node doesn't answer, and Refused
    when it can't read the logins.
    """
    from cassandra import AuthenticationFailed, ConsistencyLevel
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
    from cassandra.policies import WhiteListRoundRobinPolicy

    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy([host]),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        request_timeout=30,
    )
    cluster = Cluster(
        contact_points=[host],
        port=section.port,
        auth_provider=PlainTextAuthProvider(username, password),
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        protocol_version=5,
        connect_timeout=10,
        schema_metadata_enabled=False,
        token_metadata_enabled=False,
        max_schema_agreement_wait=30,
    )
    try:
        return cluster.connect()
    except NoHostAvailable as error:
        cluster.shutdown()
        causes = [cause for cause in error.errors.values() if isinstance(cause, AuthenticationFailed)]
        if not causes:
            raise
        if any("Unable to perform" in str(cause) for cause in causes):
            raise Refused(f"{host} can't read the logins: {causes[0]}. Are all nodes up?") from error
        return None


def any_session(section: Any, username: str, password: str) -> Any:
    """Return a session by any node that takes the login; None if there is none."""
    from cassandra.cluster import NoHostAvailable

    unreachable = []
    for host in section.hosts:
        try:
            session = log_in(section, host, username, password)
        except NoHostAvailable as error:
            unreachable.append(f"{host}: {'; '.join(map(str, error.errors.values())) or error}")
            continue
        if session is not None:
            return session
    if len(unreachable) == len(section.hosts):
        raise Refused(f"no node answers: {'; '.join(unreachable)}")
    return None


def administrator(section: Any, replication_factor: int, dry: bool) -> tuple[Any, list[str]]:
    """Return a session of the administrator, and what changed until there was one.

    On a new ring the default superuser makes it. The logins get their copies first: the administrator's is then
    on all of them at once, and the one that is not goes.
    """
    if session := any_session(section, section.username, section.password):
        return session, replication(session, section, replication_factor, dry)
    default = any_session(section, DEFAULT_SUPERUSER, DEFAULT_SUPERUSER)
    if default is None:
        raise Refused(
            f"the ring knows neither {section.username} by its password nor a new ring's superuser: its data are of another"
            " environment, or the environment's secrets were made anew. Put back the secrets that the data were made with"
        )
    try:
        changes = replication(default, section, replication_factor, dry)
        changes.append(f"role {section.username}: made, superuser")
        if dry:
            raise Refused("a new ring can't be looked at as the administrator before it has one")
        make = f'CREATE ROLE IF NOT EXISTS "{section.username}" WITH PASSWORD = %s AND LOGIN = true AND SUPERUSER = true'
        allowed(default, make, (section.password,))
    finally:
        default.cluster.shutdown()
    session = any_session(section, section.username, section.password)
    if session is None:
        raise Refused(f"the role {section.username} is there and has another password or no login")
    return session, changes


def allowed(session: Any, statement: str, parameters: tuple = ()) -> Any:
    """Execute a statement as a superuser whose login has just got more copies: a read may meet the empty ones alone."""
    from cassandra import Unauthorized

    deadline = time.monotonic() + COPIES
    while True:
        try:
            return session.execute(statement, parameters or None)
        except Unauthorized:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def replication(session: Any, section: Any, factor: int, dry: bool) -> list[str]:
    """Give the ring's own keyspaces and the platform's their number of copies. Return what changed."""
    rows = session.execute("SELECT keyspace_name, replication FROM system_schema.keyspaces")
    found = {row.keyspace_name: dict(row.replication) for row in rows}
    held = [name for name in (*RING_KEYSPACES, section.keyspace) if name in found]
    wrong = [name for name in held if not replicated(found[name], section.local_dc, factor)]
    if wrong and not dry:
        nodes = 1 + len(list(session.execute("SELECT peer FROM system.peers_v2")))
        if nodes < factor:
            raise Refused(f"{factor} copies need as many nodes, the ring has {nodes}")
        for name in wrong:
            wanted = f"{{'class': 'NetworkTopologyStrategy', '{section.local_dc}': {factor}}}"
            allowed(session, f"ALTER KEYSPACE {name} WITH replication = {wanted}")
    return [f"keyspace {name}: {factor} copies in {section.local_dc}" for name in wrong]


def replicated(found: dict[str, str], datacenter: str, factor: int) -> bool:
    """Whether a keyspace's replication is as declared."""
    strategy = found.get("class", "").rpartition(".")[2]
    return strategy == "NetworkTopologyStrategy" and found.get(datacenter) == str(factor) and len(found) == 2


def roles(session: Any, section: Any, declared: dict[str, str], dry: bool) -> list[str]:
    """Make roles, or give them their declared password, and remove a new ring's superuser. Return what changed."""
    rows = allowed(session, "SELECT role, can_login, is_superuser FROM system_auth.roles")
    known = {row.role: row for row in rows}
    changes = []
    for name, password in declared.items():
        if not ROLE_NAME.fullmatch(name):
            raise Refused(f"role {name!r}: a name is small letters, digits and underscores")
        there = known.get(name)
        if there and there.can_login and not there.is_superuser and can_log_in(section, name, password):
            continue
        changes.append(f"role {name}: {'password set' if there else 'made'}")
        if not dry:
            verb = "ALTER ROLE" if there else "CREATE ROLE"
            allowed(
                session,
                f'{verb} "{name}" WITH PASSWORD = %s AND LOGIN = true AND SUPERUSER = false',
                (password,),
            )
    if DEFAULT_SUPERUSER in known and DEFAULT_SUPERUSER not in (section.username, *declared):
        changes.append(f"role {DEFAULT_SUPERUSER}: removed")
        if not dry:
            allowed(session, f"DROP ROLE IF EXISTS {DEFAULT_SUPERUSER}")
    return changes


def can_log_in(section: Any, name: str, password: str) -> bool:
    """Whether the ring knows the role by this password."""
    session = any_session(section, name, password)
    if session is None:
        return False
    session.cluster.shutdown()
    return True


def unrepaired(session: Any, section: Any, factor: int, *, grown: bool) -> dict[str, list[str]]:
    """Return, by node, the keyspaces that it has not repaired since they got their number of copies.

    Of the ring's own, logins alone matter: what was repaired or traced before may be missing. Of the platform's own it
    can't be read when it got them, because each change of a table writes the keyspace's row anew: it counts if it has
    ``grown`` in this run.
    """
    if factor == 1:
        return {}
    tables = {"system_auth": ["roles"]}
    if grown:
        rows = session.execute(
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", (section.keyspace,)
        )
        tables[section.keyspace] = [row.table_name for row in rows]
    altered = {}
    for keyspace in tables:
        row = session.execute(
            "SELECT writetime(replication) FROM system_schema.keyspaces WHERE keyspace_name = %s", (keyspace,)
        ).one()
        altered[keyspace] = row[0] if row else 0
    # Logins that are newer than their number of copies had them from the start.
    logins = session.execute("SELECT writetime(can_login) FROM system_auth.roles")
    if all(row[0] > altered["system_auth"] for row in logins):
        tables["system_auth"] = []
    lacking: dict[str, list[str]] = {}
    for keyspace, names in tables.items():
        for node in section.hosts:
            if not all(repaired(session, keyspace, name, node, altered[keyspace]) for name in names):
                lacking.setdefault(node, []).append(keyspace)
    return lacking


def repaired(session: Any, keyspace: str, table: str, node: str, since: int) -> bool:
    """Whether a node has repaired its part of a table since a moment (microseconds since 1970)."""
    rows = session.execute(
        "SELECT coordinator, toUnixTimestamp(started_at) AS started, status FROM system_distributed.repair_history"
        " WHERE keyspace_name = %s AND columnfamily_name = %s",
        (keyspace, table),
    )
    address = socket.gethostbyname(node)
    return any(
        str(row.coordinator) == address and row.started * 1000 >= since and row.status == "SUCCESS"
        for row in rows
    )


def reach(module: AnsibleModule) -> tuple[list[str], dict[str, Any]]:
    """Bring the declared state about; return what changed, and what is to repair."""
    from cassandra import DriverException
    from cassandra.cluster import NoHostAvailable

    from millrace import connections
    from millrace.errors import MillraceError

    params, dry = module.params, module.check_mode
    try:
        section = connections.load(params["connections"]).cassandra
        # Some of the server's messages quote the statement that they are about.
        module.no_log_values.add(section.password)
        session, changes = administrator(section, params["replication_factor"], dry)
        try:
            changes += roles(session, section, params["roles"], dry)
            grown = any(change.startswith(f"keyspace {section.keyspace}:") for change in changes)
            to_repair = unrepaired(session, section, params["replication_factor"], grown=grown)
        finally:
            session.cluster.shutdown()
    except (DriverException, NoHostAvailable, MillraceError, OSError, Refused) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    return changes, {"unrepaired": to_repair}


if __name__ == "__main__":
    declared_state.run(
        {
            "connections": declared_state.CONNECTIONS,
            "roles": {"type": "dict", "default": {}, "no_log": True},
            "replication_factor": {"type": "int", "required": True},
        },
        reach,
    )
