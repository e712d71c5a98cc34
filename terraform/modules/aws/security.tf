# One group for each set of services that a host runs, with rules made from the catalogue's port table: a port is open to
# the sets that hold a service which connects to it. A group per service would read better, but a network interface
# takes five groups, and a host runs up to twelve services.

locals {
  sets = { for name, host in local.hosts : join("+", sort(host.services)) => name... }

  ports = flatten([
    for set in keys(local.sets) : [
      for service in split("+", set) : [
        for label, port in module.topology.services[service].ports : {
          set   = set
          name  = "${service}/${label}"
          first = port.port
          last  = try(port.last, port.port)
          from  = port.from
        } if port.bind == "host"
      ]
    ]
  ])

  rules = {
    for rule in flatten([
      for port in local.ports : concat(
        [
          for source in keys(local.sets) : merge(port, { source = source, cidr = null })
          # A host reaches itself without a rule.
          if(contains(port.from, "all") || length(setintersection(port.from, split("+", source))) > 0) &&
          (source != port.set || length(local.sets[source]) > 1)
        ],
        [for cidr in var.operator_cidrs : merge(port, { source = null, cidr = cidr }) if contains(port.from, "operator")],
      )
    ]) : "${rule.name} on ${rule.set} from ${coalesce(rule.source, rule.cidr)}" => rule
  }
}

resource "aws_security_group" "services" {
  for_each = local.sets

  name        = "${var.environment.name} ${each.key}"
  description = "Hosts with these services"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${var.environment.name} ${each.key}" }
}

resource "aws_vpc_security_group_ingress_rule" "service" {
  #checkov:skip=CKV_AWS_23:its name says what it is for
  for_each = local.rules

  security_group_id            = aws_security_group.services[each.value.set].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.first
  to_port                      = each.value.last
  referenced_security_group_id = each.value.source == null ? null : aws_security_group.services[each.value.source].id
  cidr_ipv4                    = each.value.cidr

  tags = { Name = each.value.name }
}

resource "aws_security_group" "host" {
  name        = "${var.environment.name} host"
  description = "Every host: SSH from the operator, and the way out"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${var.environment.name} host" }
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  #checkov:skip=CKV_AWS_23:its name says what it is for
  for_each = var.operator_cidrs

  security_group_id = aws_security_group.host.id
  ip_protocol       = "tcp"
  from_port         = module.topology.host_ports.ssh.port
  to_port           = module.topology.host_ports.ssh.port
  cidr_ipv4         = each.key

  tags = { Name = "ssh" }
}

# Out to apt, to the package mirrors that the depot builds from, to time servers and to the users' source.
resource "aws_vpc_security_group_egress_rule" "any" {
  #checkov:skip=CKV_AWS_23:its name says what it is for
  security_group_id = aws_security_group.host.id
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"

  tags = { Name = "any" }
}

resource "aws_key_pair" "operator" {
  key_name   = var.environment.name
  public_key = var.environment.public_key
}
