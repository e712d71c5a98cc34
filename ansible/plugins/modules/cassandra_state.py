"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import re
import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: cassandra_state
short_description: Hold a Cassandra ring's roles, and the copies of its own keyspaces, to what is declared
description:
  - Gives the keyspaces that hold logins, repairs and traces the declared number of copies; makes the administrator's role and
    the declared ones with their passwords; removes the superuser that every new ring has. Roles that are not declared are
    left alone.
  - Nodes that have not repaired the logins since their number of copies changed are returned as I(unrepaired).
  - Runs with the interpreter of the project's own Python environment.
options:
  connections: {description: "Connections file, its section cassandra with the administrator's login.", type: path, required: true}
  roles: {description: Password by role., type: dict, default: {}}
  replication_factor: {description: Copies of every login., type: int, required: true}
"""

OWN_KEYSPACES = ("system_auth", "system_distributed", "system_traces")
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
        default.execute(make, (section.password,))
    finally:
        default.cluster.shutdown()
    session = any_session(section, section.username, section.password)
    if session is None:
        raise Refused(f"the role {section.username} is there and has another password or no login")
    return session, changes


def replication(session: Any, section: Any, factor: int, dry: bool) -> list[str]:
    """Give the ring's own keyspaces their number of copies. Return what changed."""
    rows = session.execute("SELECT keyspace_name, replication FROM system_schema.keyspaces")
    found = {row.keyspace_name: dict(row.replication) for row in rows}
    wrong = [name for name in OWN_KEYSPACES if not replicated(found[name], section.local_dc, factor)]
    if wrong and not dry:
        nodes = 1 + len(list(session.execute("SELECT peer FROM system.peers_v2")))
        if nodes < factor:
            raise Refused(f"{factor} copies of logins need as many nodes, the ring has {nodes}")
        for name in wrong:
            wanted = f"{{'class': 'NetworkTopologyStrategy', '{section.local_dc}': {factor}}}"
            session.execute(f"ALTER KEYSPACE {name} WITH replication = {wanted}")
    return [f"keyspace {name}: {factor} copies in {section.local_dc}" for name in wrong]


def replicated(found: dict[str, str], datacenter: str, factor: int) -> bool:
    """Whether a keyspace's replication is as declared."""
    strategy = found.get("class", "").rpartition(".")[2]
    return strategy == "NetworkTopologyStrategy" and found.get(datacenter) == str(factor) and len(found) == 2


def roles(session: Any, section: Any, declared: dict[str, str], dry: bool) -> list[str]:
    """Make roles, or give them their declared password, and remove a new ring's superuser. Return what changed."""
    rows = session.execute("SELECT role, can_login, is_superuser FROM system_auth.roles")
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
            session.execute(
                f'{verb} "{name}" WITH PASSWORD = %s AND LOGIN = true AND SUPERUSER = false', (password,)
            )
    if DEFAULT_SUPERUSER in known and DEFAULT_SUPERUSER not in (section.username, *declared):
        changes.append(f"role {DEFAULT_SUPERUSER}: removed")
        if not dry:
            session.execute(f"DROP ROLE IF EXISTS {DEFAULT_SUPERUSER}")
    return changes


def can_log_in(section: Any, name: str, password: str) -> bool:
    """Whether the ring knows the role by this password."""
    session = any_session(section, name, password)
    if session is None:
        return False
    session.cluster.shutdown()
    return True


def unrepaired(session: Any, section: Any, factor: int) -> list[str]:
    """Return the nodes that have to repair their part of the logins.

    These are the ones that have not since the logins got their number of copies, if there are logins from before.
    """
    altered = session.execute(
        "SELECT writetime(replication) FROM system_schema.keyspaces WHERE keyspace_name = 'system_auth'"
    ).one()[0]
    written = [row[0] for row in session.execute("SELECT writetime(can_login) FROM system_auth.roles")]
    if factor == 1 or all(moment > altered for moment in written):
        return []
    repairs = session.execute(
        "SELECT coordinator, toUnixTimestamp(started_at), status FROM system_distributed.repair_history"
        " WHERE keyspace_name = 'system_auth' AND columnfamily_name = 'roles'"
    )
    done = {str(row[0]) for row in repairs if row[1] * 1000 >= altered and row[2] == "SUCCESS"}
    return [name for name in section.hosts if socket.gethostbyname(name) not in done]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "connections": {"type": "path", "required": True},
            "roles": {"type": "dict", "default": {}, "no_log": True},
            "replication_factor": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    params, dry = module.params, module.check_mode
    try:
        from cassandra import DriverException
        from cassandra.cluster import NoHostAvailable

        from millrace import connections
        from millrace.errors import MillraceError
    except ImportError as error:
        module.fail_json(msg=f"{error}: run this with the interpreter /opt/millrace/current/bin/python")
    try:
        section = connections.load(params["connections"]).cassandra
        # Some of the server's messages quote the statement that they are about.
        module.no_log_values.add(section.password)
        session, changes = administrator(section, params["replication_factor"], dry)
        try:
            changes += roles(session, section, params["roles"], dry)
            to_repair = unrepaired(session, section, params["replication_factor"])
        finally:
            session.cluster.shutdown()
    except (DriverException, NoHostAvailable, MillraceError, OSError, Refused) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        unrepaired=to_repair,
        diff={"prepared": "".join(f"{change}\n" for change in changes)},
    )


if __name__ == "__main__":
    main()
