output "hosts" {
  description = "Host name => address (what the hosts know each other by), operator_address (what Ansible and a person reach it by), user, services, size, rack and ids."
  value = {
    for name, host in local.hosts : local.names[name] => {
      address          = aws_instance.host[name].private_ip
      operator_address = aws_instance.host[name].public_ip
      user             = local.user
      services         = host.services
      size             = host.size
      rack             = host.rack
      ids              = host.ids
    }
  }
}
