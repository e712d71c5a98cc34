"""The command line `millrace`. Every command imports what it needs when it runs, so that none pays for the others."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from millrace.errors import MillraceError
from millrace.limits import DEFAULT_COUNT, LONGEST_DEADLINE, RATE_LIMIT


class _Cli(click.Group):
    """Prints an expected failure as its text, and leaves the traceback to bugs."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MillraceError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--connections",
    "connections_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The client's connections file. Default: what MILLRACE_CONNECTIONS names.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.pass_context
def main(ctx: click.Context, connections_file: Path | None, verbose: bool) -> None:
    """Operate the flow from the users' source to Cassandra."""
    # The journal has its own clock.
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    # At DEBUG drivers tell what they send: people.
    for driver in ("kafka", "cassandra", "faker", "kazoo"):
        logging.getLogger(driver).setLevel(logging.INFO if verbose else logging.ERROR)
    ctx.obj = connections_file


def _connections(ctx: click.Context) -> Any:
    from millrace import connections

    return connections.load(ctx.obj)


@main.group("source")
def source_group() -> None:
    """The users' source."""


@source_group.command("serve")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, help="Port to listen on.")
@click.option(
    "--control-token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the token of /control/fault. Without it nobody can make the source misbehave.",
)
@click.option(
    "--rate-limit",
    type=click.IntRange(0),
    default=RATE_LIMIT,
    show_default=True,
    help="Users per address and 5 minutes, as the real server has it; 0 for none.",
)
def source_serve(bind: str, port: int, control_token_file: Path | None, rate_limit: int) -> None:
    """Answer the randomuser.me API from generated people."""
    from millrace import offline_source

    offline_source.serve(bind, port, control_token_file=control_token_file, rate_limit=rate_limit)


@source_group.command("fault")
@click.argument("kind")
@click.option(
    "--count", type=click.IntRange(1), help="For how many requests. Default: until `millrace source well`."
)
@click.pass_context
def source_fault(ctx: click.Context, kind: str, count: int | None) -> None:
    """Make the offline source misbehave: KIND is 429, 503, 403, 404, html, empty, half, truncated, hang, reset or error."""
    from millrace import offline_source

    offline_source.control(_connections(ctx).source, kind, count)
    click.echo(f"the source answers {f'{count} requests' if count else 'everything'} with {kind}")


@source_group.command("well")
@click.pass_context
def source_well(ctx: click.Context) -> None:
    """Make the offline source behave again."""
    from millrace import offline_source

    offline_source.control(_connections(ctx).source, None)
    click.echo("the source is well")


@main.command()
@click.argument("service")
@click.option("--wait", default=0.0, help="Seconds until it must be whole. Default: ask once.")
@click.pass_context
def health(ctx: click.Context, service: str, wait: float) -> None:
    """Say whether SERVICE's cluster is whole and serves, or every of this host's `units` runs; fails with what is missing."""
    import time

    from millrace.checks.cluster import CHECKS
    from millrace.errors import NotWhole

    if service not in CHECKS:
        raise click.BadParameter(f"one of {', '.join(CHECKS)}", param_hint="SERVICE")
    deadline = time.monotonic() + wait
    while True:
        try:
            click.echo(CHECKS[service](_connections(ctx)))
        except NotWhole:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


@main.command()
@click.argument("service")
@click.pass_context
def leader(ctx: click.Context, service: str) -> None:
    """Print the host of SERVICE that leads the others: ZooKeeper's leader, Kafka's controller."""
    from millrace.checks.cluster import LEADERS

    if service not in LEADERS:
        raise click.BadParameter(f"one of {', '.join(LEADERS)}", param_hint="SERVICE")
    click.echo(LEADERS[service](_connections(ctx)))


@main.command()
def units() -> None:
    """Show the platform's units on this host."""
    from millrace.checks import status as statuses

    for line in statuses.units():
        click.echo(line)


@main.command()
@click.pass_context
def counts(ctx: click.Context) -> None:
    """Show how many users are at each station, and what needs a person."""
    from millrace.checks import status as statuses

    for line in statuses.counts(_connections(ctx)):
        click.echo(line)


