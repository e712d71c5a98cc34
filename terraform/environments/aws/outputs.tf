output "hosts" {
  description = "Host name => address, operator_address, user, services, size, rack, ids: what Ansible needs."
  value       = module.hosts.hosts
}
