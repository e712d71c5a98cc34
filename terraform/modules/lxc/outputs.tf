output "hosts" {
  description = "Host name => address (what the hosts know each other by), operator_address (what Ansible and a person reach it by), user, services, size, rack and ids."
  value = {
    for name, host in module.topology.hosts : "${var.environment.name}-${name}" => {
      address          = cidrhost(var.subnet, host.index)
      operator_address = cidrhost(var.subnet, host.index)
      user             = "vagrant"
      services         = host.services
      size             = host.size
      rack             = host.rack
      ids              = host.ids
    }
  }
  depends_on = [terraform_data.host]
}
