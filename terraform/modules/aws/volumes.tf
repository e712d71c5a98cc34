# Data lies apart from the system: an instance can go and come back, its volume stays, and leaves a snapshot when it goes.

resource "aws_ebs_volume" "data" {
  #checkov:skip=CKV_AWS_189:encrypted with the account's own default key, which may be a customer's
  for_each = { for name, host in local.hosts : name => host if length(host.data) > 0 }

  availability_zone = local.zone_of[each.key]
  type              = "gp3"
  size              = var.sizes[each.value.size].data_gb
  encrypted         = true
  final_snapshot    = true

  tags = { Name = "${local.names[each.key]}-data" }
}

resource "aws_volume_attachment" "data" {
  for_each = aws_ebs_volume.data

  device_name                    = "/dev/sdf"
  volume_id                      = each.value.id
  instance_id                    = aws_instance.host[each.key].id
  stop_instance_before_detaching = true
}

# prevent_destroy takes no variable and can't be lifted for what is in the state. This stands before each volume instead:
# it is destroyed first, and refuses while the last apply said `protected`. It depends on all the rest, so that a refused
# destroy has changed nothing.
resource "terraform_data" "protection" {
  for_each = aws_ebs_volume.data

  input            = { host = local.names[each.key], protected = var.protected }
  triggers_replace = each.value.id

  provisioner "local-exec" {
    when    = destroy
    quiet   = true
    command = self.input.protected ? "echo 'error: the data of ${self.input.host} is protected; apply with protected=false first' >&2; exit 1" : ":"
  }

  depends_on = [
    aws_default_security_group.none,
    aws_route_table_association.zone,
    aws_volume_attachment.data,
    aws_vpc_security_group_egress_rule.any,
    aws_vpc_security_group_ingress_rule.service,
    aws_vpc_security_group_ingress_rule.ssh,
  ]
}
