# Hosts on this machine: the LXC hosts that Vagrant makes, made by Terraform. `make up HOSTS=terraform` does all of it;
# by hand, `scripts/terraform-hosts prepare` makes the environment's keys and prints what this folder needs.
module "hosts" {
  source = "../../modules/lxc"

  topology    = var.topology
  environment = var.environment
  subnet      = var.subnet
}
