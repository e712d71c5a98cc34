variable "name" {
  description = "Name of the environment: the prefix of its hosts' names, and of its state outside the clone."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}$", var.name))
    error_message = "A name is a letter, then letters, digits and hyphens, 12 at most."
  }
}

variable "topology" {
  description = "A topology of the repository by name, or the path of a file from the repository's root."
  type        = string
}

variable "subnet" {
  description = "The environment's slice of LXC's network 10.0.3.0/24: 30 addresses, the first slice being the machine's own."
  type        = string
  validation {
    condition     = can(regex("^10\\.0\\.3\\.(32|64|96|128|160|192|224)/27$", var.subnet))
    error_message = "A slice is 10.0.3.32/27, or a multiple of 32 further up to 10.0.3.224/27."
  }
}
