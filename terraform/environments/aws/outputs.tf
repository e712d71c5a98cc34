output "hosts" {
  description = "Host name => address, operator_address, user, services, size, rack, ids: what Ansible needs."
  value       = module.hosts.hosts
}

output "operator_cidrs" {
  description = "The networks of the operator: the hosts' own firewalls let in the same ones."
  value       = var.operator_cidrs
}
