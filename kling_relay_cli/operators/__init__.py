"""Commands of operators: they work on a deployed stack, with the operator's own AWS credentials."""
