# What they mean and may hold: terraform/modules/aws/variables.tf.

variable "region" {
  description = "AWS region. Credentials come from the environment (AWS_PROFILE or the like), never from a file here."
  type        = string
  default     = "eu-central-1"
}

variable "topology" {
  description = "Path of the topology file."
  type        = string
  default     = "../../../topologies/compact.yml"
}

variable "environment" {
  description = "The environment: name, id (a UUID) and its operator's public key."
  type        = object({ name = string, id = string, public_key = string })
}

variable "operator_cidrs" {
  description = "IPv4 ranges of the people who operate the platform."
  type        = set(string)
}

variable "protected" {
  description = "Whether a destroy that would lose data is refused."
  type        = bool
  default     = true
}

variable "network" {
  description = "Address range and zones: cidr, zones."
  type        = object({ cidr = optional(string), zones = optional(list(string)) })
  default     = {}
}

variable "sizes" {
  description = "Size class => instance_type, data_gb. Null: the module's."
  type        = map(object({ instance_type = string, data_gb = optional(number) }))
  default     = null
}

variable "tags" {
  description = "Tags of everything, beside millrace = the environment's name."
  type        = map(string)
  default     = {}
}
