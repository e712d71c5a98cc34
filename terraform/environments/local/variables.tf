variable "name" {
  description = "Name of the environment, as MILLRACE_ENV has it for the inventory."
  type        = string
  default     = "mill"
}

variable "topology" {
  description = "A topology of the repository by name, or the path of a file from the repository's root."
  type        = string
  default     = "compact"
}

variable "subnet" {
  description = "The environment's slice of LXC's network. Another one for each environment on this machine."
  type        = string
  default     = "10.0.3.32/27"
}
