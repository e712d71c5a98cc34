"""Each service on a host of its own: the whole flow, through the firewalls of all of them."""
