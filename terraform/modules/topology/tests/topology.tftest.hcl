# The rules of the shape are held to tests/topologies by pytest, which also reads the messages: here they would all be
# a failure of the same output.

run "file_that_is_not_there" {
  command = plan
  variables {
    topology = "../../../topologies/nowhere.yml"
  }
  expect_failures = [var.topology]
}

run "file_that_is_not_yaml" {
  command = plan
  variables {
    topology = "tests/not-yaml.txt"
  }
  expect_failures = [var.topology]
}

run "topology_of_a_wrong_shape" {
  command = plan
  variables {
    topology = "../../../tests/topologies/even-zookeeper.yml"
  }
  expect_failures = [output.hosts]
}

run "compact" {
  command = plan
  variables {
    topology = "../../../topologies/compact.yml"
  }
  assert {
    condition     = output.members.zookeeper == ["data1", "data2", "data3"] && output.members.depot == ["control"]
    error_message = "Members follow the file."
  }
  assert {
    condition     = output.hosts.data1.memory_mb == output.sizes.medium.memory_mb && output.hosts.control.ids == {}
    error_message = "A host has its size's memory, and no ids where it has none."
  }
  assert {
    condition     = toset(output.hosts.control.data) == toset(["/var/lib/postgresql", "/var/lib/users_stream"])
    error_message = "A host keeps the folders of the services that it runs."
  }
}

run "single" {
  command = plan
  variables {
    topology = "../../../topologies/single.yml"
  }
  assert {
    condition     = keys(output.hosts) == ["single"]
    error_message = "One host."
  }
}
