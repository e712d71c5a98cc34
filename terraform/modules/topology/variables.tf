variable "topology" {
  description = "Path of the topology file (topologies/*.yml): which hosts exist and what runs on each."
  type        = string
  nullable    = false

  validation {
    condition     = fileexists(var.topology)
    error_message = "The topology file ${var.topology} does not exist."
  }
  validation {
    condition     = !fileexists(var.topology) || can(yamldecode(file(var.topology)))
    error_message = "The topology file ${var.topology} is not readable as YAML."
  }
}
