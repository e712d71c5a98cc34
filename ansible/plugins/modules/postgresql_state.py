"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils import declared_state
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: postgresql_state
short_description: Hold a PostgreSQL server's roles, databases and access to what is declared
description:
  - Makes missing roles and databases, brings passwords and owners to what is declared, takes from everybody what
    PostgreSQL gives to everybody in these databases, and lets in who is declared. Roles and databases that are not
    declared are left alone, and so is what a role may do inside a database.
  - Makes the server read its access rules anew where their files are younger than what it read, and refuses faulty ones.
  - A password leaves this module only as its SCRAM verifier, so that it is in no log of the server.
  - Connects by the unix socket as the administrator, with the interpreter of the project's own Python environment.
options:
  socket: {description: Folder of the unix socket., type: path, default: /var/run/postgresql}
  port: {description: Port of the server., type: int, required: true}
  roles: {description: Password by role., type: dict, default: {}}
  databases: {description: "Databases by name: owner.", type: dict, default: {}}
  access: {description: "Who may connect: database, role.", type: list, elements: dict, default: []}
"""

ADMINISTRATOR = "postgres"
ITERATIONS = 4096


class Refused(Exception):
    """A declared state that can't be reached, with the fix."""


def verifier(password: str, salt: bytes, iterations: int) -> str:
    """Return what PostgreSQL keeps of a password: SCRAM-SHA-256, RFC 5802 and 7677."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"


def fits(password: str, kept: str | None) -> bool:
    """Whether what the server keeps is this password's."""
    try:
        mechanism, parameters, _ = (kept or "").split("$")
        iterations, salt = parameters.split(":")
    except ValueError:
        return False
    if mechanism != "SCRAM-SHA-256":
        return False
    return hmac.compare_digest(verifier(password, base64.b64decode(salt), int(iterations)), kept or "")


class Server:
    """The server, its databases, and what was changed in them."""

    def __init__(self, socket: str, port: int, *, dry: bool) -> None:
        self.address = {"host": socket, "port": port, "user": ADMINISTRATOR, "connect_timeout": 10}
        self.dry = dry
        self.changes: list[str] = []

    @contextmanager
    def database(self, name: str = ADMINISTRATOR) -> Iterator[Any]:
        """Open a cursor in a database; each statement is its own transaction."""
        import psycopg2

        connection = psycopg2.connect(dbname=name, application_name="postgresql_state", **self.address)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def change(
        self, cursor: Any, what: str, statement: str, values: tuple[Any, ...] = (), **names: str
    ) -> None:
        """Note a change, and execute its statement unless this is a dry run; names are its identifiers."""
        from psycopg2 import sql

        self.changes.append(what)
        if not self.dry:
            cursor.execute(
                sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}),
                values,
            )


