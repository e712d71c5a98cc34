"""Who reaches which port of which host, and what each host has: the platform's own tests, where every host has one service."""

from tests.platform.test_firewall import *
from tests.platform.test_hosts import *
