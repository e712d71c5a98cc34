terraform {
  required_version = "~> 1.11"
}

locals {
  repository = abspath("${path.module}/../../..")
  # As the repository's own tools read it: a name, or a path from the repository's root.
  file  = "${local.repository}/${strcontains(var.topology, "/") ? var.topology : "topologies/${var.topology}.yml"}"
  hosts = yamldecode(file(local.file)).hosts

  # What the scripts of the repository need to know of the environment; resources keep it for their destruction.
  environment = {
    MILLRACE_ENV      = var.name
    MILLRACE_TOPOLOGY = var.topology
    MILLRACE_SUBNET   = var.subnet
    MILLRACE_HOSTS    = "terraform"
  }
}

# The environment's keys and secrets, outside the clone and outside Terraform's state.
resource "terraform_data" "environment" {
  input            = { repository = local.repository, environment = local.environment }
  triggers_replace = local.environment

  provisioner "local-exec" {
    working_dir = self.input.repository
    environment = self.input.environment
    command     = "scripts/setup && .venv/bin/python -m millrace.environment show --create >/dev/null"
  }

  provisioner "local-exec" {
    when        = destroy
    working_dir = self.input.repository
    environment = self.input.environment
    command     = ".venv/bin/python -m millrace.environment forget && scripts/lxc-network down"
  }
}

resource "terraform_data" "host" {
  for_each = local.hosts

  input = {
    name        = each.key
    repository  = terraform_data.environment.output.repository
    environment = terraform_data.environment.output.environment
  }
  # What a running host can't take over.
  triggers_replace = { index = each.value.index, size = each.value.size, environment = terraform_data.environment.id }

  provisioner "local-exec" {
    working_dir = self.input.repository
    environment = self.input.environment
    command     = "scripts/lxc-hosts make ${self.input.name}"
  }

  provisioner "local-exec" {
    when        = destroy
    working_dir = self.input.repository
    environment = self.input.environment
    command     = "scripts/lxc-hosts remove ${self.input.name}"
  }
}
