data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:a zone that comes sorts behind the first three; network.zones pins others
  state = "available"

  # Local and wavelength zones are not built to carry a member of a quorum.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  available = sort(data.aws_availability_zones.available.names)
  zones     = length(var.network.zones) > 0 ? var.network.zones : slice(local.available, 0, min(3, length(local.available)))

  # From the rack's own number, not from its place among the racks: a rack that is added moves no other one.
  zone_of = {
    for name, host in local.hosts :
    name => local.zones[(try(tonumber(regex("[1-9][0-9]*$", host.rack)), 1) - 1) % length(local.zones)]
  }

  # The services that keep copies on several hosts, and how many of their members may stand in one zone.
  clustered = ["cassandra", "kafka", "zookeeper"]
  crowded = flatten([
    for service in local.clustered : [
      for zone, members in { for name in module.topology.members[service] : local.zone_of[name] => name... } :
      "${service} on ${join(", ", members)} in ${zone}"
      if length(members) > ceil(length(module.topology.members[service]) / length(local.zones))
    ]
  ])
}

resource "aws_vpc" "main" {
  #checkov:skip=CKV2_AWS_11:flow logs cost, and belong to the account's own policy
  cidr_block           = var.network.cidr
  enable_dns_hostnames = true

  tags = { Name = var.environment.name }

  lifecycle {
    precondition {
      condition     = alltrue([for host in values(local.hosts) : can(regex("[1-9][0-9]*$", host.rack))])
      error_message = "topology: a rack's name ends in its number (rack1, rack2, ...), which says its zone."
    }
    precondition {
      condition     = length(setsubtract(local.zones, local.available)) == 0
      error_message = "network.zones: the region has no ${join(", ", setsubtract(local.zones, local.available))}; there are: ${join(", ", local.available)}."
    }
    precondition {
      condition     = length(local.crowded) == 0
      error_message = "topology: too many members of a cluster share a zone: ${join("; ", local.crowded)}. Give them racks in other zones."
    }
  }
}

# The network comes with a group that lets its members reach each other; no host is in it, and it admits nothing.
resource "aws_default_security_group" "none" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.environment.name} default" }
}

# Hosts install from apt and are operated over the internet: each has a public address, and a security group that admits
# the operator alone. A NAT gateway and a bastion host would be two more machines to pay and to keep.
resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = var.environment.name }
}

resource "aws_subnet" "zone" {
  #checkov:skip=CKV_AWS_130:public addresses are the way in and out, see above
  for_each = toset(values(local.zone_of))

  vpc_id                  = aws_vpc.main.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.network.cidr, 4, index(local.zones, each.key))
  map_public_ip_on_launch = true

  tags = { Name = "${var.environment.name}-${each.key}" }
}

resource "aws_route_table" "main" {
  vpc_id = aws_vpc.main.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.main.id
  }

  tags = { Name = var.environment.name }
}

resource "aws_route_table_association" "zone" {
  for_each = aws_subnet.zone

  subnet_id      = each.value.id
  route_table_id = aws_route_table.main.id
}
