module "topology" {
  source   = "../topology"
  topology = var.topology
}

# Scripts of the repository make a host, as they do for Vagrant and for tests. What destroys it, it has to remember.
resource "terraform_data" "host" {
  for_each = module.topology.hosts

  input = {
    name        = each.key
    environment = { MILLRACE_ENV = var.environment.name, MILLRACE_HOSTS = "terraform" }
  }
  # What a running host can't take over.
  triggers_replace = { index = each.value.index, size = each.value.size, subnet = var.subnet }

  provisioner "local-exec" {
    working_dir = "${path.module}/../../.."
    environment = self.input.environment
    command     = "scripts/lxc-hosts make ${self.input.name}"
  }

  provisioner "local-exec" {
    when        = destroy
    working_dir = "${path.module}/../../.."
    environment = self.input.environment
    command     = "scripts/lxc-hosts remove ${self.input.name}"
  }
}
