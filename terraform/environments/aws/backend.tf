# One state file per environment, on this machine; where, says init:
#   terraform init -backend-config=path=$HOME/.local/state/millrace/mill/terraform.tfstate
# For several operators: backend.tf.example.
terraform {
  backend "local" {}
}
