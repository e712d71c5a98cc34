module "topology" {
  source   = "../topology"
  topology = var.topology
}

locals {
  hosts = module.topology.hosts
  # The name that a host has everywhere: here, in the inventory and on itself.
  names = { for host in keys(local.hosts) : host => "${var.environment.name}-${host}" }
}
