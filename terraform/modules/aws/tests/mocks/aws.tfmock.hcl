mock_data "aws_availability_zones" {
  defaults = {
    names = ["xx-test-1a", "xx-test-1b", "xx-test-1c", "xx-test-1d"]
  }
}

mock_data "aws_ami" {
  defaults = {
    id = "ami-00000000000000001"
  }
}

mock_data "aws_ec2_instance_type" {
  defaults = {
    memory_size             = 16384
    supported_architectures = ["x86_64"]
  }
}
