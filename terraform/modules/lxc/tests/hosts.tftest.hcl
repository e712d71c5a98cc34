# One run for each validation of this module, which breaks it alone, and the plan of every topology.

variables {
  topology    = "../../../topologies/compact.yml"
  environment = { name = "test" }
  subnet      = "10.0.3.64/27"
}

run "environment_name" {
  command = plan
  variables {
    environment = { name = "Test_1" }
  }
  expect_failures = [var.environment]
}

run "no_slice_of_the_network" {
  command = plan
  variables {
    subnet = "10.0.3.0/24"
  }
  expect_failures = [var.subnet]
}

run "compact" {
  command = plan

  assert {
    condition     = keys(terraform_data.host) == ["control", "data1", "data2", "data3"]
    error_message = "One resource for each host."
  }
  assert {
    condition     = terraform_data.host["data1"].input.environment == { MILLRACE_ENV = "test", MILLRACE_HOSTS = "terraform" }
    error_message = "A host is made in the environment that asks for it."
  }
}

run "single" {
  command = plan
  variables {
    topology = "../../../topologies/single.yml"
  }

  assert {
    condition     = keys(terraform_data.host) == ["single"]
    error_message = "One host."
  }
}
