locals {
  text = file(var.topology)
  file = yamldecode(local.text)

  # The one table of sizes, services and ports, which the roles and the Python validator read too.
  catalogue = yamldecode(file("${path.module}/../../../inventories/group_vars/all/services.yml"))

  # Empty while the file's form is at fault, so that a fault is told once and not as an error of an expression below.
  hosts = {
    for name, host in try(local.file.hosts, {}) : name => {
      index     = host.index
      size      = host.size
      rack      = host.rack
      ids       = try(host.ids, {})
      services  = host.services
      cpus      = try(local.catalogue.host_sizes[host.size].cpus, 0)
      memory_mb = try(local.catalogue.host_sizes[host.size].memory_mb, 0)
      # The folders whose loss would lose data.
      data = compact([for service in host.services : try(local.catalogue.services[service].data, "")])
    } if length(local.faults_of_form) == 0
  }

  # Service => names of the hosts that run it.
  members = {
    for service in keys(local.catalogue.services) :
    service => [for name, host in local.hosts : name if contains(host.services, service)]
  }
}