@main.group()
def migrate() -> None:
    """Bring a database's schema up to date."""


@migrate.command("postgresql")
@click.pass_context
def migrate_postgresql(ctx: click.Context) -> None:
    """Apply PostgreSQL's migrations, as the schema's owner."""
    from millrace import migrate as migrations
    from millrace.postgresql import postgresql_session

    with postgresql_session(_connections(ctx).postgresql, application_name="migrate") as session:
        _tell_applied(migrations.migrate_postgresql(session))


@migrate.command("cassandra")
@click.option("--replication-factor", type=click.IntRange(1), required=True, help="Copies of every row.")
@click.pass_context
def migrate_cassandra(ctx: click.Context, replication_factor: int) -> None:
    """Apply Cassandra's migrations, as a role that may create the keyspace."""
    from millrace import migrate as migrations
    from millrace.connections import cassandra_session

    cassandra = _connections(ctx).cassandra
    session = cassandra_session(cassandra, use_keyspace=False)
    try:
        _tell_applied(
            migrations.migrate_cassandra(
                session,
                keyspace=cassandra.keyspace,
                datacenter=cassandra.local_dc,
                replication_factor=replication_factor,
            )
        )
    finally:
        session.cluster.shutdown()


def _tell_applied(names: list[str]) -> None:
    """One line per migration, or `up to date`: what a caller decides by whether something changed."""
    for name in names:
        click.echo(f"applied {name}")
    if not names:
        click.echo("up to date")


@main.group()
def registry() -> None:
    """The Schema Registry."""


@registry.command("register")
@click.option(
    "--compatibility", default="BACKWARD", show_default=True, help="The compatibility level of all subjects."
)
@click.pass_context
def registry_register(ctx: click.Context, compatibility: str) -> None:
    """Register this version's schema of the event, and set the compatibility level, in general and of its subject."""
    from millrace.registry import RegistryClient, SchemaNotFoundError
    from millrace.schemas import SUBJECT, users_created_text

    with RegistryClient(_connections(ctx).registry) as client:
        changed = False
        # First: a registry without a level takes whatever comes.
        if client.compatibility() != compatibility:
            client.set_compatibility(compatibility)
            changed = True
        try:
            schema_id = client.lookup(SUBJECT, users_created_text())
        except SchemaNotFoundError:
            schema_id, changed = client.register(SUBJECT, users_created_text()), True
        # Of its own too: whoever lowers the general one does not mean this subject.
        if client.compatibility(SUBJECT) != compatibility:
            client.set_compatibility(compatibility, SUBJECT)
            changed = True
    click.echo(f"{'registered' if changed else 'up to date'}: {SUBJECT} has id {schema_id}, {compatibility}")


@main.command()
@click.option(
    "--batch-size",
    # More is not read and acknowledged within the database's statement timeout and the unit's memory.
    type=click.IntRange(1, 10_000),
    default=5000,
    show_default=True,
    help="Most users per transaction.",
)
@click.pass_context
def relay(ctx: click.Context, batch_size: int) -> None:
    """Publish the outbox to Kafka until stopped."""
    from millrace import relay as relays

    relays.serve(_connections(ctx), batch_size=batch_size)


@main.group()
def batch() -> None:
    """Batches of users."""


@batch.command("store")
@click.option("--run-id", required=True, help="Names the run: the same id asks for the same people.")
@click.option("--seed", help="The source's seed, instead of one made from the run id.")
@click.option("--count", type=int, help="How many users.")
@click.pass_context
def batch_store(ctx: click.Context, run_id: str, seed: str | None, count: int | None) -> None:
    """Fetch a batch from the source and store it; print what was stored as JSON."""
    from millrace import flow

    conf = {key: value for key, value in (("seed", seed), ("count", count)) if value is not None}
    click.echo(json.dumps(flow.fetch_and_store(_connections(ctx), run_id, conf)))


