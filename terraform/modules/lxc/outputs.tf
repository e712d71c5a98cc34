output "hosts" {
  description = "Address, user, services, size, rack and ids of every host, by name."
  value = {
    for name, host in local.hosts : "${var.name}-${name}" => {
      address  = cidrhost(var.subnet, host.index)
      user     = "vagrant"
      services = host.services
      size     = host.size
      rack     = host.rack
      ids      = lookup(host, "ids", {})
    }
  }
  depends_on = [terraform_data.host]
}
