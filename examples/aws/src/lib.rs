//! This package has no code of its own: see the example `aws_ssm`.
