output "hosts" {
  description = "Host name => index, size, rack, ids, services, cpus, memory_mb and data (folders to keep)."
  value       = local.hosts

  precondition {
    condition     = length(local.faults) == 0
    error_message = join("\n", local.faults)
  }
}

output "members" {
  description = "Service => names of the hosts that run it."
  value       = local.members
}

output "services" {
  description = "The catalogue: service => its ports, members, needs, memory and data folder."
  value       = local.catalogue.services
}

output "host_ports" {
  description = "What every host has beside its services: name => port, and who connects."
  value       = local.catalogue.host_ports
}

output "sizes" {
  description = "Size class => memory_mb and cpus."
  value       = local.catalogue.host_sizes
}
