# The first two are every provider's, and so is the output `hosts`; the rest is of AWS.

variable "topology" {
  description = "Path of the topology file: which hosts exist and what runs on each."
  type        = string
  nullable    = false
}

variable "environment" {
  description = "The environment that the hosts belong to: name (prefix of their names), id (they carry it), and the public key of its operator."
  type = object({
    name       = string
    id         = string
    public_key = string
  })
  nullable = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}$", var.environment.name))
    error_message = "environment.name: a name is a letter, then letters, digits and hyphens, 12 at most."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.environment.id))
    error_message = "environment.id: must be a UUID."
  }
  validation {
    condition     = can(regex("^ssh-(ed25519|rsa) [A-Za-z0-9+/=]+[^\n']*$", var.environment.public_key))
    error_message = "environment.public_key: must be one line of an OpenSSH public key, ed25519 or rsa; never the private one."
  }
}

variable "operator_cidrs" {
  description = "IPv4 ranges of the people who operate the platform: SSH and the pages are open to them and to nobody else."
  type        = set(string)
  nullable    = false

  validation {
    condition     = length(var.operator_cidrs) > 0
    error_message = "operator_cidrs: name at least one range, or nobody can reach the hosts."
  }
  validation {
    condition     = alltrue([for cidr in var.operator_cidrs : can(cidrnetmask(cidr))])
    error_message = "operator_cidrs: each must be an IPv4 range such as 203.0.113.7/32."
  }
  validation {
    condition     = alltrue([for cidr in var.operator_cidrs : try(cidrsubnet(cidr, 0, 0) == cidr, true)])
    error_message = "operator_cidrs: each must be a network, 203.0.113.0/24 and not 203.0.113.7/24; a single address ends in /32."
  }
  validation {
    condition     = alltrue([for cidr in var.operator_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, true)])
    error_message = "operator_cidrs: a range wider than /8 is the world, not a person's network."
  }
}

variable "protected" {
  description = "Whether a destroy that would lose data is refused. To destroy: apply with false first, so that it is on record."
  type        = bool
  default     = true
  nullable    = false
}

variable "network" {
  description = "Address range of the network, and the zones in use: rack1 stands in the first, rack2 in the second, and so on around. Without zones, the region's first three. Neither can change while hosts stand."
  type = object({
    cidr  = optional(string, "10.20.0.0/16")
    zones = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(cidrnetmask(var.network.cidr)) && try(tonumber(split("/", var.network.cidr)[1]) >= 16 && tonumber(split("/", var.network.cidr)[1]) <= 20, false)
    error_message = "network.cidr: must be an IPv4 range of /16 to /20."
  }
  validation {
    condition     = length(var.network.zones) == length(distinct(var.network.zones)) && length(var.network.zones) <= 16
    error_message = "network.zones: each zone once, 16 at most."
  }
}

variable "sizes" {
  description = "Size class of the topology => instance type (x86_64, built on Nitro) and size of the data volume in GiB."
  type = map(object({
    instance_type = string
    data_gb       = optional(number, 100)
  }))
  default = {
    small  = { instance_type = "t3.small", data_gb = 20 }
    medium = { instance_type = "t3.medium" }
    large  = { instance_type = "t3.large" }
    xlarge = { instance_type = "t3.xlarge" }
  }
  nullable = false

  validation {
    condition     = length(setsubtract(values(module.topology.hosts)[*].size, keys(var.sizes))) == 0
    error_message = "sizes: no instance type for ${join(", ", setsubtract(values(module.topology.hosts)[*].size, keys(var.sizes)))}, which the topology uses."
  }
  validation {
    condition     = alltrue([for size in values(var.sizes) : size.data_gb >= 1 && size.data_gb <= 16384 && floor(size.data_gb) == size.data_gb])
    error_message = "sizes: data_gb must be a whole number from 1 to 16384."
  }
}
