provider "aws" {
  region = var.region

  default_tags {
    tags = merge(var.tags, { millrace = var.environment.name })
  }
}

module "hosts" {
  source = "../../modules/aws"

  topology       = var.topology
  environment    = var.environment
  operator_cidrs = var.operator_cidrs
  protected      = var.protected
  network        = var.network
  sizes          = var.sizes
}
