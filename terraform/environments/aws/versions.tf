terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  # .terraform.lock.hcl holds the hashes of one platform, linux_amd64, because it was made from a mirror. To add others:
  #   terraform providers lock -platform=linux_amd64 -platform=linux_arm64 -platform=darwin_arm64
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}