def rows(cursor: Any, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return all rows of a query."""
    cursor.execute(query, values)
    found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def access_rules(server: Server, cursor: Any) -> None:
    """Have the server use the access rules that are in its files."""
    files = [
        name
        for (name,) in rows(
            cursor, "SELECT setting FROM pg_settings WHERE name IN ('hba_file', 'ident_file')"
        )
    ]
    faults = rows(
        cursor,
        "SELECT 'pg_hba.conf', line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL "
        "UNION ALL SELECT 'pg_ident.conf', line_number, error FROM pg_ident_file_mappings WHERE error IS NOT NULL",
    )
    if faults:
        raise Refused("; ".join(f"{file}, line {line}: {error}" for file, line, error in faults))
    ((loaded,),) = rows(cursor, "SELECT extract(epoch FROM pg_conf_load_time())::float8")
    if any(Path(name).stat().st_mtime > loaded for name in files):
        server.change(cursor, "access rules: read anew", "SELECT pg_reload_conf()")


def roles(server: Server, cursor: Any, declared: dict[str, str]) -> None:
    """Make roles that may log in and nothing else, or give them their declared password."""
    known = {
        name: (kept, plain)
        for name, kept, plain in rows(
            cursor,
            "SELECT rolname, rolpassword, rolcanlogin AND NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication "
            "OR rolbypassrls) FROM pg_authid",
        )
    }
    for name, password in declared.items():
        kept, plain = known.get(name, (None, False))
        if name in known and plain and fits(password, kept):
            continue
        server.change(
            cursor,
            f"role {name}: {'set' if name in known else 'made'}",
            ("ALTER" if name in known else "CREATE")
            + " ROLE {role} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD %s",
            (verifier(password, os.urandom(16), ITERATIONS),),
            role=name,
        )


def databases(server: Server, cursor: Any, declared: dict[str, dict[str, str]]) -> None:
    """Make databases in UTF-8 with one order of letters everywhere, and give them to their owner."""
    owners = dict(rows(cursor, "SELECT datname, pg_get_userbyid(datdba) FROM pg_database"))
    for name, database in declared.items():
        if name not in owners:
            server.change(
                cursor,
                f"database {name}: made",
                "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'",
                database=name,
                owner=database["owner"],
            )
        elif owners[name] != database["owner"]:
            server.change(
                cursor,
                f"database {name}: owner {database['owner']}",
                "ALTER DATABASE {database} OWNER TO {owner}",
                database=name,
                owner=database["owner"],
            )


def connect_rights(server: Server, cursor: Any, name: str, wanted: set[str]) -> None:
    """Let the wanted roles connect to a database, and nobody else but its owner."""
    granted = rows(
        cursor,
        "SELECT coalesce(r.rolname, ''), a.privilege_type FROM pg_database AS d, "
        "aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee "
        "WHERE d.datname = %s AND a.grantee <> d.datdba",
        (name,),
    )
    if any(role == "" for role, _ in granted):
        server.change(
            cursor,
            f"database {name}: nothing for everybody",
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            database=name,
        )
    connecting = {role for role, privilege in granted if role and privilege == "CONNECT"}
    for role in sorted(wanted - connecting):
        server.change(
            cursor, f"database {name}: {role} may connect", "GRANT CONNECT ON DATABASE {database} TO {role}",
            database=name, role=role,
        )  # fmt: skip
    for role in sorted(connecting - wanted):
        server.change(
            cursor, f"database {name}: {role} may not connect", "REVOKE CONNECT ON DATABASE {database} FROM {role}",
            database=name, role=role,
        )  # fmt: skip


def public_schema(server: Server, name: str) -> None:
    """Take the schema public from everybody but the database's owner."""
    with server.database(name) as cursor:
        if rows(
            cursor,
            "SELECT FROM pg_namespace, aclexplode(nspacl) AS a WHERE nspname = 'public' AND a.grantee = 0",
        ):
            server.change(
                cursor, f"database {name}: schema public closed", "REVOKE ALL ON SCHEMA public FROM PUBLIC"
            )


def reach(module: AnsibleModule) -> tuple[list[str], dict[str, Any]]:
    """Bring the declared state about; return what changed."""
    import psycopg2

    params = module.params
    server = Server(params["socket"], params["port"], dry=module.check_mode)
    try:
        with server.database() as cursor:
            access_rules(server, cursor)
            roles(server, cursor, params["roles"])
            databases(server, cursor, params["databases"])
            present = {name for (name,) in rows(cursor, "SELECT datname FROM pg_database")}
            for name, database in params["databases"].items():
                if name not in present:  # a dry run has not made it
                    continue
                wanted = {entry["role"] for entry in params["access"] if entry["database"] == name}
                connect_rights(server, cursor, name, wanted - {database["owner"]})
                public_schema(server, name)
    except (psycopg2.Error, OSError, Refused) as error:
        module.fail_json(msg=f"{type(error).__name__}: {str(error).strip()}")
    return server.changes, {}


if __name__ == "__main__":
    declared_state.run(
        {
            "socket": {"type": "path", "default": "/var/run/postgresql"},
            "port": {"type": "int", "required": True},
            "roles": {"type": "dict", "default": {}, "no_log": True},
            "databases": {"type": "dict", "default": {}},
            "access": {"type": "list", "elements": "dict", "default": []},
        },
        reach,
    )
