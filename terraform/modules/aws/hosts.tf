data "aws_ami" "debian" {
  owners      = ["136693071363"] # Debian
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

data "aws_ec2_instance_type" "size" {
  for_each = toset(values(local.hosts)[*].size)

  instance_type = var.sizes[each.key].instance_type

  lifecycle {
    postcondition {
      condition     = self.memory_size >= module.topology.sizes[each.key].memory_mb
      error_message = "sizes.${each.key}: ${self.instance_type} has ${self.memory_size} MiB of memory, the services need ${module.topology.sizes[each.key].memory_mb}."
    }
    postcondition {
      condition     = contains(self.supported_architectures, "x86_64")
      error_message = "sizes.${each.key}: ${self.instance_type} is not of the architecture x86_64."
    }
  }
}

locals {
  # The image's own user can log in at once; this one when the first boot's script has ended well.
  user = "ansible"
}

resource "aws_instance" "host" {
  #checkov:skip=CKV_AWS_135:instances built on Nitro always are
  #checkov:skip=CKV_AWS_126:detailed monitoring costs extra, and nothing here reads it
  #checkov:skip=CKV2_AWS_41:a host calls no interface of AWS, so it gets no role
  for_each = local.hosts

  ami                     = data.aws_ami.debian.id
  instance_type           = data.aws_ec2_instance_type.size[each.value.size].instance_type
  subnet_id               = aws_subnet.zone[local.zone_of[each.key]].id
  vpc_security_group_ids  = [aws_security_group.host.id, aws_security_group.services[join("+", sort(each.value.services))].id]
  key_name                = aws_key_pair.operator.key_name
  disable_api_termination = var.protected

  user_data = templatefile("${path.module}/templates/host.sh.tftpl", {
    name        = local.names[each.key]
    environment = var.environment
    user        = local.user
    folders     = each.value.data
    # The volume's serial number as its host sees it.
    volume   = try(replace(aws_ebs_volume.data[each.key].id, "-", ""), "")
    identity = file("${path.module}/../../../scripts/host-identity")
  })

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 30
    encrypted   = true
  }

  tags = { Name = local.names[each.key] }

  lifecycle {
    # Both matter at the first boot alone: a newer image or script is for new hosts.
    ignore_changes = [ami, user_data]
  }
}
