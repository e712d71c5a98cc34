# What is planned for each topology. The provider is a mock: no account, no network.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment = {
    name       = "test"
    id         = "00000000-0000-4000-8000-000000000001"
    public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG1pbGxyYWNlIHRlc3RzLCBvcGVucyBub3RoaW5nIGF0 test"
  }
  operator_cidrs = ["203.0.113.7/32", "198.51.100.0/24"]
}

run "compact" {
  command = plan
  variables {
    topology = "../../../topologies/compact.yml"
  }

  assert {
    condition     = keys(aws_instance.host) == ["control", "data1", "data2", "data3"] && keys(aws_ebs_volume.data) == keys(aws_instance.host)
    error_message = "A host and a volume for its data for each line of the topology."
  }
  assert {
    condition     = length(distinct([for name in ["data1", "data2", "data3"] : aws_ebs_volume.data[name].availability_zone])) == 3
    error_message = "No two members of a quorum share a zone where there are three."
  }
  assert {
    condition     = alltrue([for volume in aws_ebs_volume.data : volume.encrypted && volume.final_snapshot])
    error_message = "Data is encrypted, and a volume that goes leaves a snapshot."
  }
  assert {
    condition = alltrue([
      for host in aws_instance.host :
      host.metadata_options[0].http_tokens == "required" && host.root_block_device[0].encrypted && host.disable_api_termination
    ])
    error_message = "Hosts have IMDSv2 only, an encrypted root disk, and are protected unless it is said otherwise."
  }
  assert {
    condition = alltrue(flatten([
      for rules in [aws_vpc_security_group_ingress_rule.service, aws_vpc_security_group_ingress_rule.ssh] : [for rule in rules : rule.cidr_ipv6 == null && contains(setunion(var.operator_cidrs, ["a group"]), coalesce(rule.cidr_ipv4, "a group"))]
    ]))
    error_message = "No security group is open to anybody but the operator."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.ssh) == length(var.operator_cidrs)
    error_message = "SSH from the operator's ranges."
  }
  assert {
    condition = toset([for rule in aws_vpc_security_group_ingress_rule.service : rule.from_port if rule.cidr_ipv4 != null]) == toset(flatten([
      for service in values(module.topology.services) : [for port in values(service.ports) : port.port if can(port.page)]
    ]))
    error_message = "The operator's ranges reach the pages and nothing else."
  }
  assert {
    condition = toset([for key in keys(aws_vpc_security_group_ingress_rule.service) : key if startswith(key, "zookeeper/")]) == toset([
      for port in ["client", "election", "quorum"] :
      "zookeeper/${port} on cassandra+kafka+spark_worker+zookeeper from cassandra+kafka+spark_worker+zookeeper"
    ])
    error_message = "ZooKeeper is open to its own hosts and Kafka's alone."
  }
}

run "single" {
  command = plan
  variables {
    topology = "../../../topologies/single.yml"
  }

  assert {
    condition     = length(aws_instance.host) == 1 && length(aws_subnet.zone) == 1
    error_message = "One host in one subnet."
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.service : rule.cidr_ipv4 != null])
    error_message = "A host alone needs no port between hosts."
  }
}

run "output" {
  variables {
    topology  = "../../../topologies/compact.yml"
    protected = false
  }

  assert {
    condition     = keys(output.hosts) == ["test-control", "test-data1", "test-data2", "test-data3"]
    error_message = "Hosts are known by the name that they have everywhere."
  }
  assert {
    condition     = toset(keys(output.hosts.test-data1)) == toset(["address", "operator_address", "user", "services", "size", "rack", "ids"])
    error_message = "What Ansible needs, and nothing else."
  }
  assert {
    condition     = output.hosts.test-data2.rack == "rack2" && output.hosts.test-data2.ids == { kafka = 2, zookeeper = 2 }
    error_message = "Racks and ids are the topology's."
  }
  assert {
    condition     = anytrue([for host in aws_instance.host : host.disable_api_termination]) == false
    error_message = "A host is not protected where it is said so."
  }
}

run "zones_of_a_person_s_choice" {
  command = plan
  variables {
    topology = "../../../topologies/compact.yml"
    network  = { zones = ["xx-test-1c", "xx-test-1a"] }
  }

  assert {
    condition     = aws_ebs_volume.data["data1"].availability_zone == "xx-test-1c" && aws_ebs_volume.data["data2"].availability_zone == "xx-test-1a" && aws_ebs_volume.data["data3"].availability_zone == "xx-test-1c"
    error_message = "rack1 stands in the first zone, rack2 in the second, and so on around."
  }
}
