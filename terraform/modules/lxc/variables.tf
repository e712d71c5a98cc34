variable "topology" {
  description = "Path of the topology file: which hosts exist and what runs on each."
  type        = string
  nullable    = false
}

variable "environment" {
  description = "The environment that the hosts belong to: name (prefix of their names); its id and keys are in its own state on this machine."
  type        = object({ name = string })
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}$", var.environment.name))
    error_message = "environment.name: a name is a letter, then letters, digits and hyphens, 12 at most."
  }
}

variable "subnet" {
  description = "The environment's slice of LXC's network 10.0.3.0/24."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^10\\.0\\.3\\.(32|64|96|128|160|192|224)/27$", var.subnet))
    error_message = "subnet: a slice is 10.0.3.32/27, or a multiple of 32 further up to 10.0.3.224/27."
  }
}
