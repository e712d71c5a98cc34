"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils import declared_state
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kafka_state
short_description: Hold a Kafka cluster's users, topics and ACLs to what is declared
description:
  - Makes missing users, topics and ACLs, brings passwords, partition counts and topic settings to what is declared, and
    removes ACLs that are not. Topics and users that are not declared are left alone.
  - A declared partition count or replication factor that Kafka can't reach by itself is refused.
  - Runs with the interpreter of the project's own Python environment.
options:
  connections: {description: "Connections file, its section kafka with an administrator's login.", type: path, required: true}
  users: {description: Password by user., type: dict, default: {}}
  topics: {description: "Topics by name: partitions (int), configs (dict).", type: dict, default: {}}
  acls: {description: "Rules: user, resource, name, prefix, operations.", type: list, elements: dict, default: []}
  replication_factor: {description: Copies of every partition of a new topic., type: int, required: true}
"""

MECHANISM = "SCRAM-SHA-512"


class Refused(Exception):
    """A declared state that can't be reached, with the fix."""


def can_log_in(config: dict[str, Any], user: str, password: str) -> bool:
    """Whether the cluster knows the user by this password."""
    from kafka import KafkaAdminClient
    from kafka.errors import SaslAuthenticationFailedError

    try:
        KafkaAdminClient(**{**config, "sasl_plain_username": user, "sasl_plain_password": password}).close()
    except SaslAuthenticationFailedError:
        return False
    return True


def users(admin: Any, config: dict[str, Any], declared: dict[str, str], dry: bool) -> list[str]:
    """Make users, or give them their declared password, and see them log in. Return what changed."""
    known = admin.describe_user_scram_credentials()
    wrong = {
        user: password
        for user, password in declared.items()
        if user not in known or not can_log_in(config, user, password)
    }
    if wrong and not dry:
        set_passwords(admin, wrong)
        deadline = time.monotonic() + 20
        # Brokers hear of a new credential one after the other.
        while late := [user for user, password in wrong.items() if not can_log_in(config, user, password)]:
            if time.monotonic() > deadline:
                raise Refused(f"Kafka took the passwords of {', '.join(late)} and lets none of them log in")
            time.sleep(1)
    return [f"user {user}: password set" for user in wrong]


def set_passwords(admin: Any, passwords: dict[str, str]) -> None:
    """Store SCRAM credentials; raises KafkaError when they are not taken.

    Only the controller takes them. The client's own method asks any broker and shows the refusal as success, so this uses
    what its other methods use.
    """
    from kafka.admin import UserScramCredentialUpsertion
    from kafka.errors import for_code
    from kafka.protocol.admin import AlterUserScramCredentialsRequest

    credentials = [
        UserScramCredentialUpsertion(user, MECHANISM, password, iterations=8192)
        for user, password in passwords.items()
    ]
    request = AlterUserScramCredentialsRequest(
        deletions=[],
        upsertions=[
            (entry.user, int(entry.mechanism), entry.iterations, entry.salt, entry.salted_password)
            for entry in credentials
        ],
    )
    admin._manager.run(
        admin._send_request_to_controller,
        request,
        lambda answer: (for_code(r.error_code) for r in answer.results),
    )