@main.command()
@click.option("--batch", "batch_id", type=click.UUID, required=True, help="The batch's id.")
@click.option("--all", "everything", is_flag=True, help="All its users, not only those that can't be read.")
@click.pass_context
def republish(ctx: click.Context, batch_id: Any, everything: bool) -> None:
    """Put a batch's users that can't be read in Cassandra into the outbox again."""
    from millrace import flow

    connections = _connections(ctx)
    hidden = flow.hidden_rows(connections, str(batch_id))
    click.echo(f"{flow.republish(connections, str(batch_id), everything=everything)} users enqueued")
    if hidden:
        click.echo(f"`millrace status --batch {batch_id}` tells whether they can be read then.\n{hidden}")


@main.command()
@click.option("--batch", "batch_id", type=click.UUID, required=True, help="The batch's id.")
@click.pass_context
def status(ctx: click.Context, batch_id: Any) -> None:
    """Say how far a batch has come; fails as long as users of it can't be read."""
    from millrace import flow

    connections = _connections(ctx)
    missing = flow.readable(connections, str(batch_id))
    if missing:
        stations = flow.last_stations(connections, str(batch_id), missing)
        for user_id, station in stations.items():
            click.echo(f"{user_id}  {station}")
        if hidden := flow.hidden_rows(connections, str(batch_id), stations):
            click.echo(hidden)
        raise click.ClickException(f"{len(missing)} users can't be read yet")
    click.echo("every user can be read in Cassandra")


@main.command()
@click.option("--count", default=DEFAULT_COUNT, show_default=True, help="How many users.")
@click.option("--run-id", help="Names the run. Default: a new one.")
@click.option(
    "--deadline",
    type=click.FloatRange(0, LONGEST_DEADLINE, min_open=True),
    default=180.0,
    show_default=True,
    help="Seconds until every user must be readable.",
)
@click.pass_context
def verify(ctx: click.Context, count: int, run_id: str | None, deadline: float) -> None:
    """Send a batch through the flow and compare every station, value by value; fails on any difference."""
    from millrace.checks import rows

    report = rows.verify(
        _connections(ctx),
        count=count,
        run_id=run_id,
        deadline=deadline,
        progress=lambda text: click.echo(text, err=True),
    )
    click.echo("\n".join(report.lines()))
    if report.differences:
        ctx.exit(1)


@main.command()
@click.option(
    "--start", type=click.DateTime(), help="The window's start (UTC). Default: where the last audit ended."
)
@click.option("--end", type=click.DateTime(), help="The window's end (UTC).")
@click.pass_context
def audit(ctx: click.Context, start: datetime | None, end: datetime | None) -> None:
    """Compare PostgreSQL, topic and Cassandra over a window: the next closed one, or any past one."""
    from datetime import UTC

    from millrace import audit as audits

    bounds = [None if moment is None else moment.replace(tzinfo=UTC) for moment in (start, end)]
    result = audits.audit(_connections(ctx), *bounds)
    click.echo(
        f"{result.start:%F %T} to {result.end:%F %T} UTC: {result.users} users and {result.topic_records} records, "
        "no difference"
    )


@main.group("dead-letters")
def dead_letters() -> None:
    """Records that could not become rows."""


@dead_letters.command("list")
@click.pass_context
def dead_letters_list(ctx: click.Context) -> None:
    """List the dead letters that are not marked as resolved."""
    from millrace import topics

    with topics.consumer(_connections(ctx).kafka) as consumer:
        for letter in topics.dead_letters(consumer):
            if not letter.resolved:
                click.echo(
                    f"{letter.place}  {letter.reason}  schema {letter.schema_id or '-'}  {letter.error}"
                )


@dead_letters.command("resolve")
@click.argument("place")
@click.pass_context
def dead_letters_resolve(ctx: click.Context, place: str) -> None:
    """Mark the dead letter of PLACE (topic:partition:offset) as resolved, once its cause is dealt with."""
    from millrace import topics

    try:
        parsed = topics.Place.parse(place)
    except ValueError as error:
        raise click.BadParameter("write it as topic:partition:offset", param_hint="PLACE") from error
    topics.resolve_dead_letter(_connections(ctx).kafka, parsed)
    click.echo(f"{parsed} is resolved")


if __name__ == "__main__":
    main()
