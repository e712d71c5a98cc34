# Real hosts on this machine: the LXC hosts that Vagrant makes, made by Terraform.

terraform {
  required_version = "~> 1.11"
}

module "hosts" {
  source   = "../../modules/lxc"
  name     = var.name
  topology = var.topology
  subnet   = var.subnet
}

output "hosts" {
  description = "Address, user, services, size, rack and ids of every host, by name."
  value       = module.hosts.hosts
}
