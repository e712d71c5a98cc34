# What they mean and may hold: terraform/modules/lxc/variables.tf.

variable "topology" {
  description = "Path of the topology file."
  type        = string
}

variable "environment" {
  description = "The environment: name, id (a UUID) and its operator's public key."
  type        = object({ name = string, id = string, public_key = string })
}

variable "subnet" {
  description = "The environment's slice of LXC's network."
  type        = string
}