def topics(admin: Any, declared: dict[str, dict[str, Any]], replication_factor: int, dry: bool) -> list[str]:
    """Make topics, add partitions, and set the declared settings. Return what changed."""
    from kafka.admin import ConfigResource, ConfigResourceType

    present = {topic["name"]: topic["partitions"] for topic in admin.describe_topics()}
    changes = []
    missing = {
        name: {
            "num_partitions": topic["partitions"],
            "replication_factor": replication_factor,
            "configs": {key: text(value) for key, value in topic.get("configs", {}).items()},
        }
        for name, topic in declared.items()
        if name not in present
    }
    if missing:
        changes += [f"topic {name}: made" for name in missing]
        if not dry:
            admin.create_topics(missing, wait_for_metadata=True)
    for name, topic in declared.items():
        if name not in present:
            continue
        partitions = len(present[name])
        if partitions > topic["partitions"]:
            raise Refused(
                f"topic {name} has {partitions} partitions, {topic['partitions']} are declared: Kafka can't take any away."
                f" Declare {partitions}"
            )
        if partitions < topic["partitions"]:
            changes.append(f"topic {name}: {partitions} -> {topic['partitions']} partitions")
            if not dry:
                admin.create_partitions({name: topic["partitions"]})
        copies = min(len(partition["replica_nodes"]) for partition in present[name])
        if copies < replication_factor:
            raise Refused(
                f"topic {name} has {copies} copies, {replication_factor} are declared: move it with"
                " kafka-reassign-partitions first"
            )
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        found = admin.describe_configs([resource], config_filter="all")["topic"][name]
        wrong = {
            key: text(value)
            for key, value in topic.get("configs", {}).items()
            if found.get(key, {}).get("value") != text(value)
        }
        if wrong:
            changes += [f"topic {name}: {key}={value}" for key, value in wrong.items()]
            if not dry:
                admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, wrong)])
    return changes


def text(value: Any) -> str:
    """Return a setting as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def acls(admin: Any, declared: list[dict[str, Any]], dry: bool) -> list[str]:
    """Make declared ACLs and remove all others. Return what changed."""
    from kafka.admin import (
        ACL,
        ACLFilter,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        ResourcePattern,
        ResourcePatternFilter,
        ResourceType,
    )

    wanted = {
        ACL(
            f"User:{rule['user']}",
            "*",
            ACLOperation[operation.upper()],
            ACLPermissionType.ALLOW,
            ResourcePattern(
                ResourceType[rule["resource"].upper()],
                rule["name"],
                ACLResourcePatternType.PREFIXED if rule.get("prefix") else ACLResourcePatternType.LITERAL,
            ),
        )
        for rule in declared
        for operation in rule["operations"]
    }
    everything = ACLFilter(
        None, None, ACLOperation.ANY, ACLPermissionType.ANY,
        ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
    )  # fmt: skip
    found, error = admin.describe_acls(everything)
    if getattr(error, "errno", 0):
        raise Refused(f"Kafka does not tell its ACLs: {error}")
    present = set(found)
    missing, extra = wanted - present, present - wanted
    if not dry:
        if missing and (failed := admin.create_acls(list(missing))["failed"]):
            raise Refused(f"ACLs that Kafka did not take: {failed}")
        if extra:
            admin.delete_acls(
                [
                    ACLFilter(
                        acl.principal, acl.host, acl.operation, acl.permission_type, acl.resource_pattern
                    )
                    for acl in extra
                ]
            )
    return sorted([f"added {acl}" for acl in missing] + [f"removed {acl}" for acl in extra])


def reach(module: AnsibleModule) -> tuple[list[str], dict[str, Any]]:
    """Bring the declared state about; return what changed."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    from millrace import connections
    from millrace.errors import MillraceError

    params, dry = module.params, module.check_mode
    try:
        config = connections.kafka_config(connections.load(params["connections"]).kafka)
        admin = KafkaAdminClient(**config)
        try:
            changes = users(admin, config, params["users"], dry)
            changes += topics(admin, params["topics"], params["replication_factor"], dry)
            changes += acls(admin, params["acls"], dry)
        finally:
            admin.close()
    except (KafkaError, MillraceError, Refused) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    return changes, {}


if __name__ == "__main__":
    declared_state.run(
        {
            "connections": declared_state.CONNECTIONS,
            "users": {"type": "dict", "default": {}, "no_log": True},
            "topics": {"type": "dict", "default": {}},
            "acls": {"type": "list", "elements": "dict", "default": []},
            "replication_factor": {"type": "int", "required": True},
        },
        reach,
    )
