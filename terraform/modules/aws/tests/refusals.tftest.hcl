# One run for each validation and precondition of this module, which breaks it alone.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  topology = "../../../topologies/compact.yml"
  environment = {
    name       = "test"
    id         = "00000000-0000-4000-8000-000000000001"
    public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG1pbGxyYWNlIHRlc3RzLCBvcGVucyBub3RoaW5nIGF0 test"
  }
  operator_cidrs = ["203.0.113.7/32"]
}

run "environment_name" {
  command = plan
  variables {
    environment = {
      name       = "Test_1"
      id         = "00000000-0000-4000-8000-000000000001"
      public_key = "ssh-ed25519 AAAA test"
    }
  }
  expect_failures = [var.environment]
}

run "environment_id" {
  command = plan
  variables {
    environment = {
      name       = "test"
      id         = "1"
      public_key = "ssh-ed25519 AAAA test"
    }
  }
  expect_failures = [var.environment]
}

run "private_key" {
  command = plan
  variables {
    environment = {
      name       = "test"
      id         = "00000000-0000-4000-8000-000000000001"
      public_key = "-----BEGIN OPENSSH PRIVATE KEY-----"
    }
  }
  expect_failures = [var.environment]
}

run "no_operator" {
  command = plan
  variables {
    operator_cidrs = []
  }
  expect_failures = [var.operator_cidrs]
}

run "operator_without_prefix" {
  command = plan
  variables {
    operator_cidrs = ["203.0.113.7"]
  }
  expect_failures = [var.operator_cidrs]
}

run "operator_with_an_address_and_a_prefix" {
  command = plan
  variables {
    operator_cidrs = ["203.0.113.7/24"]
  }
  expect_failures = [var.operator_cidrs]
}

run "the_world_as_operator" {
  command = plan
  variables {
    operator_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.operator_cidrs]
}

run "network_too_small" {
  command = plan
  variables {
    network = { cidr = "10.20.0.0/24" }
  }
  expect_failures = [var.network]
}

run "zone_twice" {
  command = plan
  variables {
    network = { zones = ["xx-test-1a", "xx-test-1a"] }
  }
  expect_failures = [var.network]
}

run "zone_that_is_not_there" {
  command = plan
  variables {
    network = { zones = ["xx-test-1z"] }
  }
  expect_failures = [aws_vpc.main]
}

run "rack_without_number" {
  command = plan
  variables {
    topology = "tests/topologies/rack-without-number.yml"
  }
  expect_failures = [aws_vpc.main]
}

run "quorum_in_one_zone" {
  command = plan
  variables {
    topology = "tests/topologies/crowded.yml"
  }
  expect_failures = [aws_vpc.main]
}

run "size_without_instance_type" {
  command = plan
  variables {
    sizes = { medium = { instance_type = "t3.medium" } }
  }
  expect_failures = [var.sizes]
}

run "data_gb_of_none" {
  command = plan
  variables {
    sizes = {
      medium = { instance_type = "t3.medium", data_gb = 0 }
      large  = { instance_type = "t3.large" }
    }
  }
  expect_failures = [var.sizes]
}

run "memory_too_small" {
  command = plan
  override_data {
    target = data.aws_ec2_instance_type.size
    values = { memory_size = 512, supported_architectures = ["x86_64"] }
  }
  expect_failures = [data.aws_ec2_instance_type.size]
}

run "architecture" {
  command = plan
  override_data {
    target = data.aws_ec2_instance_type.size
    values = { memory_size = 16384, supported_architectures = ["arm64"] }
  }
  expect_failures = [data.aws_ec2_instance_type.size]
}
