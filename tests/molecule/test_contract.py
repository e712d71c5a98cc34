"""What holds for every role on every host of its scenario."""

from __future__ import annotations

import re

from testinfra.host import Host

from tests.platform.test_firewall import (  # noqa: F401
    foreign,
    test_a_stranger_reaches_nothing,
    test_hosts_reach_each_other_as_the_table_says,
)
from tests.platform.test_hosts import (  # noqa: F401 - the platform's own checks of a host
    own_units,
    test_every_declared_service_is_enabled_and_runs,
    test_every_unit_of_the_platform_is_sandboxed,
    test_logins_are_by_key_alone,
    test_no_secret_is_readable_by_everybody,
    test_no_unit_failed,
    test_root_has_the_logins_that_are_needed_on_its_host_and_no_other,
    test_services_run_programs_from_their_temporary_folders,
    test_sockets_are_those_of_the_port_table,
    test_the_depots_build_has_no_rights,
)


def test_a_killed_service_comes_back(host: Host) -> None:
    """kill -9 of the main process: systemd starts it again."""
    for unit in own_units(host):
        before = host.check_output(f"systemctl show -p MainPID --value {unit}")
        host.check_output(f"kill -9 {before}")
        host.check_output(
            f"timeout 60 sh -c 'until systemctl is-active -q {unit} && "
            f'test "$(systemctl show -p MainPID --value {unit})" != {before}; do sleep 1; done\''
        )
        assert re.fullmatch(r"[1-9]\d*", host.check_output(f"systemctl show -p MainPID --value {unit}"))
